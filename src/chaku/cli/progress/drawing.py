"""What all kinds of progress are drawn with: bars on a terminal, the pace of lines elsewhere."""

from __future__ import annotations

import time

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

from chaku.models.plan.memory_plan import gigabytes

_LINE_EVERY_S = 5.0


def new_bars(*columns: rich_progress.ProgressColumn, speed_estimate_period: float = 30.0) -> rich_progress.Progress:
    """Bars on standard error; rates are means over `speed_estimate_period` seconds."""
    return rich_progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=speed_estimate_period)


def new_byte_bars() -> rich_progress.Progress:
    """Bars that count bytes."""
    return new_bars(rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn(), _ByteNumbers())


class _ByteNumbers(rich_progress.ProgressColumn):
    """Bytes done and in all, their rate and the time left; nothing while nobody knows how many there are."""

    def render(self, task: rich_progress.Task) -> Text:
        if not task.total:
            return Text()
        return Text(_of_total(task.completed, task.total, task.speed or 0.0, task.time_remaining or 0.0))


def hide_unsized(bars: rich_progress.Progress) -> None:
    """Take away the bars that never knew how much there was: what is left of them says nothing."""
    for task in bars.tasks:
        if task.total is None:
            bars.update(task.id, visible=False)


class Pace:
    """Whether it is time for another line, and how fast something grew since it began."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.started = self.printed = time.monotonic()

    def is_due(self) -> bool:
        """Whether five seconds have passed since the last line; a yes counts as a line."""
        now = time.monotonic()
        if now - self.printed < _LINE_EVERY_S:
            return False
        self.printed = now
        return True

    def per_s(self, done: int) -> float:
        """Growth per second, where `done` is reached now."""
        return (done - self.first) / max(time.monotonic() - self.started, 1e-3)


def bytes_line(pace: Pace, done_bytes: int, total_bytes: int | None) -> str:
    """Bytes done and in all, their rate and the time left; begins with a space, or is empty."""
    if not total_bytes:
        return f" {gigabytes(done_bytes)}" if done_bytes else ""
    rate = pace.per_s(done_bytes)
    left_s = (total_bytes - done_bytes) / rate if rate else 0.0
    return " " + _of_total(done_bytes, total_bytes, rate, left_s)


def _of_total(done_bytes: float, total_bytes: float, per_s: float, left_s: float) -> str:
    """The rate and the time left only while there is some left."""
    line = f"{gigabytes(round(done_bytes))} of {gigabytes(round(total_bytes))}"
    return f"{line}, {gigabytes(round(per_s))}/s, {left_s:.0f} s left" if per_s and left_s > 0 else line
