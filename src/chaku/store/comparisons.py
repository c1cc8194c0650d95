"""Comparisons in the store: votes, verdicts and imports, what of them is excluded, and which snapshots they are in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from chaku.comparison import Comparison, Style
from chaku.errors import NotFound
from chaku.store.audit import Actor, note
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tables import (
    battles,
    comparisons,
    contestants,
    conversations,
    exclusions,
    rated_comparisons,
    rating_snapshots,
    snapshot_visitors,
    votes,
)

ExclusionKind = Literal["voter", "battle", "contestant"]
_ROWS_AT_ONCE = 500
_STILL_OPEN = timedelta(hours=1)
_COLUMNS = tuple(Comparison.model_fields)


@dataclass(frozen=True)
class Exclusion:
    """Something that ratings leave out, with the reason that everybody may read."""

    id: str
    kind: str
    subject: str
    """A voter, a battle's id or a contestant's name."""
    reason: str
    created_by: str
    created_at: datetime
    lifted_at: datetime | None = None


@dataclass(frozen=True)
class Forgotten:
    """What was removed with a visitor."""

    num_battles: int
    num_votes: int
    snapshots: tuple[str, ...]
    """Names of the ratings that had counted some of these votes, and of the training data that hold the texts."""


class ComparisonBook:
    """All comparisons of a database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, games: Iterable[Comparison], *, is_example: bool = False) -> int:
        """Keep verdicts or imports; a game that is there already is left as it is. How many are new."""
        unique = {game.id: game for game in games}
        num_new = 0
        ids = list(unique)
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            some = ids[start : start + _ROWS_AT_ONCE]
            with self._store.write() as connection:
                known = set(connection.execute(sa.select(comparisons.c.id).where(comparisons.c.id.in_(some))).scalars())
                new = [unique[key] for key in some if key not in known]
                insert(connection, new, is_example=is_example)
            num_new += len(new)
        return num_new

    def put_side_by_side(self, games: Sequence[Comparison], *, is_withdrawn: bool = False) -> int:
        """Keep what a voter says of answers that stand side by side, instead of what the same voter said before.

        The same voter, prompt and moment are the same answers. Unless `is_withdrawn`, `games` are kept; how many.
        """
        first = games[0]
        before = (
            comparisons.c.vote_id.is_(None)
            & (comparisons.c.source == "human")
            & comparisons.c.counted.is_(False)
            & (comparisons.c.voter == first.voter)
            & (comparisons.c.prompt_id == first.prompt_id)
            & (comparisons.c.created == first.created)
        )
        with self._store.write() as connection:
            connection.execute(comparisons.delete().where(before))
            if not is_withdrawn:
                insert(connection, games)
        return 0 if is_withdrawn else len(games)

    def games(
        self,
        *,
        sources: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        examples: bool = False,
    ) -> list[Comparison]:
        """The games in the order of their ids, each with whether it counts now, and why not.

        `since` (inclusive) and `until` (exclusive) are dates or moments in ISO 8601; games without a time are in
        neither. An undone vote, and what an operator excluded, is there and not counted.
        """
        columns = [comparisons.c[name] for name in _COLUMNS]
        query = (
            sa.select(*columns, votes.c.superseded_at, votes.c.battle_id)
            .select_from(comparisons.outerjoin(votes, votes.c.id == comparisons.c.vote_id))
            .order_by(comparisons.c.id)
        )
        if sources:
            query = query.where(comparisons.c.source.in_(sources))
        if since is not None:
            query = query.where(comparisons.c.created >= since)
        if until is not None:
            query = query.where(comparisons.c.created < until)
        if not examples:
            query = query.where(comparisons.c.is_example.is_(False))
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        left_out = {(one.kind, one.subject): one.reason for one in self.exclusions() if one.lifted_at is None}
        return [_judged(_read(row[:-2]), row.superseded_at is not None, row.battle_id, left_out) for row in rows]

    def version(self) -> tuple[int, ...]:
        """Another one whenever `games` may give something else."""
        counts = (
            sa.select(sa.func.count()).select_from(comparisons),
            sa.select(sa.func.count(votes.c.superseded_at)),
            sa.select(sa.func.count() + sa.func.count(exclusions.c.lifted_at)).select_from(exclusions),
        )
        newest = sa.select(sa.func.coalesce(sa.func.max(votes.c.id), ""))
        with self._store.read() as connection:
            return *(connection.execute(count).scalar_one() for count in counts), hash(
                connection.execute(newest).scalar_one()
            )

    def has_examples(self) -> bool:
        """Whether there are games that only show what a leaderboard looks like."""
        with self._store.read() as connection:
            query = sa.select(comparisons.c.id).where(comparisons.c.is_example.is_(True)).limit(1)
            return connection.execute(query).first() is not None

    def exclude(
        self, kind: ExclusionKind, subject: str, reason: str, *, by: str, now: datetime, actor: Actor | None = None
    ) -> Exclusion:
        """Leave something out of all ratings from now on; nothing is deleted."""
        new = Exclusion(new_id(now), kind, subject, reason, by, now)
        with self._store.write() as connection:
            connection.execute(exclusions.insert().values(**vars(new)))
            note(connection, "arena.exclude", subject, {"kind": kind, "reason": reason}, by=actor, now=now)
        return new

    def lift(self, kind: ExclusionKind, subject: str, *, now: datetime, actor: Actor | None = None) -> Exclusion:
        """End what `exclude` began. Raises NotFound."""
        which = (exclusions.c.kind == kind) & (exclusions.c.subject == subject) & exclusions.c.lifted_at.is_(None)
        with self._store.write() as connection:
            ended = connection.execute(exclusions.update().where(which).values(lifted_at=now)).rowcount
            if not ended:
                raise NotFound(f"no {kind} {subject!r} is excluded")
            note(connection, "arena.lift", subject, {"kind": kind}, by=actor, now=now)
        return next(one for one in self.exclusions() if (one.kind, one.subject, one.lifted_at) == (kind, subject, now))

    def exclusions(self) -> list[Exclusion]:
        """All of them, those that were lifted included, the newest first."""
        columns = (exclusions.c[field.name] for field in fields(Exclusion))
        with self._store.read() as connection:
            return [Exclusion(*row) for row in connection.execute(sa.select(*columns).order_by(exclusions.c.id.desc()))]

    def pair_counts(self, *, now: datetime) -> dict[tuple[str, str], tuple[int, int]]:
        """Battles that were drawn and votes that hold, by pair of contestants' names in sorted order.

        A battle that may still get its vote is not in them for an hour: its voter could read the names off the counts.
        """
        first, second = contestants.alias(), contestants.alias()
        drawn = (
            sa.select(first.c.name, second.c.name, sa.func.count(), sa.func.count(votes.c.id))
            .select_from(
                battles.join(first, first.c.id == battles.c.contestant_a)
                .join(second, second.c.id == battles.c.contestant_b)
                .outerjoin(votes, (votes.c.battle_id == battles.c.id) & votes.c.superseded_at.is_(None))
            )
            .where(battles.c.state.in_(("voted", "failed")) | (battles.c.updated_at < now - _STILL_OPEN))
            .group_by(first.c.name, second.c.name)
        )
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        with self._store.read() as connection:
            for name_a, name_b, num_battles, num_votes in connection.execute(drawn):
                pair = (min(name_a, name_b), max(name_a, name_b))
                before = counts.get(pair, (0, 0))
                counts[pair] = (before[0] + num_battles, before[1] + num_votes)
        return counts

    def outcome_counts(self) -> dict[tuple[str, str], tuple[float, int]]:
        """Points of the first and games, by pair in sorted order: votes that hold, examples left out."""
        query = (
            sa.select(comparisons.c.model_a, comparisons.c.model_b, comparisons.c.outcome)
            .select_from(comparisons.outerjoin(votes, votes.c.id == comparisons.c.vote_id))
            .where(
                comparisons.c.source == "human",
                comparisons.c.counted.is_(True),
                comparisons.c.is_example.is_(False),
                votes.c.superseded_at.is_(None),
            )
        )
        counts: dict[tuple[str, str], tuple[float, int]] = {}
        with self._store.read() as connection:
            for name_a, name_b, outcome in connection.execute(query):
                score = Comparison(source="human", model_a=name_a, model_b=name_b, outcome=outcome).score
                pair = (min(name_a, name_b), max(name_a, name_b))
                points, num = counts.get(pair, (0.0, 0))
                counts[pair] = (points + (score if pair[0] == name_a else 1 - score), num + 1)
        return counts

    def note_snapshot(
        self, name: str, method: str, data_sha256: str, games: Sequence[Comparison], *, now: datetime
    ) -> str:
        """Remember which games ratings that leave this machine rest on, and return the snapshot's id."""
        key = new_id(now)
        with self._store.write() as connection:
            connection.execute(
                rating_snapshots.insert().values(
                    id=key, created_at=now, name=name, method=method, data_sha256=data_sha256, num_games=len(games)
                )
            )
            rows = [{"snapshot_id": key, "comparison_id": game.id} for game in games]
            if rows:
                connection.execute(rated_comparisons.insert(), rows)
        return key

    def forget(self, visitor: str) -> Forgotten:
        """Remove a visitor's battles with their texts, and the votes; the snapshots that had counted them are named."""
        with self._store.write() as connection:
            return forget(connection, visitor)


