"""Counts what callers use of their limits, for all gateways of a database alike.

A limit per minute is a bucket that drains at its own rate. One per day or month counts from midnight (UTC), or from
the first of the month. An amount is reserved before the work, and corrected after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from chaku.store.database import Store
from chaku.store.tables import rate_counters

MINUTE_S = 60.0


@dataclass(frozen=True)
class Charge:
    """An amount that is to count towards a limit."""

    amount: float
    limit: float


@dataclass(frozen=True)
class Level:
    """How much of a limit is used."""

    used: float
    limit: float
    resets_in_s: float
    """Seconds until nothing of it is used, if nothing is added."""

    @property
    def left(self) -> float:
        """What may still be used; 0 while there is a debt."""
        return max(0.0, self.limit - self.used)


@dataclass(frozen=True)
class Standing:
    """The levels of a caller's limits after a request for a reservation."""

    levels: Mapping[str, Level]
    reserved_at: datetime
    """By the database's clock."""
    refused_by: str | None = None
    """The limit that does not allow it: nothing was reserved."""
    retry_after_s: float = 0.0
    """When that limit will allow it."""


class Counters:
    """The counters of a database. Every method is one transaction, and may raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reserve(self, subject: str, charges: Mapping[str, Charge]) -> Standing:
        """Count all charges of a caller, or none of them where one would exceed its limit."""
        with self._store.write() as connection:
            rows = self._locked(connection, subject, sorted(charges))
            now = self._store.now(connection)
            used = {kind: used_at(kind, *rows[kind], charges[kind].limit, now) for kind in charges}
            waits = {
                kind: _wait_s(kind, used[kind], charge, now)
                for kind, charge in charges.items()
                if used[kind] + charge.amount > charge.limit
            }
            if waits:
                levels = {kind: _level(kind, used[kind], charge.limit, now) for kind, charge in charges.items()}
                worst = max(waits, key=lambda kind: waits[kind])
                for kind, (_, counted_at) in rows.items():
                    if counted_at > now:  # the clock was set back: nothing would expire until it is there again
                        _write(connection, subject, kind, used[kind], now)
                return Standing(levels, now, worst, waits[worst])
            after = {kind: used[kind] + charge.amount for kind, charge in charges.items()}
            for kind, amount in after.items():
                _write(connection, subject, kind, amount, now)
        return Standing({kind: _level(kind, after[kind], charges[kind].limit, now) for kind in charges}, now)

    def settle(self, subject: str, corrections: Mapping[str, Charge], reserved_at: datetime) -> None:
        """Add to what was reserved at `reserved_at`: more, or less where an amount is negative.

        Nothing is given back that has expired since: used is never less than if the right amount had been reserved.
        """
        with self._store.write() as connection:
            rows = self._locked(connection, subject, sorted(corrections))
            now = self._store.now(connection)
            for kind, correction in corrections.items():
                used = used_at(kind, *rows[kind], correction.limit, now)
                amount = correction.amount
                if amount < 0:
                    amount = min(0.0, amount + expired(kind, correction.limit, reserved_at, now))
                _write(connection, subject, kind, max(0.0, used + amount), now)

    def _locked(self, connection: sa.Connection, subject: str, kinds: list[str]) -> dict[str, tuple[float, datetime]]:
        """Used amount and its time by kind; nobody else changes them until the transaction ends."""
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        now = self._store.now(connection)
        fresh = [{"subject": subject, "kind": kind, "used": 0.0, "counted_at": now} for kind in kinds]
        connection.execute(insert(rate_counters).on_conflict_do_nothing(), fresh)
        query = (
            sa.select(rate_counters.c.kind, rate_counters.c.used, rate_counters.c.counted_at)
            .where(rate_counters.c.subject == subject, rate_counters.c.kind.in_(kinds))
            .order_by(rate_counters.c.kind)  # two gateways lock the rows in the same order
            .with_for_update()
        )
        return {row.kind: (row.used, row.counted_at) for row in connection.execute(query)}


def used_at(kind: str, used: float, counted_at: datetime, limit: float, now: datetime) -> float:
    """What is used now, of which `used` was counted at `counted_at`."""
    return max(0.0, used - expired(kind, limit, counted_at, now))


def expired(kind: str, limit: float, since: datetime, now: datetime) -> float:
    """The amount that a counter has lost since then by the passing of time; infinite in another day or month."""
    if kind.endswith("_per_minute"):
        return limit * max(0.0, (now - since).total_seconds()) / MINUTE_S
    return 0.0 if since >= _window(kind, now)[0] else float("inf")


def _window(kind: str, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of the day or month."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind.endswith("_per_day"):
        return day, day + timedelta(days=1)
    assert kind.endswith("_per_month"), kind
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _level(kind: str, used: float, limit: float, now: datetime) -> Level:
    if kind.endswith("_per_minute"):
        return Level(used, limit, used / limit * MINUTE_S)
    return Level(used, limit, (_window(kind, now)[1] - now).total_seconds() if used else 0.0)


def _wait_s(kind: str, used: float, charge: Charge, now: datetime) -> float:
    if kind.endswith("_per_minute"):
        return (used + charge.amount - charge.limit) / charge.limit * MINUTE_S
    return (_window(kind, now)[1] - now).total_seconds()


def _write(connection: sa.Connection, subject: str, kind: str, used: float, now: datetime) -> None:
    mine = (rate_counters.c.subject == subject) & (rate_counters.c.kind == kind)
    connection.execute(rate_counters.update().where(mine).values(used=used, counted_at=now))
