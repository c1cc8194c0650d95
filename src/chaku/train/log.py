"""log.jsonl of a run: one line a step from the first on, and lines for events; cut back to the checkpoint on resume."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chaku.records import atomic_write
from chaku.runs import read_log as read_log
from chaku.train.tracker import Tracker


@dataclass(frozen=True)
class StepRecord:
    """What one step did. Tokens are those of all processes; seconds run from record to record, saving included."""

    step: int
    """Steps done, this one included."""
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    trained_tokens: int
    seconds: float
    tokens_per_s: float
    memory_bytes: int
    heldout_loss: float | None = None
    dollars: float | None = None
    mfu: float | None = None
    """Useful share of the hardware's arithmetic, see `chaku.train.flops`; None where its peak is not known."""
    metrics: dict[str, float] | None = None
    """Further numbers of the objective, divided by the step's weight as the loss is."""


class Log:
    """Appends to log.jsonl; writes nothing on processes other than rank zero."""

    def __init__(self, path: Path | None, steps_done: int = 0, tracker: Tracker | None = None) -> None:
        """Keep the lines up to `steps_done` and append after them. None writes nowhere."""
        self._file = None
        self._tracker = tracker
        self.dollars = 0.0
        if path is None:
            return
        kept = [line for line in read_log(path) if line.get("step", 0) <= steps_done] if steps_done else []
        self.dollars = max((line["dollars"] for line in kept if line.get("dollars")), default=0.0)
        with atomic_write(path) as file:
            file.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in kept)
        self._file = path.open("ab")

    def step(self, record: StepRecord) -> None:
        """One line for a step."""
        values = {key: value for key, value in vars(record).items() if value is not None}
        self._write(values)
        if self._tracker is not None:
            numbers = {name: value for name, value in values.items() if name != "metrics"}
            self._tracker.log(numbers | (record.metrics or {}), record.step)

    def event(self, name: str, step: int, **fields: Any) -> None:
        """One line for something else that happened after `step`."""
        self._write({"event": name, "step": step, **fields})

    def _write(self, values: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
            self._file.flush()

    def sync(self) -> None:
        """On disk before the checkpoint that speaks of these steps."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more lines."""
        if self._file is not None:
            self._file.close()
        if self._tracker is not None:
            self._tracker.finish()


def memory_bytes(device_type: str) -> int:
    """Most memory held so far: of the GPU where there is one, of this process otherwise."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
