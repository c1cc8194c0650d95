"""The log's numbers in a tracker too: trackio and wandb, which share their calls, or tensorboard. Never required."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.errors import UsageError

PACKAGES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


@dataclass(frozen=True)
class Tracker:
    """Where numbers go, and how it ends."""

    log: Callable[[Mapping[str, float], int], None]
    finish: Callable[[], None]


def open_tracker(kind: str | None, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """A tracker for the run of this folder; None tells nobody. Raises UsageError where it is not installed."""
    if kind is None:
        return Tracker(lambda _values, _step: None, lambda: None)
    try:
        module = importlib.import_module(PACKAGES[kind])
    except ImportError:
        raise UsageError(f"train.track says {kind}, which is not installed", fix=f"pip install {kind}") from None
    if kind == "tensorboard":
        writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"))

        def add(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        return Tracker(add, writer.close)
    module.init(project="chaku", name=folder.name, config=dict(config))
    return Tracker(lambda values, step: module.log(dict(values), step=step), module.finish)
