"""The log's numbers in a tracker too: trackio and wandb, which share their calls, or tensorboard. Never required."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError

PACKAGES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


@dataclass(frozen=True)
class Tracker:
    """Where numbers go, and how it ends."""

    log: Callable[[Mapping[str, float], int], None]
    finish: Callable[[], None]


def open_tracker(kind: str | None, folder: Path, config: Mapping[str, Any], steps_done: int = 0) -> Tracker:
    """A tracker for the run of this folder; None tells nobody. Raises UsageError where it is not installed.

    A run that resumes after `steps_done` resumes there too.
    """
    if kind is None:
        return Tracker(lambda _values, _step: None, lambda: None)
    try:
        module = importlib.import_module(PACKAGES[kind])
    except ImportError:
        raise UsageError(f"train.track says {kind}, which is not installed", fix=f"pip install {kind}") from None
    if kind == "tensorboard":
        return _tensorboard(module, folder, steps_done)
    options: dict[str, Any] = {"resume": "allow" if steps_done else "never"}
    if kind == "wandb":  # one run for wandb is what has the same id
        options["id"] = _identity(folder)
    module.init(project="chaku", name=folder.name, config=dict(config), **options)

    def log(values: Mapping[str, float], step: int) -> None:
        module.log({name: value for name, value in values.items() if name != "step"}, step=step)  # told beside them

    return Tracker(log, module.finish)


def _tensorboard(module: Any, folder: Path, steps_done: int) -> Tracker:
    """Events after `steps_done` are of a start that ended before it could save: the new ones hide them."""
    writer = module.SummaryWriter(
        log_dir=str(folder / "tensorboard"), purge_step=steps_done + 1 if steps_done else None
    )

    def add(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if name != "step":
                writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(add, writer.close)


def _identity(folder: Path) -> str:
    """The same through all lives of a run, another one for a new run of the same name."""
    started = orjson.loads((folder / "manifest.json").read_bytes())["started"]
    return hashlib.sha256(f"{folder.resolve()} {started}".encode()).hexdigest()[:16]
