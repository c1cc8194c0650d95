"""Progress of a model that is fetched."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click
from rich.progress import TaskID

from chaku.cli.progress.drawing import Pace, bytes_line, hide_unsized, new_byte_bars
from chaku.models.fetch.progress import DESCRIPTIONS, Phase, Progress


@contextlib.contextmanager
def fetching(name: str) -> Iterator[Progress]:
    """A callback for the phases of fetching the model `name`."""
    if not sys.stderr.isatty():
        yield _PhaseLines(name)
        return
    with new_byte_bars() as bars:
        tasks: dict[Phase, TaskID] = {}

        def draw(phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
            if phase not in tasks:
                hide_unsized(bars)
                tasks[phase] = bars.add_task(f"{name}: {DESCRIPTIONS[phase]}", total=total_bytes)
            bars.update(tasks[phase], completed=done_bytes, total=total_bytes)

        try:
            yield draw
        finally:
            hide_unsized(bars)


class _PhaseLines:
    """One line when a phase begins, and one every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase: Phase | None = None
        self.pace = Pace()

    def __call__(self, phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
        if phase != self.phase:
            self.phase, self.pace = phase, Pace(done_bytes)
        elif not self.pace.is_due():
            return
        click.echo(f"{self.name}: {DESCRIPTIONS[phase]}{bytes_line(self.pace, done_bytes, total_bytes)}", err=True)
