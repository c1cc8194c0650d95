"""The messages of one conversation, as a tree: editing and regenerating add siblings, nothing is overwritten.

An answer under way is a message in state `streaming` that grows, and is finished once.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.store.database import Store
from chaku.store.folding import fold, plain_text
from chaku.store.ids import new_id
from chaku.store.tables import conversations, gateways, messages

ROLES = ("system", "developer", "user", "assistant", "tool")

Content = str | list[dict[str, Any]] | None
"""Text, OpenAI content parts, or None (an assistant message that only calls tools)."""


class MessageState(enum.StrEnum):
    """Where a message is in its life. Only `streaming` changes."""

    COMPLETE = "complete"
    STREAMING = "streaming"
    STOPPED = "stopped"  # by the user
    FAILED = "failed"  # `error` says why


@dataclass(frozen=True)
class StoredMessage:
    """One node. The children of one parent are numbered 0, 1, 2, ... by `position`."""

    id: str
    conversation_id: str
    parent_id: str | None
    position: int
    role: str
    content: Any
    reasoning: str | None
    extra: dict[str, Any] | None
    """Other OpenAI message fields as they came: tool_calls, tool_call_id, name."""
    model: str | None
    sampling: dict[str, Any] | None
    usage: dict[str, Any] | None
    timings: dict[str, float | None] | None
    """first_token_s, duration_s, tokens_per_s."""
    finish_reason: str | None
    error: dict[str, Any] | None
    state: MessageState
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Node:
    """A message without its weight: enough to draw the tree and find siblings."""

    id: str
    parent_id: str | None
    position: int
    role: str
    state: MessageState


class Tree:
    """The tree of one conversation, seen by its owner; to anyone else it does not exist (NotFound)."""

    def __init__(self, store: Store, owner_id: str | None, conversation_id: str) -> None:
        self._store = store
        self._owner_id = owner_id
        self.conversation_id = conversation_id

    def append(
        self,
        parent_id: str | None,
        role: str,
        content: Content,
        *,
        now: datetime,
        state: MessageState = MessageState.COMPLETE,
        reasoning: str | None = None,
        extra: Mapping[str, Any] | None = None,
        model: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        gateway_id: str | None = None,
    ) -> StoredMessage:
        """Add the newest child of a message (None: a first message) and make it the leaf that is shown.

        An answer is appended in state STREAMING, with the id of the gateway's lease; regenerating one is appending to
        the same parent again.
        Raises NotFound, or InvalidRequest for a role or content that no message has.
        """
        check_message(role, content, extra)
        with self._store.write() as connection:
            self._owned(connection, lock=True)
            if parent_id is not None:
                self._one(connection, parent_id)
            num_siblings = connection.execute(
                sa.select(sa.func.count()).where(self._mine, messages.c.parent_id == parent_id)
            ).scalar_one()
            message = StoredMessage(
                id=new_id(now),
                conversation_id=self.conversation_id,
                parent_id=parent_id,
                position=num_siblings,
                role=role,
                content=content,
                reasoning=reasoning,
                extra=dict(extra) if extra else None,
                model=model,
                sampling=dict(sampling) if sampling else None,
                usage=None,
                timings=None,
                finish_reason=None,
                error=None,
                state=state,
                created_at=now,
                updated_at=now,
            )
            insert(connection, [message], gateway_id=gateway_id)
            self._show(connection, message.id, updated_at=now)
        return message

    def edit(self, message_id: str, content: Content, *, now: datetime) -> StoredMessage:
        """Say it differently: a new sibling of the same role, shown now. The old one and what follows it stay."""
        old = self.get(message_id)
        return self.append(old.parent_id, old.role, content, now=now, extra=old.extra)

    def grow(self, message_id: str, content: Content, *, now: datetime, reasoning: str | None = None) -> None:
        """Write the text of a streaming answer as it is now. Raises NotFound when it no longer streams."""
        self._update_streaming(
            message_id, content=content, text_folded=fold(plain_text(content)), reasoning=reasoning, updated_at=now
        )

    def finish(
        self,
        message_id: str,
        content: Content,
        *,
        now: datetime,
        state: MessageState = MessageState.COMPLETE,
        reasoning: str | None = None,
        extra: Mapping[str, Any] | None = None,
        usage: Mapping[str, Any] | None = None,
        timings: Mapping[str, float | None] | None = None,
        finish_reason: str | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """End a streaming answer with everything it came to. Raises NotFound when it no longer streams."""
        assert state is not MessageState.STREAMING and (error is not None) == (state is MessageState.FAILED)
        self._update_streaming(
            message_id,
            content=content,
            text_folded=fold(plain_text(content)),
            reasoning=reasoning,
            extra=dict(extra) if extra else None,
            usage=dict(usage) if usage else None,
            timings=dict(timings) if timings else None,
            finish_reason=finish_reason,
            error=dict(error) if error else None,
            state=state,
            updated_at=now,
        )

    def get(self, message_id: str) -> StoredMessage:
        """One message. Raises NotFound."""
        with self._store.read() as connection:
            self._owned(connection)
            return self._one(connection, message_id)

    def messages(self) -> list[StoredMessage]:
        """Every message, parents before children and siblings in order."""
        with self._store.read() as connection:
            self._owned(connection)
            by_id = {row.id: read(row) for row in connection.execute(SELECT.where(self._mine))}
            return [by_id[node.id] for node in self._nodes(connection)]

    def path(self, leaf_id: str | None = None) -> list[StoredMessage]:
        """The messages from the first to a leaf (by default the one shown), which is what a model is sent."""
        with self._store.read() as connection:
            shown = self._owned(connection)
            leaf_id = leaf_id or shown
            if leaf_id is None:
                return []
            self._one(connection, leaf_id)
            above = sa.select(messages.c.id, messages.c.parent_id, sa.literal(0).label("height"))
            above_cte = above.where(self._mine, messages.c.id == leaf_id).cte("above", recursive=True)
            parents = sa.select(messages.c.id, messages.c.parent_id, above_cte.c.height + 1)
            above_cte = above_cte.union_all(parents.where(self._mine, messages.c.id == above_cte.c.parent_id))
            query = SELECT.join(above_cte, messages.c.id == above_cte.c.id).order_by(above_cte.c.height.desc())
            return [read(row) for row in connection.execute(query)]

    def siblings(self, message_id: str) -> list[str]:
        """Ids of a message and its siblings in order, for `‹ 2/3 ›`."""
        with self._store.read() as connection:
            self._owned(connection)
            parent_id = self._one(connection, message_id).parent_id
            query = sa.select(messages.c.id).where(self._mine, messages.c.parent_id == parent_id)
            return list(connection.execute(query.order_by(messages.c.position)).scalars())

    def nodes(self) -> list[Node]:
        """The shape of the whole tree, parents before children and siblings in order."""
        with self._store.read() as connection:
            self._owned(connection)
            return self._nodes(connection)

    def switch(self, message_id: str) -> str:
        """Show the branch through a message, down to its newest leaf, and return that leaf's id. Raises NotFound."""
        with self._store.write() as connection:
            self._owned(connection, lock=True)
            self._one(connection, message_id)
            newest_child = {node.parent_id: node.id for node in self._nodes(connection)}  # siblings come in order
            leaf_id = message_id
            while leaf_id in newest_child:
                leaf_id = newest_child[leaf_id]
            self._show(connection, leaf_id)
        return leaf_id

    def _owned(self, connection: sa.Connection, *, lock: bool = False) -> str | None:
        """The leaf shown, having checked the owner; `lock` makes other writers of this conversation wait."""
        query = sa.select(conversations.c.leaf_id).where(
            conversations.c.id == self.conversation_id,
            conversations.c.owner_id == self._owner_id,
            conversations.c.deleted_at.is_(None),
        )
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise NotFound(f"no conversation {self.conversation_id!r}")
        leaf_id: str | None = row.leaf_id
        return leaf_id

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return messages.c.conversation_id == self.conversation_id

    def _one(self, connection: sa.Connection, message_id: str) -> StoredMessage:
        row = connection.execute(SELECT.where(self._mine, messages.c.id == message_id)).one_or_none()
        if row is None:
            raise NotFound(f"no message {message_id!r} in conversation {self.conversation_id!r}")
        return read(row)

    def _nodes(self, connection: sa.Connection) -> list[Node]:
        columns = messages.c
        query = sa.select(columns.id, columns.parent_id, columns.position, columns.role, columns.state)
        children: dict[str | None, list[Node]] = {}
        for row in connection.execute(query.where(self._mine).order_by(columns.position.desc())):
            children.setdefault(row.parent_id, []).append(Node(*row[:-1], state=MessageState(row.state)))
        ordered: list[Node] = []
        ahead = children.get(None, [])  # a stack, last sibling at the bottom; recursion would fall over a long chat
        while ahead:
            node = ahead.pop()
            ordered.append(node)
            ahead.extend(children.get(node.id, []))
        return ordered

    def _show(self, connection: sa.Connection, leaf_id: str, **values: Any) -> None:
        shown = conversations.update().where(conversations.c.id == self.conversation_id)
        connection.execute(shown.values(leaf_id=leaf_id, **values))

    def _update_streaming(self, message_id: str, **values: Any) -> None:
        # Deleted conversations included: the answer must be whole if the deletion is undone.
        owned = sa.exists().where(
            conversations.c.id == self.conversation_id, conversations.c.owner_id == self._owner_id
        )
        streaming = messages.update().where(
            self._mine, messages.c.id == message_id, messages.c.state == MessageState.STREAMING, owned
        )
        with self._store.write() as connection:
            if connection.execute(streaming.values(**values)).rowcount != 1:
                raise NotFound(f"no message {message_id!r} that is being written")
            if "state" in values:
                finished = conversations.update().where(conversations.c.id == self.conversation_id)
                connection.execute(finished.values(updated_at=values["updated_at"]))


