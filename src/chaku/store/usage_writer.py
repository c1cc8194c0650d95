"""Takes usage rows from the request path in microseconds and writes them in batches from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque

from sqlalchemy.exc import StatementError

from chaku import tasks
from chaku.errors import StoreError
from chaku.store.database import Store
from chaku.store.usage import UsageRow, record

log = logging.getLogger(__name__)


class UsageWriter:
    """A bounded queue in front of `usage.record`. Use as a context manager, or call `start` and `close`.

    Rows reach the database after `interval_s`, or sooner once `batch` of them wait; `close` writes the rest. A kill
    loses what was still waiting. While the database is away up to `capacity` rows wait; what can't be kept or is
    refused is counted in `num_lost`, and logged once per trouble.
    """

    def __init__(self, store: Store, *, capacity: int = 50_000, batch: int = 500, interval_s: float = 0.5) -> None:
        self._store = store
        self._capacity = capacity
        self._batch = batch
        self._interval_s = interval_s
        self._rows: deque[UsageRow] = deque()  # append and popleft are atomic: the caller takes no lock
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False
        self._told: set[str] = set()
        self.num_written = 0
        self.num_lost = 0

    @property
    def num_waiting(self) -> int:
        """Rows not yet in the database."""
        return len(self._rows)

    def put(self, row: UsageRow) -> None:
        """Queue a row from any thread; never blocks, never raises. Not after `close`."""
        if self._closing.is_set():
            self._lose(1, "the usage writer is closed")
        elif len(self._rows) >= self._capacity:
            self._lose(1, f"{self._capacity} rows wait already")
        else:
            self._rows.append(row)
            if len(self._rows) >= self._batch and not self._wake.is_set():
                self._wake.set()

    def start(self) -> UsageWriter:
        """Begin to write in the background."""
        assert self._thread is None, "the usage writer is running"
        self._thread = tasks.repeat_in_thread(self._run, "usage-writer", self._closing, pause_s=self._interval_s)
        return self

    def close(self) -> None:
        """Write what waits and end the thread; what the database does not take now counts as lost. Twice is fine."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._write_all()
        if self._rows:
            self._lose(len(self._rows), "the database was away at shutdown")
            self._rows.clear()

    def __enter__(self) -> UsageWriter:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if not self._write_all():
                self._closing.wait(self._interval_s)  # a full queue must not make an outage a busy loop

    def _write_all(self) -> bool:
        """Write the queue, batch by batch; False when the database is away and rows stay queued."""
        try:
            while self._rows:
                self._write(self._oldest())
        except StoreError as error:
            if not self._is_away:
                log.error("usage can't be written, %d rows wait: %s", len(self._rows), error)
            self._is_away = True
            return False
        if self._is_away:
            log.info("usage is written again, %d rows lost so far", self.num_lost)
        self._is_away = False
        return True

    def _oldest(self) -> list[UsageRow]:
        # By index: iterating a deque while `put` appends to it raises.
        return [self._rows[index] for index in range(min(self._batch, len(self._rows)))]

    def _write(self, rows: list[UsageRow]) -> None:
        """Write the oldest rows and take them off the queue; a refused row does not take the others along."""
        try:
            record(self._store, rows)
        except StoreError:
            raise
        except Exception as error:  # one bad row must not take the others along, whatever it raises
            if len(rows) > 1:
                for row in rows:
                    self._write([row])
                return
            if isinstance(error, StatementError):
                self._lose(1, f"the database refuses them ({str(error.orig or error).splitlines()[0]})")
            else:
                self._lose(1, f"unexpected {type(error).__name__}: {error}")
        else:
            self.num_written += len(rows)
        for _ in rows:
            self._rows.popleft()

    def _lose(self, num_rows: int, reason: str) -> None:
        self.num_lost += num_rows
        if reason not in self._told:
            self._told.add(reason)
            log.error("usage rows are being lost: %s", reason)
