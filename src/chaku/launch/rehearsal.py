"""Preemption, rehearsed: a run on this host is killed at moments drawn from a seed. Imports no torch."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chaku.launch.relaunch import Job
from chaku.train.log import read_log

_WAYS = ("all at once", "one process", "with notice")
_LOOK_EVERY_S = 0.2
_MOST_DELAY_STEPS = 1.5


@dataclass(frozen=True)
class Blow:
    """One kill: after which step, how much later (in steps), and in which way."""

    step: int
    delay_steps: float
    way: str


def draw(seed: int, number: int, total: int) -> list[Blow]:
    """`number` kills of a run of `total` steps, in order; every way comes up when there are three."""
    chooser = random.Random(seed)  # noqa: S311 (a rehearsal must be repeatable)
    steps = sorted(chooser.randrange(total) for _ in range(number))
    ways = [_WAYS[index % len(_WAYS)] for index in range(number)]
    chooser.shuffle(ways)
    return [Blow(step, chooser.uniform(0, _MOST_DELAY_STEPS), way) for step, way in zip(steps, ways, strict=True)]


@dataclass
class Rehearsal:
    """Kills a job `number` times. The moments follow the log's lines, as a process takes seconds to begin."""

    folder: Path
    seed: int
    number: int
    note: Callable[[str], None]
    dealt: int = 0
    _left: list[Blow] | None = None
    _job: Job | None = None
    _log_before: int | None = None
    _looked: float = field(default=0.0)

    def disturb(self, job: Job) -> bool:
        """Kill the job when its moment has come; true if so, and false at once otherwise."""
        if job is not self._job:
            self._job, self._log_before = job, self._log_id()
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return False
        self._looked = now
        # A run that goes on writes its log anew first, cut back to the checkpoint: until then the lines are old.
        if (log := self._log_id()) is None or (log == self._log_before):
            return False
        if self._left is None:
            total = yaml.safe_load((self.folder / "config.yaml").read_text())["steps"]
            self._left = draw(self.seed, self.number, total)
        steps = [line for line in read_log(self.folder / "log.jsonl") if "loss" in line]
        if self._left and (steps[-1]["step"] if steps else 0) >= self._left[0].step:
            return self._deal(job, self._left.pop(0), steps)
        return False

    def _log_id(self) -> int | None:
        try:
            return (self.folder / "log.jsonl").stat().st_ino
        except FileNotFoundError:
            return None

    def _deal(self, job: Job, blow: Blow, steps: list[dict[str, Any]]) -> bool:
        time.sleep(blow.delay_steps * min(steps[-1]["seconds"] if steps else 0.0, 10.0))
        if job.has_ended():
            return False
        self.dealt += 1
        number, ranks = signal.SIGTERM if blow.way == "with notice" else signal.SIGKILL, None
        if blow.way == "one process":
            ranks = [random.Random(self.seed + blow.step).randrange(len(job.processes))]  # noqa: S311
        self.note(f"rehearsal: {number.name} after step {steps[-1]['step'] if steps else 0:,} ({blow.way})")
        job.send(number, ranks)
        return True
