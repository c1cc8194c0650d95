"""Visitors without a key, guests and users, whom a gateway has seen lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from datetime import datetime, timedelta

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.keys import Key
from chaku.store.tables import visitors

MAX_KNOWN = 10_000
_TOUCH_EVERY = timedelta(hours=1)


class Seen:
    """The last MAX_KNOWN visitors by id, in memory; the database hears once an hour that one was there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, Key] = OrderedDict()

    def touch(self, visitor: Key, *, now: datetime) -> None:
        """Note in the database that a visitor is there."""
        if visitor.last_used_at is None or visitor.last_used_at < now - _TOUCH_EVERY:
            with self._store.write() as connection:
                connection.execute(visitors.update().where(visitors.c.id == visitor.id).values(last_used_at=now))

    def add(self, visitor: Key) -> Key:
        """Remember a visitor, and return it."""
        self._known.pop(visitor.id, None)
        self._known[visitor.id] = visitor
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return visitor

    def drop(self, visitor_id: str) -> None:
        """Forget one who is blocked or deleted."""
        self._known.pop(visitor_id, None)

    def welcome(self, visitor_ids: Set[str]) -> set[str]:
        """Those of these visitors without a key who are neither blocked nor deleted; forgets the others.

        Asks the database: who is not remembered may be welcome all the same. Raises StoreError.
        """
        if not visitor_ids:
            return set()
        query = sa.select(visitors.c.id).where(
            visitors.c.id.in_(visitor_ids), visitors.c.kind.in_(("guest", "user")), visitors.c.revoked_at.is_(None)
        )
        with self._store.read() as connection:
            found = set(connection.execute(query).scalars())
        for visitor_id in visitor_ids - found:
            self.drop(visitor_id)
        return found

    def with_id(self, visitor_id: str) -> Key | None:
        """A visitor who was added lately, from memory."""
        return self._known.get(visitor_id)
