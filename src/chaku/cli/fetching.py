"""Draws the progress of a fetch: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from chaku.models.fetch.progress import Phase, Progress
from chaku.models.plan.memory_plan import gigabytes

if TYPE_CHECKING:
    from rich import progress as rich_progress
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0
_WORDS: dict[Phase, str] = {
    "wait": "waiting for another process that pulls it",
    "download": "downloading",
    "unpack": "unpacking",
    "verify": "checking the sha256",
    "convert": "converting",
}


@contextlib.contextmanager
def drawn(name: str) -> Iterator[Progress]:
    """A progress callback for fetching the model `name`; all drawing goes to standard error."""
    if sys.stderr.isatty():
        with _bar(name) as progress:
            yield progress
    else:
        yield _Lines(name)


def byte_bars() -> rich_progress.Progress:
    """Bars for bytes with rate and time left, on standard error."""
    from rich import progress as rich_progress
    from rich.console import Console

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Progress]:
    with byte_bars() as bars:
        tasks: dict[Phase, TaskID] = {}

        def draw(phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(f"{name}: {_WORDS[phase]}", total=total_bytes)
            bars.update(tasks[phase], completed=done_bytes, total=total_bytes)

        yield draw


class _Lines:
    """One line when a phase begins, and one every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase: Phase | None = None
        self.started = self.printed = 0.0
        self.first_bytes = 0

    def __call__(self, phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self.started, self.first_bytes = phase, now, done_bytes
        elif now - self.printed < _LINE_EVERY_S:
            return
        self.printed = now
        click.echo(f"{self.name}: {_WORDS[phase]}{self._numbers(done_bytes, total_bytes, now)}", err=True)

    def _numbers(self, done_bytes: int, total_bytes: int | None, now: float) -> str:
        if not total_bytes:
            return f" {gigabytes(done_bytes)}" if done_bytes else ""
        rate = (done_bytes - self.first_bytes) / max(now - self.started, 1e-3)
        text = f" {gigabytes(done_bytes)} of {gigabytes(total_bytes)}"
        if rate and done_bytes < total_bytes:
            text += f", {gigabytes(round(rate))}/s, {(total_bytes - done_bytes) / rate:.0f} s left"
        return text
