"""Draws how training goes on: a bar with loss, rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from chaku.train.log import StepRecord
    from chaku.train.loop import Listener

_LINE_EVERY_S = 5.0


class _Silent:
    """For processes that don't lead."""

    def said(self, line: str) -> None:
        pass

    def stepped(self, record: StepRecord, total: int) -> None:
        pass


class _Lines:
    def __init__(self) -> None:
        self.spoke = 0.0
        self.first: tuple[int, float] | None = None

    def said(self, line: str) -> None:
        click.echo(line, err=True)

    def stepped(self, record: StepRecord, total: int) -> None:
        now = time.monotonic()
        self.first = self.first or (record.step, now - record.seconds)
        if now - self.spoke < _LINE_EVERY_S and record.step != total:
            return
        self.spoke = now
        rate = (now - self.first[1]) / (record.step - self.first[0] + 1)
        left = _duration(rate * (total - record.step))
        click.echo(f"step {record.step:,} of {total:,}: {numbers(record)}, {left} left", err=True)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def said(self, line: str) -> None:
        from rich.markup import escape

        self.progress.console.print(escape(line), highlight=False)

    def stepped(self, record: StepRecord, total: int) -> None:
        if self.task is None:
            self.task = self.progress.add_task("step", total=total, completed=record.step - 1, numbers="")
            self.progress.reset(self.task, completed=record.step - 1)
        self.progress.update(self.task, completed=record.step, numbers=numbers(record))
        if record.heldout_loss is not None:
            self.said(f"behind step {record.step:,}: held-out loss {record.heldout_loss:.4f}, loss {record.loss:.4f}")


@contextlib.contextmanager
def drawn(leads: bool) -> Iterator[Listener]:
    """A listener for a run; all drawing goes to standard error, and only the leading process draws."""
    if not leads:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    with rich_progress.Progress(
        rich_progress.TextColumn("step"),
        rich_progress.MofNCompleteColumn(),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
        speed_estimate_period=600,
    ) as progress:
        yield _Bar(progress)


def numbers(record: StepRecord) -> str:
    """What one step did, in a line."""
    parts = {
        "loss": f"{record.loss:.4f}", "held out": record.heldout_loss and f"{record.heldout_loss:.4f}",
        "lr": f"{record.lr:.2e}", "gradient": f"{record.grad_norm:.2f}",
        "MFU": record.mfu and f"{record.mfu:.1%}",
        "dollars": record.dollars and f"{record.dollars:.2f}",
    }  # fmt: skip
    said = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    return f"{said}, {record.tokens_per_s:,.0f} tokens/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
