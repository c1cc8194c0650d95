"""What lies in a run's folder, for the commands that show it. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chaku.errors import UsageError
from chaku.train.log import read_log


def find_run(text: str) -> Path:
    """A run's folder: a path, or a name below runs/."""
    for folder in (Path(text), Path("runs") / text):
        if (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file():
            return folder
    raise UsageError(f"{text} is no training run", fix="`chaku runs list` shows those below runs/")


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """The log's steps, without its events."""

    return [one for one in read_log(folder / "log.jsonl") if "loss" in one]
