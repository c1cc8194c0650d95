"""Battles of one visitor: two anonymous sides, their state, and the vote. A vote that is acknowledged is on the disk.

drawn → answering → votable → voted; failed where no two answers could be had. A new turn leads back to answering, and
undoing a vote back to votable: the vote stays, superseded.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
import sqlalchemy as sa

from chaku.comparison import Comparison, Outcome
from chaku.errors import Conflict, NotFound, Overloaded
from chaku.settings import Contestant
from chaku.store import comparisons, conversations
from chaku.store.conversations import StoredConversation
from chaku.store.database import Store
from chaku.store.feedback import LOCAL_VISITOR
from chaku.store.ids import new_id
from chaku.store.tables import battles, contestants, votes
from chaku.store.tree import Tree

Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")
UNDO = timedelta(seconds=10)
"""A vote can be taken back for so long."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class StoredBattle:
    """One battle. Its texts are in two conversations, which are in nobody's list of chats."""

    id: str
    visitor: str
    owner_id: str | None
    state: str
    turn: int
    contestant_a: str
    """Id of the definition, see `Battles.sides`."""
    contestant_b: str
    conversation_a: str
    conversation_b: str
    probability: float
    """With which this pair was drawn, in either order."""
    flags: list[str]
    """leaked, replaced, failed; shown: a vote was undone after the names had been shown."""
    publish: bool
    token: str
    created_at: datetime
    updated_at: datetime

    def conversation(self, side: Side) -> str:
        """The id of a side's conversation."""
        return self.conversation_a if side == "a" else self.conversation_b


@dataclass(frozen=True)
class StoredVote:
    """One vote."""

    id: str
    battle_id: str
    visitor: str
    choice: Outcome
    reasons: list[str]
    publish: bool
    token: str
    created_at: datetime
    superseded_at: datetime | None = None


def undo_left_s(given: StoredVote, now: datetime) -> float:
    """Seconds for which a vote can still be undone. The clock may have been set back since: at most UNDO."""
    return min(UNDO, max(timedelta(), given.created_at + UNDO - now)).total_seconds()


