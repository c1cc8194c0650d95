"""Draws long work on standard error: bars with rate and time left on a terminal, a line now and then elsewhere.

Four kinds of work are drawn: fetching a model, a pass over weights, building a set, and training.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import click
from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from chaku.models.fetch.progress import DESCRIPTIONS, Phase, Progress
from chaku.models.plan.memory_plan import gigabytes

if TYPE_CHECKING:
    from chaku.data.ledger import StageCounts
    from chaku.data.watcher import Watcher
    from chaku.train.log import StepRecord
    from chaku.train.loop import Listener
    from chaku.weights.shards import Watch

_LINE_EVERY_S = 5.0
_TERMINATED = 128 + signal.SIGTERM
_COUNTED = {
    "prepare": ("import", "conversations"),
    "tokenise": ("dedup", "conversations"),
    "pack": ("pack", "documents"),
}
"""Phase of a build: the stage whose conversations or documents are counted for its rate."""


@contextlib.contextmanager
def fetching(name: str) -> Iterator[Progress]:
    """A callback for the phases of fetching the model `name`."""
    if not sys.stderr.isatty():
        yield _PhaseLines(name)
        return
    with _byte_bars() as bars:
        tasks: dict[Phase, TaskID] = {}

        def draw(phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(f"{name}: {DESCRIPTIONS[phase]}", total=total_bytes)
            bars.update(tasks[phase], completed=done_bytes, total=total_bytes)

        yield draw


@contextlib.contextmanager
def passing(name: str) -> Iterator[Watch]:
    """A callback for bytes done and in all of one pass over weights; see `passes`."""
    with passes(name) as (watch,):
        yield watch


@contextlib.contextmanager
def passes(*names: str) -> Iterator[list[Watch]]:
    """A callback for bytes done and in all for each named pass over weights.

    While it is open a SIGTERM ends the command the way Ctrl-C does, so that half an output is cleaned away.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if sys.stderr.isatty():
            with _byte_bars() as bars:
                yield [_pass_bar(bars, name) for name in names]
        else:
            yield [_PassLines(name) for name in names]
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def building() -> Iterator[Watcher]:
    """A watcher for the build of a set."""
    if not sys.stderr.isatty():
        yield _BuildLines()
        return
    with _bars(
        rich_progress.TextColumn("{task.description:<9}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("shards  {task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
    ) as progress:
        bars = _BuildBars(progress)
        yield bars
        bars.end_phase()


@contextlib.contextmanager
def training(is_rank_zero: bool) -> Iterator[Listener]:
    """A listener for a run; only the leading process draws."""
    if not is_rank_zero:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _StepLines()
        return
    with _bars(
        rich_progress.TextColumn("step"),
        rich_progress.MofNCompleteColumn(),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[numbers]}"),
        speed_estimate_period=600,
    ) as progress:
        yield _StepBar(progress)


def counting(done: int, total: int, unit: str) -> None:
    """One line on a terminal that is written again as the count grows; nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} {unit}", err=True, nl=done == total)


def _bars(*columns: rich_progress.ProgressColumn, speed_estimate_period: float = 30.0) -> rich_progress.Progress:
    return rich_progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=speed_estimate_period)


def _byte_bars() -> rich_progress.Progress:
    return _bars(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )


def _pass_bar(bars: rich_progress.Progress, name: str) -> Watch:
    task = bars.add_task(name, total=None, start=False, visible=False)

    def draw(done_bytes: int, total_bytes: int) -> None:
        bars.start_task(task)
        bars.update(task, completed=done_bytes, total=total_bytes, visible=True)

    return draw


def _terminate(*_: object) -> NoReturn:
    sys.exit(_TERMINATED)


class _Pace:
    """Whether it is time for another line, and how fast something grew since it began."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.started = self.printed = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self.printed < _LINE_EVERY_S:
            return False
        self.printed = now
        return True

    def per_s(self, done: int) -> float:
        return (done - self.first) / max(time.monotonic() - self.started, 1e-3)


def _bytes_line(pace: _Pace, done_bytes: int, total_bytes: int | None) -> str:
    if not total_bytes:
        return f" {gigabytes(done_bytes)}" if done_bytes else ""
    rate = pace.per_s(done_bytes)
    line = f" {gigabytes(done_bytes)} of {gigabytes(total_bytes)}"
    if rate and done_bytes < total_bytes:
        line += f", {gigabytes(round(rate))}/s, {(total_bytes - done_bytes) / rate:.0f} s left"
    return line


class _PhaseLines:
    """One line when a phase begins, and one every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase: Phase | None = None
        self.pace = _Pace()

    def __call__(self, phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
        if phase != self.phase:
            self.phase, self.pace = phase, _Pace(done_bytes)
        elif not self.pace.is_due():
            return
        click.echo(f"{self.name}: {DESCRIPTIONS[phase]}{_bytes_line(self.pace, done_bytes, total_bytes)}", err=True)


class _PassLines:
    """One line every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pace: _Pace | None = None

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self.pace = self.pace or _Pace()
        if self.pace.is_due():
            click.echo(f"{self.name}:{_bytes_line(self.pace, done_bytes, total_bytes)}", err=True)


class _Rate:
    """What passed since a phase of a build began, in conversations or documents per second."""

    def __init__(self, phase: str) -> None:
        self.stage, self.unit = _COUNTED.get(phase, ("", ""))
        self.pace = _Pace()
        self.number = 0

    def add(self, counts: dict[str, StageCounts]) -> str:
        self.number += counts[self.stage].entered if self.stage in counts else 0
        return f"{self.pace.per_s(self.number):,.0f} {self.unit}/s"


class _BuildLines:
    def __init__(self) -> None:
        self.total: int | None = None
        self.rate = _Rate("")

    def said(self, line: str) -> None:
        click.echo(line, err=True)

    def began(self, phase: str, total: int | None) -> None:
        self.total, self.rate = total, _Rate(phase)
        click.echo(f"{phase} ...", err=True)

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        rate = self.rate.add(counts)
        if self.rate.pace.is_due() or done == self.total:
            of = f" of {self.total:,}" if self.total else ""
            click.echo(f"{phase}: {done:,}{of} shards, {rate}", err=True)


class _BuildBars:
    def __init__(self, progress: rich_progress.Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.total: int | None = None
        self.done = 0
        self.rate = _Rate("")

    def said(self, line: str) -> None:
        self.progress.console.print(escape(line), highlight=False)

    def began(self, phase: str, total: int | None) -> None:
        self.end_phase()
        self.rate, self.total, self.done = _Rate(phase), total, 0
        self.task = self.progress.add_task(phase, total=total, rate="")

    def end_phase(self) -> None:
        """Fill the bar of a phase that has ended; where nobody knew its number of shards, it is known now."""
        if self.task is not None:
            total = self.total or max(self.done, 1)
            self.progress.update(self.task, total=total, completed=total)

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        assert self.task is not None
        self.done = done
        self.progress.update(self.task, completed=done, rate=self.rate.add(counts))


class _Silent:
    """For processes that don't lead."""

    def note(self, line: str) -> None:
        pass

    def step_done(self, record: StepRecord, total: int) -> None:
        pass


class _StepLines:
    def __init__(self) -> None:
        self.pace: _Pace | None = None
        self.seconds = 0.0

    def note(self, line: str) -> None:
        click.echo(line, err=True)

    def step_done(self, record: StepRecord, total: int) -> None:
        is_first, self.pace = self.pace is None, self.pace or _Pace(record.step - 1)
        if is_first:
            self.pace.started -= record.seconds
        if not self.pace.is_due() and not is_first and record.step != total:
            return
        left = _duration((total - record.step) / self.pace.per_s(record.step))
        click.echo(f"step {record.step:,} of {total:,}: {step_numbers(record)}, {left} left", err=True)


class _StepBar:
    def __init__(self, progress: rich_progress.Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def note(self, line: str) -> None:
        self.progress.console.print(escape(line), highlight=False)

    def step_done(self, record: StepRecord, total: int) -> None:
        if self.task is None:
            self.task = self.progress.add_task("step", total=total, completed=record.step - 1, numbers="")
            self.progress.reset(self.task, completed=record.step - 1)
        self.progress.update(self.task, completed=record.step, numbers=step_numbers(record))
        if record.heldout_loss is not None:
            self.note(f"after step {record.step:,}: held-out loss {record.heldout_loss:.4f}, loss {record.loss:.4f}")


def step_numbers(record: StepRecord) -> str:
    """What one step did, in a line."""
    parts = {
        "loss": f"{record.loss:.4f}", "held out": record.heldout_loss and f"{record.heldout_loss:.4f}",
        "lr": f"{record.lr:.2e}", "gradient": f"{record.grad_norm:.2f}",
        "MFU": record.mfu and f"{record.mfu:.1%}",
        "dollars": record.dollars and f"{record.dollars:.2f}",
    }  # fmt: skip
    shown = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    return f"{shown}, {record.tokens_per_s:,.0f} tokens/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
