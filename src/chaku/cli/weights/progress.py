"""Draws how a pass over weights goes on: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import click

from chaku.cli.fetching import byte_bars
from chaku.models.plan.memory_plan import gigabytes

if TYPE_CHECKING:
    from chaku.weights.shards import Watch

_LINE_EVERY_S = 5.0
_TERMINATED = 128 + signal.SIGTERM


@contextlib.contextmanager
def drawn(what: str) -> Iterator[Watch]:
    """A callback for bytes done and in all of one pass; see `phases`."""
    with phases(what) as (watch,):
        yield watch


@contextlib.contextmanager
def phases(*names: str) -> Iterator[list[Watch]]:
    """A callback for bytes done and in all for each named pass; all drawing goes to standard error.

    While it is open a SIGTERM ends the command the way Ctrl-C does, so that half an output is cleaned away.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if sys.stderr.isatty():
            with _bars(names) as watches:
                yield watches
        else:
            yield [_Lines(name) for name in names]
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> NoReturn:
    sys.exit(_TERMINATED)


@contextlib.contextmanager
def _bars(names: tuple[str, ...]) -> Iterator[list[Watch]]:
    with byte_bars() as bars:

        def bar(name: str) -> Watch:
            task = bars.add_task(name, total=None, start=False, visible=False)

            def draw(done_bytes: int, total_bytes: int) -> None:
                bars.start_task(task)
                bars.update(task, completed=done_bytes, total=total_bytes, visible=True)

            return draw

        yield [bar(name) for name in names]


class _Lines:
    """One line every few seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = self.printed = 0.0

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        self.started = self.started or now
        self.printed = self.printed or now
        if now - self.printed < _LINE_EVERY_S:
            return
        self.printed = now
        rate = max(done_bytes / (now - self.started), 1.0)
        text = f"{self.what}: {gigabytes(done_bytes)} of {gigabytes(total_bytes)}, {gigabytes(round(rate))}/s"
        click.echo(f"{text}, {(total_bytes - done_bytes) / rate:.0f} s left", err=True)
