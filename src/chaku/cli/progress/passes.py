"""Progress of passes over weights."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click
from rich import progress as rich_progress

from chaku.cli.progress.drawing import Pace, bytes_line, new_byte_bars
from chaku.weights.shards import Watch

_TERMINATED = 128 + signal.SIGTERM


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
            with new_byte_bars() as bars:
                yield [_pass_bar(bars, name) for name in names]
        else:
            yield [_PassLines(name) for name in names]
    finally:
        signal.signal(signal.SIGTERM, before)


def _pass_bar(bars: rich_progress.Progress, name: str) -> Watch:
    task = bars.add_task(name, total=None, start=False, visible=False)

    def draw(done_bytes: int, total_bytes: int) -> None:
        bars.start_task(task)
        bars.update(task, completed=done_bytes, total=total_bytes, visible=True)

    return draw


def _terminate(*_: object) -> NoReturn:
    sys.exit(_TERMINATED)


class _PassLines:
    """One line every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pace: Pace | None = None

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self.pace = self.pace or Pace()
        if self.pace.is_due():
            click.echo(f"{self.name}:{bytes_line(self.pace, done_bytes, total_bytes)}", err=True)