RESTARTED = {
    "message": "the gateway was restarted while this answer was written",
    "type": "server_error",
    "param": None,
    "code": "gateway_restarted",
    "fix": "ask for the answer again",
}
"""The error of an answer whose gateway went away."""


def fail_abandoned(connection: sa.Connection, *, now: datetime) -> int:
    """Mark as failed the answers that still stream and whose gateway holds no lease; their text stays. How many."""
    holder = sa.exists().where(gateways.c.id == messages.c.gateway_id)
    abandoned = messages.update().where(
        # in full, so that the partial index applies
        messages.c.state == sa.literal_column(f"'{MessageState.STREAMING}'"),
        ~holder,
    )
    return connection.execute(abandoned.values(state=MessageState.FAILED, error=RESTARTED, updated_at=now)).rowcount


def check_message(role: str, content: object, extra: Mapping[str, Any] | None) -> None:
    """Raise InvalidRequest for a role, a content or further fields that no message has."""
    if taken := {"role", "content", "reasoning_content", "chaku"}.intersection(extra or ()):
        raise InvalidRequest(f"{min(taken)!r} is not a further field of a message", param=min(taken))
    if role not in ROLES:
        raise InvalidRequest(f"role {role!r} is not one of {', '.join(ROLES)}", param="role")
    parts = content if isinstance(content, list) else None
    if isinstance(content, str) or (content is None and role == "assistant"):
        return
    if parts is None or not all(isinstance(part, dict) for part in parts):
        raise InvalidRequest(f"content of a {role} message is neither text nor a list of parts", param="content")


def insert(connection: sa.Connection, new: Sequence[StoredMessage], *, gateway_id: str | None = None) -> None:
    """Write messages, parents before children."""
    connection.execute(messages.insert(), [row_of(message, gateway_id) for message in new])


def row_of(message: StoredMessage, gateway_id: str | None = None) -> dict[str, Any]:
    """A message as its table's columns."""
    row = {field.name: getattr(message, field.name) for field in fields(message)}
    return {**row, "text_folded": fold(plain_text(message.content)), "gateway_id": gateway_id}


SELECT = sa.select(*(messages.c[field.name] for field in fields(StoredMessage))).select_from(messages)


def read(row: sa.Row[Any]) -> StoredMessage:
    """A row of SELECT as a StoredMessage."""
    return StoredMessage(**{**row._mapping, "state": MessageState(row.state)})
