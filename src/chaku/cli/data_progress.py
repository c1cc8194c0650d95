"""Draws how a build of training data goes on: bars with rates on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from chaku.data.ledger import StageCounts
    from chaku.data.watcher import Watcher

_LINE_EVERY_S = 5.0
_COUNTED = {
    "prepare": ("import", "conversations"),
    "tokenise": ("dedup", "conversations"),
    "pack": ("pack", "documents"),
}


class _Rate:
    """What passed since a phase began, in conversations or documents a second."""

    def __init__(self, phase: str) -> None:
        self.stage, self.unit = _COUNTED.get(phase, ("", ""))
        self.started = time.monotonic()
        self.number = 0

    def add(self, counts: dict[str, StageCounts]) -> str:
        self.number += counts[self.stage].entered if self.stage in counts else 0
        return f"{self.number / max(time.monotonic() - self.started, 1e-3):,.0f} {self.unit}/s"


class _Lines:
    def __init__(self) -> None:
        self.total: int | None = None
        self.rate = _Rate("")
        self.spoke = 0.0

    def said(self, line: str) -> None:
        click.echo(line, err=True)

    def began(self, phase: str, total: int | None) -> None:
        self.total, self.rate, self.spoke = total, _Rate(phase), time.monotonic()
        click.echo(f"{phase} ...", err=True)

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        rate = self.rate.add(counts)
        if time.monotonic() - self.spoke >= _LINE_EVERY_S or done == self.total:
            self.spoke = time.monotonic()
            of = f" of {self.total:,}" if self.total else ""
            click.echo(f"{phase}: {done:,}{of} shards, {rate}", err=True)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.total: int | None = None
        self.done = 0
        self.rate = _Rate("")

    def said(self, line: str) -> None:
        from rich.markup import escape

        self.progress.console.print(escape(line), highlight=False)

    def began(self, phase: str, total: int | None) -> None:
        self.ended()
        self.rate, self.total, self.done = _Rate(phase), total, 0
        self.task = self.progress.add_task(phase, total=total, rate="")

    def ended(self) -> None:
        """The phase before is done: one whose shards are not told apart says so only now."""
        if self.task is not None:
            total = self.total or max(self.done, 1)
            self.progress.update(self.task, total=total, completed=total)

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        assert self.task is not None
        self.done = done
        self.progress.update(self.task, completed=done, rate=self.rate.add(counts))


@contextlib.contextmanager
def drawn() -> Iterator[Watcher]:
    """A watcher for a build; all drawing goes to standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description:<9}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("shards  {task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        bars = _Bars(progress)
        yield bars
        bars.ended()
