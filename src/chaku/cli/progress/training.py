"""Progress of a training run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich import progress as rich_progress
from rich.markup import escape

from chaku.cli.progress.drawing import Pace, new_bars

if TYPE_CHECKING:  # torch
    from chaku.train.log import StepRecord
    from chaku.train.loop import Listener


@contextlib.contextmanager
def training(is_rank_zero: bool, total: int) -> Iterator[Listener]:
    """A listener for a run of `total` steps; only the leading process draws."""
    if not is_rank_zero:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _StepLines()
        return
    with new_bars(
        rich_progress.TextColumn("step"),
        rich_progress.MofNCompleteColumn(),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[numbers]}"),
        speed_estimate_period=600,
    ) as progress:
        yield _StepBar(progress, total)


class _Silent:
    """For processes that don't lead."""

    def note(self, line: str) -> None:
        pass

    def step_done(self, record: StepRecord, total: int) -> None:
        pass


class _StepLines:
    def __init__(self) -> None:
        self.pace: Pace | None = None
        self.seconds = 0.0

    def note(self, line: str) -> None:
        click.echo(line, err=True)

    def step_done(self, record: StepRecord, total: int) -> None:
        is_first, self.pace = self.pace is None, self.pace or Pace(record.step - 1)
        if is_first:
            self.pace.started -= record.seconds
        if not self.pace.is_due() and not is_first and record.step != total:
            return
        left = _duration((total - record.step) / self.pace.per_s(record.step))
        click.echo(f"step {record.step:,} of {total:,}: {step_numbers(record)}, {left} left", err=True)


class _StepBar:
    def __init__(self, progress: rich_progress.Progress, total: int) -> None:
        self.progress = progress
        self.task = progress.add_task("step", total=total, numbers="")
        self.has_begun = False

    def note(self, line: str) -> None:
        self.progress.console.print(escape(line), highlight=False)

    def step_done(self, record: StepRecord, total: int) -> None:
        if not self.has_begun:
            self.progress.reset(self.task, completed=record.step - 1)
            self.has_begun = True
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
