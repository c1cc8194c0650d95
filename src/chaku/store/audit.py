"""The audit log: who changed what, and when. It holds names and settings; never a token, a prompt or an answer.

An entry is written in the transaction of its change: neither is there without the other.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tables import audit, visitors

ACTIONS = {
    "keys.create": "a key was created",
    "keys.edit": "scopes, expiry or limits of a key were changed",
    "keys.revoke": "a key was revoked",
    "visitors.limit": "limits of a visitor were changed",
    "visitors.block": "a visitor was blocked",
    "visitors.unblock": "a visitor was let in again",
    "visitors.delete": "a visitor was deleted with all that was theirs",
    "arena.exclude": "a voter, battle or contestant was left out of the ratings",
    "arena.lift": "such an exclusion was lifted",
    "workers.drain": "a worker was drained",
    "workers.reload": "a worker's engine was restarted",
    "gateway.settings": "a gateway started with other rules for its callers than the last one",
}
"""What is written down."""
Action = str


@dataclass(frozen=True)
class Actor:
    """Who makes a change: a key by its id, the local user of the page or API, or a user of the shell."""

    via: Literal["page", "api", "shell"]
    id: str | None = None
    """The key's id."""
    name: str | None = None
    """Default: the key's name; "local" without a key."""


def shell_user() -> Actor:
    """Whoever runs this process, by the system's word."""
    try:
        return Actor("shell", name=getpass.getuser())
    except (OSError, KeyError):  # a container's user may have no name
        return Actor("shell", name="unknown")


@dataclass(frozen=True)
class AuditEntry:
    """One change."""

    id: str
    time: datetime
    via: str
    actor_id: str | None
    actor: str
    action: Action
    subject: str
    """The name of what was changed."""
    details: dict[str, Any] = field(default_factory=dict)
    """What it was changed to."""


def note(
    connection: sa.Connection,
    action: Action,
    subject: str,
    details: Mapping[str, Any] | None = None,
    *,
    by: Actor | None = None,
    now: datetime | None = None,
) -> None:
    """Write an entry in the transaction of its change. `by` is None for the user of the shell."""
    assert action in ACTIONS, action
    by, now = by or shell_user(), now or datetime.now(UTC)
    name = by.name
    if name is None and by.id is not None:
        name = connection.execute(sa.select(visitors.c.name).where(visitors.c.id == by.id)).scalar()
    entry = AuditEntry(new_id(now), now, by.via, by.id, name or "local", action, subject, dict(details or {}))
    connection.execute(audit.insert().values(**vars(entry)))


def record(
    store: Store, action: Action, subject: str, details: Mapping[str, Any] | None = None, *, by: Actor | None = None
) -> None:
    """Write an entry of a change that is not in the database."""
    with store.write() as connection:
        note(connection, action, subject, details, by=by)


def record_settings(store: Store, settings: Mapping[str, Any]) -> None:
    """Write down the rules that a gateway starts with, unless the last entry has the same."""
    newest = _SELECT.where(audit.c.action == "gateway.settings").order_by(audit.c.id.desc()).limit(1)
    with store.write() as connection:
        last = connection.execute(newest).one_or_none()
        if last is None or last.details != dict(settings):
            note(connection, "gateway.settings", "gateway", settings)


def entries(store: Store, *, since: datetime | None = None, limit: int | None = None) -> list[AuditEntry]:
    """The changes from `since` on, the newest first."""
    query = _SELECT.order_by(audit.c.time.desc(), audit.c.id.desc())
    if since is not None:
        query = query.where(audit.c.time >= since)
    if limit is not None:
        query = query.limit(limit)
    with store.read() as connection:
        return [AuditEntry(*row) for row in connection.execute(query)]


_SELECT = sa.select(*(audit.c[field.name] for field in fields(AuditEntry)))
