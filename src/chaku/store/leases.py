"""Which gateways are alive: each renews one row, stamped by the database's clock, so that no machine's clock matters.

A gateway that is killed stops renewing. Another one then marks the answers that it was writing as failed.
"""

from __future__ import annotations

import logging
import secrets
import threading
from datetime import datetime, timedelta

import sqlalchemy as sa

from chaku import tasks
from chaku.errors import StoreError
from chaku.store.database import Store
from chaku.store.message_record import MessageState
from chaku.store.tables import gateways, messages

log = logging.getLogger(__name__)

LEASE_S = 5.0
"""A gateway that has not renewed its lease for so long is gone."""


class Lease:
    """This process's lease. Use as a context manager, or call `start` and `close`.

    A thread of its own renews it: a busy event loop does not end a lease.
    """

    def __init__(self, store: Store, *, lease_s: float = LEASE_S) -> None:
        self._store = store
        self._lease = timedelta(seconds=lease_s)
        self._interval_s = lease_s / 5
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed_at: datetime | None = None
        self._steady_since: datetime | None = None
        self._is_away = False
        self.id = secrets.token_hex(8)

    def start(self) -> Lease:
        """Take the lease, and renew it in the background. Raises StoreError."""
        assert self._thread is None, "the lease is running"
        self.renew()
        self._thread = tasks.repeat_in_thread(self._run, "gateway-lease", self._closing, pause_s=self._interval_s)
        return self

    def close(self) -> None:
        """Give the lease up. Safe to call twice."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with self._store.write() as connection:
                connection.execute(gateways.delete().where(gateways.c.id == self.id))
        except StoreError as error:
            log.error("the lease can't be given up, it ends by itself: %s", error)

    def __enter__(self) -> Lease:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def renew(self) -> int:
        """Renew this lease, then fail the answers of gateways whose lease has ended. Returns how many.

        Nothing is failed unless this gateway could renew in time throughout the last lease: where the database was
        slow, the others could not renew either. What this gateway writes is never failed. Raises StoreError.
        """
        with self._store.write() as connection:
            now = self._store.now(connection)
            mine = gateways.c.id == self.id
            if not connection.execute(gateways.update().where(mine).values(renewed_at=now)).rowcount:
                connection.execute(gateways.insert().values(id=self.id, renewed_at=now))
            last, self._renewed_at = self._renewed_at, now
            if last is None or self._steady_since is None or not timedelta() <= now - last <= self._lease / 2:
                self._steady_since = now
            if now - self._steady_since < self._lease:
                return 0
            # A row of the future is from before the clock was set back: who lives has renewed since.
            expired = ~gateways.c.renewed_at.between(now - self._lease, now + self._lease)
            connection.execute(gateways.delete().where(expired, ~mine))
            return fail_abandoned(connection, now=now)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            try:
                num_failed = self.renew()
            except StoreError as error:
                if not self._is_away:
                    log.error("the lease can't be renewed: %s", error)
                self._is_away = True
                continue
            if self._is_away:
                log.info("the lease is renewed again")
            self._is_away = False
            if num_failed:
                log.warning("answers of gateways that are gone, now failed: %d", num_failed)


def alive(store: Store) -> list[str]:
    """The ids of gateways that hold a lease, sorted."""
    with store.read() as connection:
        return list(connection.execute(sa.select(gateways.c.id).order_by(gateways.c.id)).scalars())


RESTARTED = {
    "message": "the gateway was restarted while this answer was written",
    "type": "server_error",
    "param": None,
    "code": "gateway_restarted",
    "fix": "ask for the answer again",
}
"""The error of an answer whose gateway went away."""


def fail_abandoned(connection: sa.Connection, *, now: datetime) -> int:
    """Mark as failed the answers that still stream and whose gateway holds no lease; their text stays. How many."""
    holder = sa.exists().where(gateways.c.id == messages.c.gateway_id)
    abandoned = messages.update().where(
        # in full, so that the partial index applies
        messages.c.state == sa.literal_column(f"'{MessageState.STREAMING}'"),
        ~holder,
    )
    return connection.execute(abandoned.values(state=MessageState.FAILED, error=RESTARTED, updated_at=now)).rowcount
