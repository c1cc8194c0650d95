"""A run on this host as a managed job would have it: started again after whatever ended it, and ended with care.

The processes are those that `torchrun --standalone` would start, with its variables. Starting them here keeps what
torchrun hides: each one's exit code, time to save on SIGTERM, and nobody left behind. Imports no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chaku.errors import ModelError, RunInterrupted, StoreError, UsageError
from chaku.ports import free_port

_POLL_S = 0.05
_PATIENCE_S = 30.0
"""How long the others may take to end by themselves once one has."""
_FRUITLESS_STARTS = 3
"""So many starts in a row without a newer checkpoint, and one more would change nothing."""
_LASTING = {UsageError.exit_code, ModelError.exit_code, StoreError.exit_code, 128 + signal.SIGINT}


class Disturber(Protocol):
    """Harms a running job, to see it recover."""

    def disturb(self, job: Job) -> bool:
        """Called again and again while the job runs; true when it did harm."""


@dataclass
class Job:
    """The processes of one start. `code` and `first` are how the run ended, and in which of them."""

    processes: list[subprocess.Popen[bytes]]
    first: int = 0
    code: int = 0
    was_disturbed: bool = False

    @classmethod
    def start(cls, command: Sequence[str], number: int) -> Job:
        """One process alone, or `number` that find each other through torchrun's variables."""
        where: dict[str, str] = {}
        if number > 1:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            where |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
        job = cls([])
        try:
            for rank in range(number):
                variables = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if number > 1 else {}
                process = subprocess.Popen(  # noqa: S603
                    command,
                    env={**os.environ, **where, **variables},
                    start_new_session=True,  # Ctrl-C in the terminal is for us, who pass it on as SIGTERM
                    preexec_fn=_end_with_parent,
                )
                job.processes.append(process)
        except BaseException:
            job.kill()
            raise
        return job

    def send(self, number: int, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to those that still run; to all, or to some."""
        for rank, process in enumerate(self.processes):
            if process.poll() is None and (ranks is None or rank in ranks):
                process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until they are gone."""
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def has_ended(self) -> bool:
        """True once one has failed, whose number and code are noted, or all are through."""
        codes = [process.poll() for process in self.processes]
        # One that was killed comes first: the others only lost it.
        failed = sorted((code, rank) for rank, code in enumerate(codes) if code)
        if failed:
            self.code, self.first = failed[0]
        return bool(failed) or None not in codes

    def settle(self) -> None:
        """Once one has failed: let the others end, then see to it."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and any(process.poll() is None for process in self.processes):
            time.sleep(_POLL_S)
        self.has_ended()
        self.kill()


@dataclass
class Relauncher:
    """Starts a run on this host until it is through. `folder` is the run's: its checkpoints tell whether it gets on."""

    command: Sequence[str]
    processes: int
    folder: Path
    note: Callable[[str], None]
    max_restarts: int | None = None
    disturber: Disturber | None = None
    restarts: int = 0
    _signals: list[int] = field(default_factory=list)

    def run(self) -> int:
        """The run's exit code: 0 when it is through, 75 when we were asked to stop, else what it could not get over."""
        fruitless, saved = 0, newest_step(self.folder)
        with _forwarded(self._signals):
            while True:
                job = Job.start(self.command, self.processes)
                try:
                    self._watch(job)
                finally:
                    job.kill()
                if self._signals and job.code == -signal.SIGTERM:  # it had not begun to listen, nor to train
                    return RunInterrupted.exit_code
                if job.code == 0 or self._signals:
                    return _shell_code(job.code)
                before, saved = saved, newest_step(self.folder)
                fruitless = 0 if saved > before or job.was_disturbed else fruitless + 1
                reason, stop = _how_it_ended(job), self._reason_to_stop(job.code, fruitless)
                if stop is not None:
                    self.note(f"{reason}: {stop}")
                    return _shell_code(job.code)
                self.restarts += 1
                self.note(f"{reason}: restart {self.restarts}, the newest checkpoint is that of step {saved:,}")

    def _watch(self, job: Job) -> None:
        num_passed_on = 0
        while not job.has_ended():
            if len(self._signals) > num_passed_on:
                num_passed_on = len(self._signals)
                if num_passed_on > 1:
                    job.send(signal.SIGKILL)
                    continue
                self.note("asked to stop: waiting until the run has saved (ask again to end at once)")
                job.send(signal.SIGTERM)
            if self.disturber is not None and not num_passed_on:
                job.was_disturbed |= self.disturber.disturb(job)
            time.sleep(_POLL_S)
        if job.code:
            job.settle()

    def _reason_to_stop(self, code: int, fruitless: int) -> str | None:
        if code in _LASTING:
            return "another start would end the same way"
        if fruitless >= _FRUITLESS_STARTS:
            return f"{fruitless} starts in a row brought no newer checkpoint"
        if self.max_restarts is not None and self.restarts >= self.max_restarts:
            return f"that was the last of {self.max_restarts} restarts"
        return None


def train_command(recipe: Path, settings: Sequence[str]) -> list[str]:
    """What one process of a run executes."""
    sets = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "chaku", "train", str(recipe), *sets, "--resume", "auto"]


def newest_step(folder: Path) -> int:
    """The step of a run's newest checkpoint by name; 0 where there is none."""
    names = [path.name.removeprefix("step-") for path in folder.glob("checkpoints/step-*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _how_it_ended(job: Job) -> str:
    who = f"process {job.first} of {len(job.processes)}" if len(job.processes) > 1 else "the run"
    if job.code < 0:
        return f"{who} was killed by {signal.Signals(-job.code).name}"
    if job.code == RunInterrupted.exit_code:
        return "the run was asked to stop and has saved"
    return f"{who} ended with exit code {job.code}"


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _end_with_parent() -> None:
    """In a child about to start: SIGTERM to it when we are killed, so that no run goes on unwatched (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def _forwarded(heard: list[int]) -> Iterator[None]:
    """Note SIGTERM and SIGINT instead of dying of them: whoever watches the job passes them on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _frame: heard.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
