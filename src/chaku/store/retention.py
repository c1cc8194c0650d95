"""Deletes what has been kept for as long as the operator wants, kind by kind."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from chaku.policies import Retention
from chaku.store import guests
from chaku.store.database import Store
from chaku.store.files import ENDED
from chaku.store.tables import audit, batches, battles, comparisons, conversations, files, usage, votes

UNKEPT = Retention(chats=1, battles=1)
"""Of a store in memory."""


def forget(
    store: Store, said: Store, kept: Retention, now: datetime, *, guest_days: int | None = None
) -> dict[str, int]:
    """Delete what is older than `kept` allows; how many rows of each kind.

    `said` holds chats and battles: `store` itself, or a store in memory, where both stay for a day. A guest who has not
    come for `guest_days` goes with all that is the guest's.
    """
    gone = {}
    if guest_days is not None:
        gone["guests"] = guests.forget(store, now - timedelta(days=guest_days))
    with said.write() as connection:
        gone |= _forget_said(connection, kept if said is store else UNKEPT, now)
    with store.write() as connection:
        if kept.usage is not None:
            gone["usage"] = _delete(connection, usage, usage.c.time < now - timedelta(days=kept.usage))
        if kept.audit is not None:
            gone["audit"] = _delete(connection, audit, audit.c.time < now - timedelta(days=kept.audit))
        if kept.files is not None:
            gone["files"] = _forget_files(connection, now - timedelta(days=kept.files))
    return gone


def _forget_said(connection: sa.Connection, kept: Retention, now: datetime) -> dict[str, int]:
    gone = {}
    if kept.chats is not None:
        old = conversations.c.updated_at < now - timedelta(days=kept.chats)
        gone["chats"] = _delete(connection, conversations, old & conversations.c.battle_id.is_(None))
    if kept.battles is not None:
        before = now - timedelta(days=kept.battles)
        old_battles = sa.select(battles.c.id).where(battles.c.updated_at < before)
        old_votes = sa.select(votes.c.id).where(votes.c.battle_id.in_(old_battles))
        # A vote of the Compare screen is a comparison without a battle; its moment is ISO 8601 in UTC.
        side_by_side = comparisons.c.vote_id.is_(None) & (comparisons.c.source == "human")
        old_choice = side_by_side & comparisons.c.is_example.is_(False) & (comparisons.c.created < before.isoformat())
        _delete(connection, comparisons, comparisons.c.vote_id.in_(old_votes) | old_choice)
        _delete(connection, conversations, conversations.c.battle_id.in_(old_battles))
        gone["battles"] = _delete(connection, battles, battles.c.updated_at < before)
    return gone


def _forget_files(connection: sa.Connection, before: datetime) -> int:
    """What a running batch reads or writes stays."""
    running = batches.c.state.not_in(ENDED)
    used = sa.union(*(sa.select(column).where(running) for column in (
        batches.c.input_file_id, batches.c.output_file_id, batches.c.error_file_id,
    )))  # fmt: skip
    _delete(connection, batches, ~running & (batches.c.created_at < before))
    return _delete(connection, files, (files.c.created_at < before) & files.c.id.not_in(used))


def _delete(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
    return connection.execute(table.delete().where(which)).rowcount
