"""Sessions of the page: who logged in with a key, told again by a random token of which only the sha256 is kept."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.keys import digest
from chaku.store.tables import sessions, visitors

MAX_IDLE = timedelta(days=30)
"""A session that is not used for so long has ended."""

_TOUCH_EVERY = timedelta(hours=1)  # so that reading who it is rarely has to write


@dataclass(frozen=True)
class Session:
    """A session that holds: its key is active."""

    key_id: str
    key_name: str
    is_admin: bool


class Sessions:
    """The sessions of a database. A session ends by `close`, by MAX_IDLE, or with its key."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, key_id: str, *, now: datetime) -> str:
        """Begin a session of a key and return its token; sessions that have ended by idling are removed."""
        token = secrets.token_urlsafe(32)
        with self._store.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.last_seen_at < now - MAX_IDLE))
            connection.execute(
                sessions.insert().values(digest=digest(token), key_id=key_id, created_at=now, last_seen_at=now)
            )
        return token

    def find(self, token: str, *, now: datetime) -> Session | None:
        """The session of this token, None where there is none any more."""
        mine = sessions.c.digest == digest(token)
        query = (
            sa.select(sessions.c.key_id, visitors.c.name, visitors.c.scopes, sessions.c.last_seen_at)
            .join(visitors, visitors.c.id == sessions.c.key_id)
            .where(mine, visitors.c.revoked_at.is_(None), sessions.c.last_seen_at >= now - MAX_IDLE)
            .where(visitors.c.expires_at.is_(None) | (visitors.c.expires_at > now))
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not row.scopes & {"page", "admin"}:
            return None
        if row.last_seen_at < now - _TOUCH_EVERY:
            with self._store.write() as connection:
                connection.execute(sessions.update().where(mine).values(last_seen_at=now))
        return Session(row.key_id, row.name, is_admin="admin" in row.scopes)

    def close(self, token: str) -> None:
        """End a session; one that is not there is no error."""
        with self._store.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.digest == digest(token)))
