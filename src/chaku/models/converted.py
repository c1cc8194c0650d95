"""Models converted to GGUF, or requantised, once: by a child process, into a cache keyed by content.

The child is `chaku weights convert`; torch never enters this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from chaku import config
from chaku.errors import ModelError, UsageError
from chaku.models import cache
from chaku.models.folders import base_of, content_hash, is_adapter, model_folder
from chaku.models.gguf import read_metadata
from chaku.models.progress import Progress
from chaku.models.reference import folder_name

DEFAULT_QUANT = "q8_0"
"""For folders; docs/weights.md has the tables that argue for it."""
_FORMAT = 1  # counts up when the export writes something else


def converted_dir() -> Path:
    """The folder of everything that was converted."""
    return config.cache_dir() / "converted"


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
            raise UsageError(
                f"converting models needs {module}, which is not installed", fix="pip install 'chaku[train]'"
            )


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
    with os.fdopen(read_end) as told, tempfile.TemporaryFile() as log:
        try:
            child = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write_end,)
            )
        finally:
            os.close(write_end)
        with _ended(child):
            for line in told:
                done_bytes, total_bytes = map(int, line.split())
                progress("convert", done_bytes, total_bytes)
            code = child.wait()
        if code:
            raise _why(source, code, log)


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The child does not outlive the block, however it ends."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _why(source: Path, code: int, log: IO[bytes]) -> ModelError:
    """What the child said before it ended, in the form every chaku command says it."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    message = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    fix = next((line.removeprefix("fix: ") for line in lines if line.startswith("fix: ")), None)
    if message is None:
        message = f"converting {source} ended with code {code}" + (f": {lines[-1]}" if lines else "")
        fix = f"run it to see: chaku weights convert {source} --to gguf -o model.gguf"
    return ModelError(message, fix=fix)
