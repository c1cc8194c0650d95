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
        self._known[visitor.id] = visitor
        self._known.move_to_end(visitor.id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return visitor

    def drop(self, visitor_id: str) -> None:
        """Forget one who is blocked or deleted."""
        self._known.pop(visitor_id, None)

    def recheck(self, visitor_ids: Set[str]) -> None:
        """Forget those of these visitors who were blocked or deleted meanwhile. Raises StoreError."""
        if known := {visitor_id for visitor_id in visitor_ids if visitor_id in self._known}:
            with self._store.read() as connection:
                stays = sa.select(visitors.c.id).where(visitors.c.id.in_(known), visitors.c.revoked_at.is_(None))
                gone = known - set(connection.execute(stays).scalars())
            for visitor_id in gone:
                self.drop(visitor_id)

    def with_id(self, visitor_id: str) -> Key | None:
        """A visitor who was added lately, from memory."""
        return self._known.get(visitor_id)
