"""What visitors said that may become training data: votes, thumbs, edits and regenerations, with consent only.

Consent is that of the battle for a vote, and that of the visitor's thumbs for the rest: each thumb its own, and the
newest thumb for edits and regenerations. Nothing deleted, undone, excluded or unfinished is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from chaku.store import message_record
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import Store
from chaku.store.feedback import LOCAL_VISITOR
from chaku.store.ids import new_id
from chaku.store.message_record import EDITED, MessageState, StoredMessage
from chaku.store.tables import (
    battles,
    comparisons,
    conversations,
    feedback,
    messages,
    rating_snapshots,
    snapshot_visitors,
    votes,
)

Kind = Literal["votes", "thumbs", "edits", "regenerations"]
KINDS: tuple[Kind, ...] = ("votes", "thumbs", "edits", "regenerations")
METHOD = "training data"
"""The `method` of a snapshot that holds what visitors said."""


@dataclass(frozen=True)
class DonatedAnswer:
    """An answer that somebody found good or wrote, at the end of its conversation."""

    kind: Kind
    visitor: str
    system: str | None
    path: tuple[StoredMessage, ...]
    """From the first message to the answer."""


@dataclass(frozen=True)
class DonatedPair:
    """Two paths that begin alike; somebody preferred the first."""

    kind: Kind
    visitor: str
    system: str | None
    chosen: tuple[StoredMessage, ...]
    rejected: tuple[StoredMessage, ...]
    chosen_model: str | None = None
    rejected_model: str | None = None


@dataclass
class Donations:
    """What was found, and why other things were left out."""

    answers: list[DonatedAnswer] = field(default_factory=list)
    pairs: list[DonatedPair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def visitors(self) -> list[str]:
        """Who gave something."""
        return sorted({given.visitor for given in self.answers} | {given.visitor for given in self.pairs})


def read_donations(store: Store, kinds: Sequence[Kind] = KINDS) -> Donations:
    """Everything of these kinds that may be used, in the order in which it was written."""
    found = Donations()
    if "votes" in kinds:
        _read_votes(store, found)
    if {"thumbs", "edits", "regenerations"} & set(kinds):
        _read_chats(store, kinds, found)
    return found


def note_snapshot(store: Store, name: str, sha256: str, donations: Donations, *, now: datetime) -> None:
    """Remember whose words a snapshot holds, so that deleting a visitor names it."""
    key = new_id(now)
    num_records = len(donations.answers) + len(donations.pairs)
    with store.write() as connection:
        connection.execute(
            rating_snapshots.insert().values(
                id=key, created_at=now, name=name, method=METHOD, data_sha256=sha256, num_games=num_records
            )
        )
        rows = [{"snapshot_id": key, "visitor": visitor} for visitor in donations.visitors]
        if rows:
            connection.execute(snapshot_visitors.insert(), rows)


def _read_votes(store: Store, found: Donations) -> None:
    counted = {game.id for game in ComparisonBook(store).games(sources=["human"]) if game.counted}
    sides = (conversations.alias(), conversations.alias())
    query = (
        sa.select(
            votes.c.choice, votes.c.visitor, votes.c.publish, comparisons.c.id.label("game"), comparisons.c.model_a,
            comparisons.c.model_b, battles.c.conversation_a, battles.c.conversation_b,
            sides[0].c.system.label("system_a"), sides[1].c.system.label("system_b"),
        )
        .select_from(
            votes.join(battles, battles.c.id == votes.c.battle_id)
            .join(comparisons, comparisons.c.vote_id == votes.c.id)
            .join(sides[0], sides[0].c.id == battles.c.conversation_a)
            .join(sides[1], sides[1].c.id == battles.c.conversation_b)
        )
        .where(votes.c.superseded_at.is_(None))
        .order_by(votes.c.id)
    )  # fmt: skip
    with store.read() as connection:
        rows = connection.execute(query).all()
    for row in rows:
        reason = _why_not(row, counted)
        if reason is not None:
            found.left_out[reason] += 1
            continue
        paths = {"a": _only_path(store, row.conversation_a), "b": _only_path(store, row.conversation_b)}
        other = "b" if row.choice == "a" else "a"
        if not (_is_finished(paths["a"]) and _is_finished(paths["b"])):
            found.left_out["an answer is not finished"] += 1
            continue
        models = {"a": row.model_a, "b": row.model_b}
        chosen, rejected = paths[row.choice], paths[other]
        found.pairs.append(
            DonatedPair("votes", row.visitor, row.system_a, chosen, rejected, models[row.choice], models[other])
        )


def _why_not(row: Any, counted: set[str]) -> str | None:
    if not row.publish:
        return "no consent"
    if row.game not in counted:
        return "the vote does not count"
    if row.choice not in ("a", "b"):
        return "neither answer was preferred"
    if row.system_a != row.system_b:
        return "the sides had different system prompts"
    return None


def _read_chats(store: Store, kinds: Sequence[Kind], found: Donations) -> None:
    query = (
        sa.select(conversations.c.id, conversations.c.owner_id, conversations.c.system)
        .where(conversations.c.battle_id.is_(None), conversations.c.deleted_at.is_(None))
        .order_by(conversations.c.id)
    )
    with store.read() as connection:
        chats = connection.execute(query).all()
    agreed = _newest_consents(store)
    for chat in chats:
        visitor = chat.owner_id or LOCAL_VISITOR
        tree = _Branches(_live_messages(store, chat.id))
        if "thumbs" in kinds:
            _add_thumbs(store, chat, visitor, tree, found)
        signs = {"edits": _edits(tree), "regenerations": _regenerations(tree)}
        for kind in ("edits", "regenerations"):
            if kind not in kinds:
                continue
            for chosen, rejected in signs[kind]:
                if agreed.get(visitor) is not True:
                    found.left_out["no consent"] += 1
                    continue
                paths = tree.path(chosen), tree.path(rejected)
                found.pairs.append(DonatedPair(kind, visitor, chat.system, *paths, chosen.model, rejected.model))
        if "edits" in kinds and agreed.get(visitor) is True:
            written = [message for message in tree.answers if message.finish_reason == EDITED]
            found.answers += [DonatedAnswer("edits", visitor, chat.system, tree.path(message)) for message in written]


def _add_thumbs(store: Store, chat: Any, visitor: str, tree: _Branches, found: Donations) -> None:
    query = sa.select(feedback).where(feedback.c.conversation_id == chat.id, feedback.c.visitor == visitor)
    with store.read() as connection:
        thumbs = {row.message_id: row for row in connection.execute(query.order_by(feedback.c.id))}
    usable: dict[str, str] = {}
    for message_id, thumb in thumbs.items():
        message = tree.by_id.get(message_id)
        if not thumb.consent:
            found.left_out["no consent"] += 1
        elif message is None or not _is_finished((message,)):
            found.left_out["an answer is not finished"] += 1
        else:
            usable[message_id] = thumb.value
    for message in tree.answers:
        if usable.get(message.id) != "up":
            continue
        found.answers.append(DonatedAnswer("thumbs", visitor, chat.system, tree.path(message)))
        for other in tree.siblings(message):
            if usable.get(other.id) == "down":
                paths = tree.path(message), tree.path(other)
                found.pairs.append(DonatedPair("thumbs", visitor, chat.system, *paths, message.model, other.model))


def _edits(tree: _Branches) -> Iterator[tuple[StoredMessage, StoredMessage]]:
    """An answer that a person rewrote, and the models' answers that it replaced."""
    for message in tree.answers:
        if message.finish_reason == EDITED:
            for other in tree.siblings(message):
                if other.position < message.position and other.finish_reason != EDITED:
                    yield message, other


