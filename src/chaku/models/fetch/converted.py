"""Models converted to GGUF, or requantised, once: by a child process, into a cache keyed by content.

The child is `chaku weights convert`; torch never enters this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaku import config
from chaku.errors import ModelError, UsageError, error_of_child
from chaku.models.fetch import cache
from chaku.models.fetch.folders import base_of, content_hash, is_adapter, model_folder
from chaku.models.fetch.progress import Progress
from chaku.models.files.gguf import read_metadata
from chaku.models.reference import folder_name
from chaku.packages import install_command

DEFAULT_QUANT = "q8_0"
"""For folders; docs/weights.md has the tables that argue for it."""
_FORMAT = 1  # counts up when the export writes something else
_POLL_S = 0.2


_NAME = re.compile(r"(?P<source>.+)\.(?P<quant>[A-Z0-9_]+)\.[0-9a-f]{12}\.gguf")
"""Of a file that was made here; the last part is a hash of what decides its content."""


@dataclass(frozen=True)
class Conversion:
    """A file that was made here, and is made again where it is needed."""

    source: str
    """What the folder, run or file was called that it was made of."""
    quantisation: str
    path: Path
    num_bytes: int
    made_at: str
    """UTC, ISO 8601."""

    @property
    def name(self) -> str:
        """What tells it from others."""
        return self.path.stem


def converted_dir() -> Path:
    """The folder of what was made of local models. What was made of a pulled one lies beside that."""
    return config.cache_dir() / "converted"


def conversions() -> list[Conversion]:
    """Everything that was converted and not removed, by name."""
    files = {*converted_dir().glob("*.gguf"), *cache.models_dir().glob("*/*.gguf")}
    files -= {model.path for model in cache.pulled()}  # one of those may be called so
    found = []
    for path in sorted(files, key=lambda path: path.name):
        if match := _NAME.fullmatch(path.name):
            status = path.stat()
            made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
            found.append(Conversion(match["source"], match["quant"], path, status.st_size, made_at))
    return found


def remove(conversion: Conversion) -> None:
    """Delete a conversion and what a killed one left of it. A server that has the file open keeps it until it ends."""
    with cache.lock_path(conversion.path):
        for path in (conversion.path, *conversion.path.parent.glob(f".{conversion.path.name}.*.part")):
            path.unlink(missing_ok=True)


def from_folder(path: Path, quant: str | None, progress: Progress) -> Path:
    """The GGUF of a Hugging Face folder, a peft adapter or a run, converted if need be.

    Safe in several processes at once. Raises UsageError where what it takes is not installed, ModelError for a model
    that can't be converted.
    """
    folder = model_folder(path)
    needed = ["torch", "gguf"]
    if is_adapter(folder) and base_of(folder).suffix == ".gguf":
        needed.append("transformers")
    return _converted(folder, folder_name(path), quant or DEFAULT_QUANT, converted_dir(), needed, progress)


def from_file(path: Path, quant: str, progress: Progress, folder: Path | None = None) -> Path:
    """A GGUF with other numbers, written to `folder` (by default the cache) if need be; `path` where it has them."""
    if read_metadata(path).quantisation == quant.upper():
        return path
    return _converted(path, path.name.removesuffix(".gguf"), quant, folder or converted_dir(), ["gguf"], progress)


def _require(modules: Sequence[str]) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"converting models needs {module}, which is not installed", fix=install_command("train"))


def _converted(source: Path, name: str, quant: str, folder: Path, needed: Sequence[str], progress: Progress) -> Path:
    progress("verify", 0, None)
    key = hashlib.sha256(f"{_FORMAT} {quant} {content_hash(source)}".encode()).hexdigest()[:12]
    target = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}.{quant.upper()}.{key}.gguf"
    if target.is_file():
        return target
    _require(needed)
    with cache.lock_path(target, progress):
        if not target.is_file():  # else another process was faster
            for leftover in folder.glob(f".{target.name}.*.part"):
                leftover.unlink()
            _run(source, target, quant, progress)
            read_metadata(target)
    return target


def _run(source: Path, target: Path, quant: str, progress: Progress) -> None:
    read_end, write_end = os.pipe()
    command = [
        *(sys.executable, "-m", "chaku", "weights", "convert", str(source.resolve()), "--to", "gguf"),
        *("--quant", quant, "-o", str(target), "--progress-fd", str(write_end)),
    ]
    progress("convert", 0, None)
    with os.fdopen(read_end, "rb"), tempfile.TemporaryFile() as log:
        try:
            child = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write_end,)
            )
        finally:
            os.close(write_end)
        with _ended(child):
            done_bytes = 0
            total_bytes: int | None = None
            unread = b""
            while True:
                if not select.select([read_end], [], [], _POLL_S)[0]:
                    progress("convert", done_bytes, total_bytes)  # it may end the conversion, also between two lines
                    continue
                if not (piece := os.read(read_end, 4096)):
                    break
                *lines, unread = (unread + piece).split(b"\n")
                for line in lines:
                    done_bytes, total_bytes = map(int, line.split())
                    progress("convert", done_bytes, total_bytes)
            code = child.wait()
        if code:
            log.seek(0)
            output = log.read().decode("utf-8", "replace")
            as_typed = f"chaku weights convert {source} --to gguf -o model.gguf"
            raise error_of_child(ModelError, output, code, as_typed)


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The child does not outlive the block, however it ends."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
