"""Logging set-up for the programs: one line an event, with the request's id. Libraries only call getLogger."""

from __future__ import annotations

import contextvars
import logging
import sys
from collections import deque

from chaku.wrapping import wrapped

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


_LINE = "%(asctime)s %(levelname)-7s %(request_id)s %(name)s: %(message)s"


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _Short(logging.Formatter):
    """For people at a terminal: what every line would repeat is left out, and long lines are wrapped between words."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [self.formatTime(record, "%H:%M:%S"), f"{record.name.removeprefix('chaku.')}: {record.getMessage()}"]
        if record.request_id != "-":  # type: ignore[attr-defined]
            parts.insert(1, record.request_id)  # type: ignore[attr-defined]
        if record.levelno != logging.INFO:
            parts.insert(1, record.levelname)
        line = wrapped(" ".join(parts))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LastLines(logging.Handler):
    """Keeps the last log lines in memory."""

    def __init__(self, num_lines: int) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=num_lines)
        self.addFilter(_RequestIdFilter())
        self.setFormatter(logging.Formatter(_LINE, "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(self.format(record))

    def lines(self) -> tuple[str, ...]:
        """The last lines, the newest at the end."""
        return tuple(self._lines)


def set_up(level: str = "INFO") -> None:
    """Send log lines of `level` and above to standard error. Call once, from a program's entry."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RequestIdFilter())
    handler.setFormatter(_Short() if sys.stderr.isatty() else logging.Formatter(_LINE, "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.access", "uvicorn.error", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