def _regenerations(tree: _Branches) -> Iterator[tuple[StoredMessage, StoredMessage]]:
    """The one answer that somebody went on with, and those before it that nobody did."""
    for message in tree.answers:
        others = tree.siblings(message)
        if message.finish_reason == EDITED or not tree.is_continued(message) or any(map(tree.is_continued, others)):
            continue
        for other in others:
            if other.position < message.position and other.finish_reason != EDITED:
                yield message, other


class _Branches:
    """The finished messages of one chat, by parent."""

    def __init__(self, live: list[StoredMessage]) -> None:
        self.by_id = {message.id: message for message in live}
        self._children: dict[str | None, list[StoredMessage]] = {}
        for message in sorted(live, key=lambda message: message.position):
            self._children.setdefault(message.parent_id, []).append(message)
        self.answers = [message for message in live if message.role == "assistant" and _is_finished(self.path(message))]

    def path(self, message: StoredMessage) -> tuple[StoredMessage, ...]:
        """From the first message to this one."""
        path = [message]
        while (parent := path[-1].parent_id) is not None and parent in self.by_id:
            path.append(self.by_id[parent])
        return tuple(path[::-1])

    def siblings(self, message: StoredMessage) -> list[StoredMessage]:
        """Other finished answers to the same message."""
        return [
            other
            for other in self._children[message.parent_id]
            if other.id != message.id and other.role == "assistant" and _is_finished((other,))
        ]

    def is_continued(self, message: StoredMessage) -> bool:
        """Whether a user's message follows."""
        return any(child.role == "user" for child in self._children.get(message.id, ()))


def _newest_consents(store: Store) -> dict[str, bool]:
    query = sa.select(feedback.c.visitor, feedback.c.consent).order_by(feedback.c.created_at, feedback.c.id)
    with store.read() as connection:
        return {row.visitor: bool(row.consent) for row in connection.execute(query)}


def _live_messages(store: Store, conversation_id: str) -> list[StoredMessage]:
    is_live = (messages.c.conversation_id == conversation_id) & messages.c.deleted_at.is_(None)
    with store.read() as connection:
        rows = connection.execute(message_record.SELECT.where(is_live).order_by(messages.c.id))
        return [message_record.read(row) for row in rows]


def _only_path(store: Store, conversation_id: str) -> tuple[StoredMessage, ...]:
    """The messages of one side of a battle, which has no branches."""
    live = _live_messages(store, conversation_id)
    parents = {message.parent_id for message in live}
    leaf = next((message for message in live if message.id not in parents), None)
    return () if leaf is None else _Branches(live).path(leaf)


def _is_finished(path: Sequence[StoredMessage]) -> bool:
    return bool(path) and path[-1].role == "assistant" and all(
        message.state is MessageState.COMPLETE and message.content for message in path
    )  # fmt: skip
