"""Finished pieces into their places: shards joined to files, and a whole set moved to where it was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

_MESSAGES_FILE_BYTES = 256 << 20
_PUBLISHED = ("messages", "rows", "ledger", "report.html", "manifest.json")


def join(parts: list[Path], folder: Path, name: str) -> None:
    """Put JSONL files behind one another, into files of at least 256 MiB each but the last."""
    number, target = -1, None
    try:
        for part in parts:
            if part.stat().st_size == 0:
                continue
            if target is None or target.tell() >= _MESSAGES_FILE_BYTES:
                if target is not None:
                    target.close()
                number += 1
                target = (folder / f"{name}-{number:05}.jsonl").open("wb")
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    finally:
        if target is not None:
            target.close()


def publish(built: Path, folder: Path) -> None:
    """Move a set's parts into place, the manifest last, and delete the work. After a kill the rest is moved."""
    if (built / "manifest.json").exists():
        (folder / "manifest.json").unlink(missing_ok=True)
    for name in _PUBLISHED:
        source, target = built / name, folder / name
        if source.exists():
            if target.is_dir():
                shutil.rmtree(target)
            source.replace(target)
    shutil.rmtree(folder / ".work", ignore_errors=True)
