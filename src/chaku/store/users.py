"""Users whom a trusted proxy has logged in: visitors of the page, known by the name that the proxy gives them."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.keys import COLUMNS, Key, digest, key_of
from chaku.store.seen import Seen
from chaku.store.tables import visitors

MAX_NAME_LENGTH = 200
"""Characters of a user's name, which may be an e-mail address."""


class Users:
    """The users of a database. A name stands for the same user in every gateway, and never for a key or a guest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = Seen(store)

    def find(self, name: str, *, now: datetime) -> Key | None:
        """The user of this name, who is new if nobody had it; None for one who is blocked."""
        user = self._read(name) or self._create(name, now)
        if user.revoked_at is not None:
            self._seen.drop(user.id)
            return None
        self._seen.touch(user, now=now)
        return self._seen.add(user)

    def with_id(self, user_id: str) -> Key | None:
        """A user whom `find` has seen lately, from memory."""
        return self._seen.with_id(user_id)

    def welcome(self, visitor_ids: Set[str]) -> set[str]:
        """Those of these visitors who have no key, and are neither blocked nor deleted. Raises StoreError."""
        return self._seen.welcome(visitor_ids)

    def _read(self, name: str) -> Key | None:
        query = COLUMNS.where(visitors.c.kind == "user", visitors.c.digest == _digest(name))
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        return key_of(row) if row is not None else None

    def _create(self, name: str, now: datetime) -> Key:
        user = Key(new_id(now), name, "", now, now, scopes=frozenset({"page"}), kind="user")
        values = vars(user) | {"limits": {}, "digest": _digest(name), "revision": 0}
        try:
            with self._store.write() as connection:
                connection.execute(visitors.insert().values(**values))
        except sa.exc.IntegrityError:  # the same user has come to another tab or gateway at this moment
            found = self._read(name)
            assert found is not None
            return found
        return user


def _digest(name: str) -> str:
    return digest(f"user:{name}")
