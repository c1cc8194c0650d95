"""Battles of all visitors, for the leaderboard's cells (texts by consent only) and for an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chaku.store.database import Store
from chaku.store.folding import plain_text
from chaku.store.tables import battles, comparisons, contestants, messages, votes

ENDED = ("voted", "failed")


@dataclass(frozen=True)
class ListedBattle:
    """One battle with its contestants' names, which only those may see who don't vote in it."""

    id: str
    created_at: datetime
    state: str
    flags: list[str]
    model_a: str
    model_b: str
    turn: int
    outcome: str | None
    category: str | None
    language: str | None
    texts: dict[str, list[str]] | None
    """user, a and b: what was said. None: the voter did not agree to publish."""


class BattleList:
    """Battles, whoever began them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of_pair(self, name_a: str, name_b: str, *, limit: int) -> tuple[int, list[ListedBattle]]:
        """How many battles of a pair have a vote that holds, and the newest of them with their texts."""
        first, second, query = _query()
        is_pair = ((first.c.name == name_a) & (second.c.name == name_b)) | (
            (first.c.name == name_b) & (second.c.name == name_a)
        )
        query = query.where(is_pair, votes.c.id.is_not(None))
        with self._store.read() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
            rows = connection.execute(query.order_by(battles.c.id.desc()).limit(limit)).all()
            return total, [_listed(row, _texts(connection, row) if row.publish else None) for row in rows]

    def flagged(self, *, limit: int) -> list[ListedBattle]:
        """The newest battles in which something happened; those that wait for a vote keep their names to themselves."""
        _, _, query = _query()
        some = (sa.cast(battles.c.flags, sa.Text) != "[]") & battles.c.state.in_(ENDED)
        with self._store.read() as connection:
            rows = connection.execute(query.where(some).order_by(battles.c.id.desc()).limit(limit)).all()
        return [_listed(row, None) for row in rows]

    def states(self) -> dict[str, int]:
        """How many battles are in each state."""
        query = sa.select(battles.c.state, sa.func.count().label("num")).group_by(battles.c.state)
        with self._store.read() as connection:
            return {row.state: row.num for row in connection.execute(query)}

    def voters(self) -> Sequence[str]:
        """Everybody whose vote is in the store."""
        with self._store.read() as connection:
            voters = connection.execute(sa.select(comparisons.c.voter).distinct()).scalars()
            return [voter for voter in voters if voter is not None]

    def exists(self, battle_id: str) -> bool:
        """Whether there is such a battle."""
        with self._store.read() as connection:
            return connection.execute(sa.select(battles.c.id).where(battles.c.id == battle_id)).first() is not None


def _query() -> tuple[Any, Any, sa.Select[Any]]:
    first, second = contestants.alias(), contestants.alias()
    query = (
        sa.select(
            battles,
            first.c.name.label("model_a"),
            second.c.name.label("model_b"),
            votes.c.choice,
            comparisons.c.category,
            comparisons.c.language,
        )
        .select_from(
            battles.join(first, first.c.id == battles.c.contestant_a).join(
                second, second.c.id == battles.c.contestant_b
            )
        )
        .outerjoin(votes, (votes.c.battle_id == battles.c.id) & votes.c.superseded_at.is_(None))
        .outerjoin(comparisons, comparisons.c.vote_id == votes.c.id)
    )
    return first, second, query


def _texts(connection: sa.Connection, battle: sa.Row[Any]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {"user": [], "a": [], "b": []}
    for side, conversation in (("a", battle.conversation_a), ("b", battle.conversation_b)):
        said = (
            sa.select(messages.c.role, messages.c.content)
            .where(messages.c.conversation_id == conversation, messages.c.deleted_at.is_(None))
            .order_by(messages.c.id)
        )
        for role, content in connection.execute(said):
            if role == "assistant":
                texts[side].append(plain_text(content))
            elif side == "a":
                texts["user"].append(plain_text(content))
    return texts


def _listed(row: sa.Row[Any], texts: dict[str, list[str]] | None) -> ListedBattle:
    return ListedBattle(
        row.id,
        row.created_at,
        row.state,
        row.flags,
        row.model_a,
        row.model_b,
        row.turn,
        row.choice,
        row.category,
        row.language,
        texts,
    )
