"""Progress of a set that is built."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click
from rich import progress as rich_progress
from rich.markup import escape
from rich.progress import TaskID

from chaku.cli.progress.drawing import Pace, new_bars
from chaku.data.ledger import StageCounts
from chaku.data.watcher import Watcher

_COUNTED = {
    "prepare": ("import", "conversations"),
    "tokenise": ("dedup", "conversations"),
    "pack": ("pack", "documents"),
}
"""Phase of a build: the stage whose conversations or documents are counted for its rate."""


@contextlib.contextmanager
def building() -> Iterator[Watcher]:
    """A watcher for the build of a set."""
    if not sys.stderr.isatty():
        yield _BuildLines()
        return
    with new_bars(
        rich_progress.TextColumn("{task.description:<9}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("shards  {task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
    ) as progress:
        bars = _BuildBars(progress)
        yield bars
        bars.end_phase()


class _Rate:
    """What passed since a phase of a build began, in conversations or documents per second."""

    def __init__(self, phase: str) -> None:
        self.stage, self.unit = _COUNTED.get(phase, ("", ""))
        self.pace = Pace()
        self.number = 0

    def add(self, counts: dict[str, StageCounts]) -> str:
        self.number += counts[self.stage].entered if self.stage in counts else 0
        return f"{self.pace.per_s(self.number):,.0f} {self.unit}/s"


class _BuildLines:
    def __init__(self) -> None:
        self.total: int | None = None
        self.rate = _Rate("")

    def note(self, line: str) -> None:
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

    def note(self, line: str) -> None:
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
