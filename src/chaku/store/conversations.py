"""Conversations of one owner: made, listed, searched, renamed, pinned, deleted and restored. Messages are in `tree`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.store.database import Store
from chaku.store.folding import fold, plain_text
from chaku.store.ids import new_id
from chaku.store.tables import conversations, messages
from chaku.store.tree import Tree

KEPT_DELETED = timedelta(days=30)
"""A deletion can be undone for so long. The next `create` after that removes the rows."""

MAX_TITLE_LENGTH = 200
OWN_TITLE_LENGTH = 60
"""Of a title that is made from the first message."""


@dataclass(frozen=True)
class StoredConversation:
    """One conversation without its messages."""

    id: str
    owner_id: str | None
    title: str
    leaf_id: str | None
    """Last message of the path now shown."""
    is_pinned: bool
    created_at: datetime
    updated_at: datetime
    """When a message was last added or finished."""
    deleted_at: datetime | None = None
    system: str | None = None
    """The system prompt."""
    model: str | None = None
    """The model that was asked last."""
    settings: dict[str, Any] | None = None
    """Request parameters for the next answer."""
    battle_id: str | None = None
    """The battle of which this is a side. None: a chat."""


@dataclass(frozen=True)
class ListPlace:
    """Where a conversation stands in the list."""

    is_pinned: bool
    updated_at: datetime
    id: str


@dataclass(frozen=True)
class Found:
    """A conversation that a search hit: by a message (its newest that fits, with its text), or by its title."""

    conversation: StoredConversation
    message_id: str | None
    text: str | None


class Conversations:
    """The chats of one owner: an API key's id, or None for the local user. Those of others raise NotFound.

    The sides of a battle are not chats: they would tell their models' names.
    """

    def __init__(self, store: Store, owner_id: str | None) -> None:
        self._store = store
        self._owner_id = owner_id

    def create(
        self,
        title: str,
        *,
        now: datetime,
        system: str | None = None,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> StoredConversation:
        """Begin an empty conversation. Raises InvalidRequest for a title that can't be kept."""
        new = StoredConversation(
            id=new_id(now),
            owner_id=self._owner_id,
            title=check_title(title),
            leaf_id=None,
            is_pinned=False,
            created_at=now,
            updated_at=now,
            system=system,
            model=model,
            settings=dict(settings) if settings else None,
        )
        gone = conversations.c.deleted_at < now - KEPT_DELETED
        with self._store.write() as connection:
            connection.execute(conversations.delete().where(self._mine, gone))
            mine = sa.select(conversations.c.id).where(self._mine)
            old = messages.c.deleted_at < now - KEPT_DELETED
            connection.execute(messages.delete().where(messages.c.conversation_id.in_(mine), old))
            insert(connection, new)
        return new

    def get(self, conversation_id: str) -> StoredConversation:
        """One conversation that is not deleted. Raises NotFound."""
        with self._store.read() as connection:
            row = connection.execute(SELECT.where(self._live, conversations.c.id == conversation_id)).one_or_none()
        if row is None:
            raise NotFound(f"no conversation {conversation_id!r}")
        return StoredConversation(*row)

    def tree(self, conversation_id: str) -> Tree:
        """The messages of one conversation; whether it exists is seen when the tree is used."""
        return Tree(self._store, self._owner_id, conversation_id)

    def page(self, *, limit: int, after: ListPlace | None = None) -> list[StoredConversation]:
        """Conversations that are not deleted: pinned ones first, then the newest; those that come after a place."""
        columns = conversations.c
        query = SELECT.where(self._live)
        if after is not None:
            older = (columns.updated_at < after.updated_at) | (
                (columns.updated_at == after.updated_at) & (columns.id < after.id)
            )
            below = columns.is_pinned.is_(after.is_pinned) & older
            query = query.where(below | columns.is_pinned.is_(False) if after.is_pinned else below)
        query = query.order_by(columns.is_pinned.desc(), columns.updated_at.desc(), columns.id.desc())
        with self._store.read() as connection:
            return [StoredConversation(*row) for row in connection.execute(query.limit(limit))]

    def search(self, text: str, *, limit: int) -> list[Found]:
        """Conversations with this text in the title or any branch, whatever its case, newest first."""
        wanted = fold(text)
        if not wanted.strip():
            return []
        # Ids sort by time, so the greatest is the newest message that fits.
        hits = (
            sa.select(messages.c.conversation_id, sa.func.max(messages.c.id).label("message_id"))
            .join(conversations, conversations.c.id == messages.c.conversation_id)
            .where(self._live, messages.c.deleted_at.is_(None))
            .where(messages.c.text_folded.contains(wanted, autoescape=True))
            .group_by(messages.c.conversation_id)
            .subquery()
        )
        query = (
            SELECT.add_columns(messages.c.id.label("message_id"), messages.c.content)
            .outerjoin(hits, hits.c.conversation_id == conversations.c.id)
            .outerjoin(messages, messages.c.id == hits.c.message_id)
            .where(self._live)
            .where(hits.c.message_id.is_not(None) | conversations.c.title_folded.contains(wanted, autoescape=True))
            .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
            .limit(limit)
        )
        with self._store.read() as connection:
            return [
                Found(
                    StoredConversation(*row[:-2]), row.message_id, plain_text(row.content) if row.message_id else None
                )
                for row in connection.execute(query)
            ]

    def change(self, conversation_id: str, values: Mapping[str, Any]) -> None:
        """Set some of title, is_pinned, system, model and settings at once. Raises NotFound or InvalidRequest."""
        assert values and values.keys() <= {"title", "is_pinned", "system", "model", "settings"}
        new = dict(values)
        if "title" in new:
            new["title"] = check_title(new["title"])
            new["title_folded"] = fold(new["title"])
        self._update(conversation_id, **new)

    def delete(self, conversation_id: str, *, now: datetime) -> None:
        """Put it out of sight; `restore` brings it back for KEPT_DELETED. Raises NotFound."""
        self._update(conversation_id, deleted_at=now)

    def restore(self, conversation_id: str) -> None:
        """Undo `delete`. Raises NotFound where it is not deleted, or gone for good."""
        self._update(conversation_id, was_deleted=True, deleted_at=None)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return (conversations.c.owner_id == self._owner_id) & conversations.c.battle_id.is_(None)

    @property
    def _live(self) -> sa.ColumnElement[bool]:
        return self._mine & conversations.c.deleted_at.is_(None)

    def _update(self, conversation_id: str, *, was_deleted: bool = False, **values: Any) -> None:
        is_deleted = conversations.c.deleted_at.is_not(None)
        which = conversations.update().where(
            conversations.c.id == conversation_id, self._mine, is_deleted if was_deleted else ~is_deleted
        )
        with self._store.write() as connection:
            if connection.execute(which.values(**values)).rowcount != 1:
                raise NotFound(f"no {'deleted ' if was_deleted else ''}conversation {conversation_id!r}")