class Battles:
    """The battles of one visitor: an API key's id, or None for the local user. Those of others raise NotFound."""

    def __init__(self, store: Store, owner_id: str | None) -> None:
        self._store = store
        self._owner_id = owner_id
        self.visitor = owner_id or LOCAL_VISITOR

    def create(
        self, pair: tuple[Contestant, Contestant], probability: float, *, publish: bool, per_hour: int, now: datetime
    ) -> StoredBattle:
        """Begin a battle between A and B. Raises Overloaded where the visitor has begun too many within the hour."""
        with self._store.write() as connection:
            recent = sa.select(battles.c.created_at).where(self._is_recent(now))
            begun = sorted(connection.execute(recent).scalars())
            if len(begun) >= per_hour:
                raise Overloaded(
                    f"a visitor may begin {per_hour} battles per hour",
                    fix="wait, or raise arena_battles_per_hour on the server",
                    code="too_many_battles",
                    retry_after_s=(begun[-per_hour] + HOUR - now).total_seconds(),
                )
            new = StoredBattle(
                new_id(now),
                self.visitor,
                self._owner_id,
                "drawn",
                0,
                _put_contestant(connection, pair[0]),
                _put_contestant(connection, pair[1]),
                new_id(now),
                new_id(now),
                probability,
                [],
                publish,
                "",
                now,
                now,
            )
            connection.execute(battles.insert().values(**vars(new)))
            for side, contestant in zip(SIDES, pair, strict=True):
                self._put_conversation(connection, new.id, new.conversation(side), contestant, now)
        return new

    def get(self, battle_id: str) -> StoredBattle:
        """One battle. Raises NotFound."""
        with self._store.read() as connection:
            return self._one(connection, battle_id)

    def num_recent(self, *, now: datetime) -> int:
        """Battles begun within the last hour."""
        query = sa.select(sa.func.count()).where(self._is_recent(now))
        with self._store.read() as connection:
            return connection.execute(query.select_from(battles)).scalar_one()

    def last_consent(self) -> bool | None:
        """Whether the texts of the newest battle may be published. None: there was no battle yet."""
        query = sa.select(battles.c.publish).where(self._mine).order_by(battles.c.id.desc()).limit(1)
        with self._store.read() as connection:
            consent: bool | None = connection.execute(query).scalar()
        return consent

    def sides(self, battle: StoredBattle) -> dict[Side, Contestant]:
        """Who stands on both sides."""
        return {
            "a": contestant_of(self._store, battle.contestant_a),
            "b": contestant_of(self._store, battle.contestant_b),
        }

    def tree(self, battle: StoredBattle, side: Side) -> Tree:
        """The messages of one side."""
        return Tree(self._store, self._owner_id, battle.conversation(side))

    def vote_of(self, battle_id: str) -> StoredVote | None:
        """The vote that holds."""
        with self._store.read() as connection:
            self._one(connection, battle_id)
            return _active_vote(connection, battle_id)

    def begin_turn(self, battle_id: str, *, most: int, now: datetime) -> StoredBattle:
        """The next turn. Raises Conflict where the battle can't have one."""
        with self._store.write() as connection:
            battle = self._one(connection, battle_id, lock=True)
            if battle.state not in ("drawn", "votable"):
                raise Conflict(f"this battle is {battle.state}: it takes no message", code=f"battle_{battle.state}")
            if battle.turn >= most:
                raise Conflict(f"a battle has at most {most} turns", fix="vote now", code="too_many_turns")
            return _set(connection, battle, now, state="answering", turn=battle.turn + 1, token="")

    def open_voting(self, battle_id: str, *, now: datetime) -> StoredBattle:
        """Both sides can be judged: give a new token for the vote."""
        with self._store.write() as connection:
            battle = self._one(connection, battle_id, lock=True)
            if battle.state != "answering":
                return battle
            return _set(connection, battle, now, state="votable", token=secrets.token_urlsafe(18))

    def replace_side(self, battle_id: str, side: Side, contestant: Contestant, *, now: datetime) -> StoredBattle:
        """Put another contestant on a side, with a conversation of its own, and wait for both sides again.

        The battle is flagged `replaced`. Raises Conflict after a vote.
        """
        with self._store.write() as connection:
            battle = self._one(connection, battle_id, lock=True)
            if battle.state not in ("answering", "votable"):
                raise Conflict(f"this battle is {battle.state}", code=f"battle_{battle.state}")
            conversation = new_id(now)
            values: dict[str, Any] = {
                f"contestant_{side}": _put_contestant(connection, contestant),
                f"conversation_{side}": conversation,
                "state": "answering",
                "token": "",
                "flags": sorted({*battle.flags, "replaced"}),
            }
            self._put_conversation(connection, battle.id, conversation, contestant, now)
            return _set(connection, battle, now, **values)

    def flag(self, battle_id: str, flag: str, *, now: datetime, state: str | None = None) -> StoredBattle:
        """Note what happened, and move to a state if one is given."""
        with self._store.write() as connection:
            battle = self._one(connection, battle_id, lock=True)
            return _set(
                connection, battle, now, flags=sorted({*battle.flags, flag}), **({"state": state} if state else {})
            )

    def vote(
        self,
        battle_id: str,
        choice: Outcome,
        token: str,
        comparison: Comparison,
        *,
        reasons: Sequence[str] = (),
        flags: Sequence[str] = (),
        now: datetime,
    ) -> StoredVote:
        """Keep a vote with the game that it decides; on the disk on return.

        Raises Conflict: `already_voted`, `stale_vote` for a token of an earlier turn or of a vote that was undone,
        `not_votable`.
        """
        with self._store.write(durable=True) as connection:
            battle = self._one(connection, battle_id, lock=True)
            if battle.state == "voted":
                raise Conflict("this battle has a vote already", fix="begin another battle", code="already_voted")
            if battle.state != "votable":
                raise Conflict("both sides must begin before a vote", fix="wait for both answers", code="not_votable")
            if not secrets.compare_digest(battle.token.encode(), token.encode(errors="replace")):
                raise Conflict(
                    "the battle has changed since this page was shown",
                    fix="load it again, then vote",
                    code="stale_vote",
                )
            given = StoredVote(
                new_id(now), battle.id, self.visitor, choice, list(reasons), battle.publish, token, now, None
            )
            connection.execute(votes.insert().values(**vars(given)))
            comparisons.insert(connection, [comparison], vote_id=given.id)
            _set(connection, battle, now, state="voted", token="", flags=sorted({*battle.flags, *flags}))
        return given

    def give_reasons(self, battle_id: str, reasons: Sequence[str]) -> StoredVote:
        """Say why the vote that holds was given, in place of what was said before. Raises Conflict, NotFound."""
        with self._store.write() as connection:
            self._one(connection, battle_id, lock=True)
            given = _active_vote(connection, battle_id)
            if given is None:
                raise Conflict("there is no vote to give reasons for", fix="vote first", code="no_vote")
            connection.execute(votes.update().where(votes.c.id == given.id).values(reasons=list(reasons)))
            return replace(given, reasons=list(reasons))

    def undo(self, battle_id: str, *, now: datetime) -> StoredBattle:
        """Supersede the vote. The names were shown, so that another one is kept and not counted. Raises Conflict."""
        with self._store.write(durable=True) as connection:
            battle = self._one(connection, battle_id, lock=True)
            given = _active_vote(connection, battle_id)
            if given is None:
                raise Conflict("there is no vote to undo", code="no_vote")
            if not undo_left_s(given, now):
                raise Conflict(f"a vote can be undone for {UNDO.total_seconds():.0f} s", code="too_late")
            connection.execute(votes.update().where(votes.c.id == given.id).values(superseded_at=now))
            flags = sorted({*battle.flags, "shown"})
            return _set(connection, battle, now, state="votable", token=secrets.token_urlsafe(18), flags=flags)

    def _is_recent(self, now: datetime) -> sa.ColumnElement[bool]:
        # Not of the future: the clock may have been set back.
        return self._mine & battles.c.created_at.between(now - HOUR, now)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return battles.c.visitor == self.visitor

    def _one(self, connection: sa.Connection, battle_id: str, *, lock: bool = False) -> StoredBattle:
        query = SELECT.where(self._mine, battles.c.id == battle_id)
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise NotFound(f"no battle {battle_id!r}")
        return StoredBattle(*row)

    def _put_conversation(
        self, connection: sa.Connection, battle_id: str, conversation_id: str, contestant: Contestant, now: datetime
    ) -> None:
        conversations.insert(
            connection,
            StoredConversation(
                conversation_id,
                self._owner_id,
                "",
                None,
                is_pinned=False,
                created_at=now,
                updated_at=now,
                system=contestant.system,
                model=contestant.model,
                settings=contestant.sampling or None,
                battle_id=battle_id,
            ),
        )


