"""API keys in memory, for the gateway's hot path: one sha256 and one look-up a request, no database.

A thread re-reads the keys when they have changed, so a revocation in any process is felt within `interval_s`.
"""

from __future__ import annotations

import hmac
import logging
import threading
from dataclasses import dataclass

import sqlalchemy as sa

from chaku import tasks
from chaku.errors import StoreError
from chaku.store.database import Store
from chaku.store.keys import CALLER_SCOPES, SELECT, Key, digest, key_of
from chaku.store.tables import visitors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: str
    key: Key


class KeyRing:
    """The active keys by digest. Use as a context manager, or call `start` and `close`.

    While the database is away, the last known keys work and no revocation arrives; `is_stale` is True then.
    """

    def __init__(self, store: Store, *, interval_s: float = 0.5) -> None:
        """Read the keys once. Raises StoreError."""
        self._store = store
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._thread: threading.Thread | None = None
        self._by_digest: dict[str, _Entry] = {}
        self._num_of_callers = 0
        self._by_id: dict[str, Key] = {}
        self._version: tuple[int, ...] | None = None
        self.is_stale = False
        self.refresh()

    def find(self, token: str | bytes) -> Key | None:
        """The active key of this token, from memory (microseconds). None: unknown or revoked. It may have expired.

        A key made less than `interval_s` ago by another process may be missing: call `refresh` in a thread and look
        again before refusing.
        """
        wanted = digest(token)
        found = self._by_digest.get(wanted)
        # The look-up's timing can only tell about a digest, which nobody can steer; the decision takes constant time.
        if found is None or not hmac.compare_digest(found.digest, wanted):
            return None
        return found.key

    def with_id(self, key_id: str) -> Key | None:
        """The active key of this id. It may have expired."""
        return self._by_id.get(key_id)

    def active(self) -> list[Key]:
        """The active keys. Some may have expired."""
        return list(self._by_id.values())

    @property
    def num_active(self) -> int:
        """Active keys of any scope."""
        return len(self._by_digest)

    @property
    def num_of_callers(self) -> int:
        """Active keys of callers and visitors: a join token or a scraper's key is none.

        An expired key counts, so that no gateway opens its doors by the passing of time.
        """
        return self._num_of_callers

    def refresh(self) -> None:
        """Re-read the keys if they have changed; blocks for one small query. Raises StoreError."""
        with self._reading, self._store.read() as connection:
            # Keys are never deleted and never un-revoked, so these numbers only grow: they are the version.
            counts = (
                sa.select(
                    sa.func.count(),
                    sa.func.count(visitors.c.revoked_at),
                    sa.func.coalesce(sa.func.sum(visitors.c.revision), 0),
                )
                .select_from(visitors)
                .where(visitors.c.kind == "key")
            )
            version = tuple(int(count) for count in connection.execute(counts).one())
            if version != self._version:
                rows = connection.execute(SELECT.add_columns(visitors.c.digest).where(visitors.c.revoked_at.is_(None)))
                self._by_digest = {row.digest: _Entry(row.digest, key_of(row[:-1])) for row in rows}
                self._by_id = {entry.key.id: entry.key for entry in self._by_digest.values()}
                self._num_of_callers = sum(bool(one.key.scopes & CALLER_SCOPES) for one in self._by_digest.values())
                self._version = version

    def start(self) -> KeyRing:
        """Begin to re-read in the background."""
        assert self._thread is None, "the key ring is running"
        self._thread = tasks.repeat_in_thread(self._run, "keyring", self._closing, pause_s=self._interval_s)
        return self

    def close(self) -> None:
        """End the thread; `find` still answers from the last known keys."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> KeyRing:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            try:
                self.refresh()
            except Exception as error:
                if not isinstance(error, StoreError):
                    self.is_stale = True
                    raise
                if not self.is_stale:
                    log.error("keys can't be read, going on with the %d known: %s", self.num_active, error)
                self.is_stale = True
            else:
                if self.is_stale:
                    log.info("keys are read again, %d active", self.num_active)
                self.is_stale = False
