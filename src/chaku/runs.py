"""Training runs as they lie on disk: which there are, and what their logs and manifests say. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError

ROOT = Path("runs")
"""Where runs are looked for when nothing else is said."""


def run_folders(root: Path = ROOT) -> list[Path]:
    """The runs below a folder, by name."""
    return sorted(path.parent for path in root.glob("*/manifest.json") if (path.parent / "config.yaml").is_file())


def find_run(text: str, root: Path = ROOT) -> Path:
    """A run's folder: a path, or a name below `root`."""
    for folder in (Path(text), root / text):
        if (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file():
            return folder
    raise UsageError(f"{text} is not a training run", fix=f"`chaku runs list` shows those below {root}/")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; the last one may be half written where a run was killed."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            return


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The log's steps, without its events."""
    return [one for one in read_log(folder / "log.jsonl") if "loss" in one]