def title_from(content: Any) -> str:
    """A title for a conversation that begins with this message: its first line, cut where a word ends."""
    line = next((line for line in plain_text(content).splitlines() if line.strip()), "")
    line = check_title(" ".join(line[:MAX_TITLE_LENGTH].split()))
    if len(line) <= OWN_TITLE_LENGTH:
        return line
    cut = line[: OWN_TITLE_LENGTH - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut) + "…"


def check_title(title: str) -> str:
    """The title on one line, unprintable characters gone. Raises InvalidRequest where it is too long."""
    title = "".join(character if character.isprintable() else " " for character in title).strip()
    if len(title) > MAX_TITLE_LENGTH:
        raise InvalidRequest(f"the title has {len(title)} characters, {MAX_TITLE_LENGTH} fit", param="title")
    return title


def insert(connection: sa.Connection, new: StoredConversation) -> None:
    """Write a new conversation."""
    connection.execute(conversations.insert().values(**row_of(new)))


def row_of(conversation: StoredConversation) -> dict[str, Any]:
    """A conversation as its table's columns."""
    row = {field.name: getattr(conversation, field.name) for field in fields(conversation)}
    return {**row, "title_folded": fold(conversation.title)}


SELECT = sa.select(*(conversations.c[field.name] for field in fields(StoredConversation))).select_from(conversations)