def forget(connection: sa.Connection, visitor: str) -> Forgotten:
    """Remove a visitor's battles with their texts, and the votes; the snapshots that had counted them are named."""
    mine = sa.select(battles.c.id).where(battles.c.visitor == visitor)
    theirs = sa.select(comparisons.c.id).where(comparisons.c.voter == visitor)
    counted_in = sa.select(rated_comparisons.c.snapshot_id).where(rated_comparisons.c.comparison_id.in_(theirs))
    held_in = sa.select(snapshot_visitors.c.snapshot_id).where(snapshot_visitors.c.visitor == visitor)
    has_some = rating_snapshots.c.id.in_(counted_in) | rating_snapshots.c.id.in_(held_in)
    named = sa.select(rating_snapshots.c.name).where(has_some).distinct().order_by(rating_snapshots.c.name)
    names = tuple(connection.execute(named).scalars())
    connection.execute(snapshot_visitors.delete().where(snapshot_visitors.c.visitor == visitor))
    num_votes = connection.execute(
        sa.select(sa.func.count()).select_from(votes).where(votes.c.visitor == visitor)
    ).scalar_one()
    connection.execute(comparisons.delete().where(comparisons.c.voter == visitor))
    connection.execute(conversations.delete().where(conversations.c.battle_id.in_(mine)))
    num_battles = connection.execute(battles.delete().where(battles.c.visitor == visitor)).rowcount
    return Forgotten(num_battles, num_votes, names)


def insert(
    connection: sa.Connection, games: Sequence[Comparison], *, vote_id: str | None = None, is_example: bool = False
) -> None:
    """Write new games."""
    rows = [{"id": game.id, "vote_id": vote_id, "is_example": is_example, **game.model_dump()} for game in games]
    if rows:
        connection.execute(comparisons.insert(), rows)


def _read(row: Sequence[Any]) -> Comparison:
    values = dict(zip(_COLUMNS, row, strict=True))
    for side in ("style_a", "style_b"):
        values[side] = None if values[side] is None else Style(**values[side])
    return Comparison(**values)


def _judged(
    game: Comparison, is_undone: bool, battle_id: str | None, left_out: dict[tuple[str, str], str]
) -> Comparison:
    """The game as it counts today."""
    if not game.counted:
        return game
    reason = "the vote was undone" if is_undone else None
    for kind, subject in (
        ("voter", game.voter),
        ("battle", battle_id),
        ("contestant", game.model_a),
        ("contestant", game.model_b),
    ):
        if reason is None and subject is not None and (kind, subject) in left_out:
            reason = f"{kind} excluded: {left_out[kind, subject]}"
    return game if reason is None else game.model_copy(update={"counted": False, "reason": reason})