SELECT = sa.select(*(battles.c[field.name] for field in fields(StoredBattle)))


def contestant_of(store: Store, contestant_id: str) -> Contestant:
    """A contestant as it was defined when it stood in a battle."""
    columns = (contestants.c[name] for name in Contestant.model_fields)
    query = sa.select(*columns).where(contestants.c.id == contestant_id)
    with store.read() as connection:
        return Contestant(**connection.execute(query).one()._mapping)


def _put_contestant(connection: sa.Connection, contestant: Contestant) -> str:
    """The id of this definition, which is kept once."""
    row = contestant.model_dump()
    key = hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    if connection.execute(sa.select(contestants.c.id).where(contestants.c.id == key)).first() is None:
        with connection.begin_nested() as attempt:
            try:
                connection.execute(contestants.insert().values(id=key, **row))
            except sa.exc.IntegrityError:  # another gateway was faster
                attempt.rollback()
    return key


def _set(connection: sa.Connection, battle: StoredBattle, now: datetime, **values: Any) -> StoredBattle:
    values["updated_at"] = now
    connection.execute(battles.update().where(battles.c.id == battle.id).values(**values))
    return replace(battle, **values)


def _active_vote(connection: sa.Connection, battle_id: str) -> StoredVote | None:
    columns = (votes.c[field.name] for field in fields(StoredVote))
    query = sa.select(*columns).where(votes.c.battle_id == battle_id, votes.c.superseded_at.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else StoredVote(*row)
