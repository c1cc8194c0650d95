"""Guests: visitors of the page without a key, known by a cookie of which only the sha256 is kept."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.policies import Limits
from chaku.store import comparisons
from chaku.store.audit import note
from chaku.store.comparisons import Forgotten
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.keys import COLUMNS, Key, NewKey, digest, key_of, stored
from chaku.store.seen import Seen
from chaku.store.tables import conversations, rate_counters, usage, visitors

_GUESTS = COLUMNS.where(visitors.c.kind == "guest")
_WITHOUT_KEY = COLUMNS.where(visitors.c.kind.in_(("guest", "user")))


class Guests:
    """The guests of a database, as a gateway lets them in. Their limits are its own, unless an operator set others."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._seen = Seen(store)

    def create(self, *, now: datetime) -> NewKey:
        """A new guest; the token goes into the cookie."""
        token = secrets.token_urlsafe(32)
        name = f"guest-{secrets.token_hex(4)}"
        guest = Key(new_id(now), name, "", now, now, scopes=frozenset({"page"}), kind="guest")
        with self._store.write() as connection:
            connection.execute(
                visitors.insert().values(
                    **vars(guest) | {"limits": {}, "digest": digest(token), "revision": 0},
                )
            )
        return NewKey(self._know(guest), token)

    def find(self, token: str, *, now: datetime) -> Key | None:
        """The guest of this cookie, who is not blocked."""
        with self._store.read() as connection:
            row = connection.execute(_GUESTS.where(visitors.c.digest == digest(token))).one_or_none()
        if row is None:
            return None
        guest = key_of(row)
        if guest.revoked_at is not None:
            self._seen.drop(guest.id)
            return None
        self._seen.touch(guest, now=now)
        return self._know(guest)

    def with_id(self, guest_id: str) -> Key | None:
        """A guest whom `find` has seen lately, from memory."""
        return self._seen.with_id(guest_id)

    def welcome(self, visitor_ids: Set[str]) -> set[str]:
        """Those of these visitors who have no key, and are neither blocked nor deleted. Raises StoreError."""
        return self._seen.welcome(visitor_ids)

    def _know(self, guest: Key) -> Key:
        given = guest.limits.model_dump(exclude_defaults=True)
        return self._seen.add(replace(guest, limits=self._limits.model_copy(update=given)))


def list_guests(store: Store) -> list[Key]:
    """Every guest and every user of a proxy, blocked ones too, the last seen first."""
    with store.read() as connection:
        rows = connection.execute(_WITHOUT_KEY.order_by(visitors.c.last_used_at.desc(), visitors.c.id))
        return [key_of(row) for row in rows]


def set_limits(store: Store, which: str, limits: Mapping[str, Any]) -> Key:
    """Set limits of one guest; None and () mean those of the gateway. Raises NotFound."""
    guest = _pick(store, which)
    guest = replace(guest, limits=guest.limits.model_copy(update=dict(limits)))
    with store.write() as connection:
        _update(connection, guest.id, limits=stored(guest.limits))
        note(connection, "visitors.limit", guest.name, {"id": guest.id, "limits": stored(guest.limits)})
    return guest


def block(store: Store, which: str, *, now: datetime | None) -> Key:
    """Keep a guest out from now on, or with None let it in again. Raises NotFound."""
    guest = _pick(store, which)
    with store.write() as connection:
        _update(connection, guest.id, revoked_at=now)
        note(connection, "visitors.block" if now else "visitors.unblock", guest.name, {"id": guest.id}, now=now)
    return replace(guest, revoked_at=now)


def delete(store: Store, which: str) -> tuple[Key, Forgotten]:
    """Delete a guest with its chats, battles and votes. What it used stays, as nobody's. Raises NotFound."""
    guest = _pick(store, which)
    with store.write() as connection:
        forgotten = _remove(connection, guest.id)
        note(connection, "visitors.delete", guest.name, {"id": guest.id})
    return guest, forgotten


def forget(store: Store, before: datetime) -> int:
    """Delete the guests who have not come since `before`, and all that is theirs; how many they were."""
    last = sa.func.coalesce(visitors.c.last_used_at, visitors.c.created_at)
    with store.read() as connection:
        ids = connection.execute(sa.select(visitors.c.id).where(visitors.c.kind == "guest", last < before))
        gone = list(ids.scalars())
    for guest_id in gone:
        with store.write() as connection:
            _remove(connection, guest_id)
    return len(gone)


def _remove(connection: sa.Connection, guest_id: str) -> Forgotten:
    forgotten = comparisons.forget(connection, guest_id)
    connection.execute(conversations.delete().where(conversations.c.owner_id == guest_id))
    connection.execute(usage.update().where(usage.c.key_id == guest_id).values(key_id=None))
    connection.execute(rate_counters.delete().where(rate_counters.c.subject == guest_id))
    connection.execute(visitors.delete().where(visitors.c.id == guest_id))
    return forgotten


def _pick(store: Store, which: str) -> Key:
    with store.read() as connection:
        named = connection.execute(_WITHOUT_KEY.where(visitors.c.name == which)).all()
        rows = connection.execute(_WITHOUT_KEY.where(visitors.c.id == which)).all() or named
    if not rows:
        raise NotFound(f"no guest or user {which[:60]!r}", fix="see them with chaku visitors list")
    if len(rows) > 1:  # a proxy may name a user as a guest is named
        raise InvalidRequest(f"{len(rows)} visitors are named {which[:60]!r}", fix="give the id (--json shows it)")
    return key_of(rows[0])


def _update(connection: sa.Connection, guest_id: str, **values: Any) -> None:
    connection.execute(visitors.update().where(visitors.c.id == guest_id).values(values))
