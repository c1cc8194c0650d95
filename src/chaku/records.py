"""Files and folders that are whole or absent, files that only grow, sha256. Nothing here knows what they hold."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from chaku.errors import UsageError


@contextlib.contextmanager
def atomic_write(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` when the block ends well, and vanishes when it does not.

    Written beside `path`, fsynced, then renamed, so a reader sees the old file or the whole new one. A process that is
    killed leaves the hidden file `.NAME.PID.*.part`, which the next writer of the same path clears away.
    """
    with atomic_path(path, mode=mode) as part, part.open("wb") as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """As `atomic_write`, for what wants a file's path: an empty file beside `path`, to be written and closed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_cleared_prefix(path), suffix=_PART)
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        sync(part)
        part.chmod(mode)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


_PART = ".part"
_OLD = ".old"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder that becomes `path` when the block ends well, and vanishes when it does not.

    What is at `path` is replaced only once the new folder is whole and on disk. A process that is killed leaves the
    hidden folder `.NAME.PID.*.part`, which the next writer of the same path clears away.
    """
    path = path.absolute()
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=_cleared_prefix(path), suffix=_PART))
    part.chmod(0o755)
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                sync(file)
        sync(part)
        put_folder(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def put_folder(part: Path, path: Path) -> None:
    """Rename a whole folder into place; what was at `path` goes only then."""
    old = part.with_name(part.name + _OLD)
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync(path.parent)
    if old.exists():
        shutil.rmtree(old)


def _cleared_prefix(path: Path) -> str:
    """How names of this process's unfinished writes of `path` begin. What killed processes left is removed first.

    An old folder that one of them had already moved away is put back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\w+{re.escape(_PART)}(?:{re.escape(_OLD)})?")
    for left in sorted(path.parent.iterdir()):
        found = pattern.fullmatch(left.name)
        if found is None or _is_running(int(found[1])):
            continue
        if left.name.endswith(_OLD) and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    return f".{path.name}.{os.getpid()}."


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendOnly:
    """A file of lines to which this process alone appends."""

    def __init__(self, fd: int, lines: list[bytes], num_whole_bytes: int) -> None:
        self._fd = fd
        self._num_whole_bytes: int | None = num_whole_bytes
        self.lines = lines
        """The whole lines that the file held when it was opened."""

    def add(self, line: bytes) -> None:
        """Append a line that ends with a newline: when this returns, the death of this process can't lose it.

        A last line that a killed process left unfinished is cut off before the first one is appended.
        """
        if self._num_whole_bytes is not None:
            os.ftruncate(self._fd, self._num_whole_bytes)
            self._num_whole_bytes = None
        while line:
            line = line[os.write(self._fd, line) :]


@contextlib.contextmanager
def append_only(path: Path) -> Iterator[AppendOnly]:
    """Open a file of lines, which may be new. Raises UsageError where another process has it open like this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run writes {path}", fix="wait for its end, or name another output") from None
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        yield AppendOnly(file.fileno(), whole.splitlines(), len(whole))


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Size and sha256, for a manifest."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def change_of(path: Path, described: Mapping[str, Any], *, hashes: bool = True) -> str | None:
    """What has become of a file since it was described; None: nothing. Without `hashes`, only its size counts."""
    if not path.is_file():
        return "is missing"
    if (num_bytes := path.stat().st_size) != described["bytes"]:
        return f"has {num_bytes:,} bytes, not {described['bytes']:,}"
    if hashes and (sha256 := sha256_file(path)) != described["sha256"]:
        return f"has changed since it was written: sha256 {sha256[:12]}…, not {described['sha256'][:12]}…"
    return None
