"""Files that are whole or absent: atomic replace, sha256, JSONL. Nothing here knows what the records mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` when the block ends well, and vanishes when it does not.

    Written beside `path`, fsynced, then renamed, so a reader sees the old file or the whole new one.
    """
    with atomic_path(path, mode=mode) as part, part.open("wb") as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """As `atomic_write`, for what wants a file's path: an empty file beside `path`, to be written and closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
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


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
