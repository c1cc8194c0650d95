"""What lies in a run's folder, for the commands that show it. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaku.errors import UsageError


def find_run(text: str) -> Path:
    """A run's folder: a path, or a name below runs/."""
    for folder in (Path(text), Path("runs") / text):
        if (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file():
            return folder
    raise UsageError(f"{text} is no training run", fix="`chaku runs list` shows those below runs/")


def manifest_of(folder: Path) -> dict[str, Any]:
    """What the run is made of."""
    import orjson

    manifest: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())
    return manifest


def records_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of the log; the last may still be written."""
    import orjson

    path = folder / "log.jsonl"
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        if line.endswith(b"\n"):
            yield orjson.loads(line)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The log's steps, without its events."""
    return [one for one in records_of(folder) if "loss" in one]
