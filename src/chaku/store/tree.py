"""The messages of one conversation, as a tree: editing and regenerating add siblings, nothing is overwritten.

An answer under way is a message in state `streaming` that grows until it is finished; it can be continued after that.
A deleted message is out of sight with all that follows it, and can be restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.store.database import Store
from chaku.store.folding import fold, plain_text
from chaku.store.ids import new_id
from chaku.store.message_record import (
    EDITED,
    SELECT,
    Content,
    MessageState,
    Node,
    StoredMessage,
    check_message,
    insert,
    read,
    row_of,
)
from chaku.store.tables import conversations, messages


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
        finish_reason: str | None = None,
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
                finish_reason=finish_reason,
                error=None,
                state=state,
                created_at=now,
                updated_at=now,
            )
            insert(connection, [message], gateway_id=gateway_id)
            self._show(connection, message.id, updated_at=now)
        return message

    def edit(self, message_id: str, content: Content, *, now: datetime) -> StoredMessage:
        """Say it differently: a new sibling of the same role, shown now. The old one and what follows it stay.

        An answer's new version keeps the model's name and has finish_reason EDITED.
        """
        old = self.get(message_id)
        finish_reason = EDITED if old.role == "assistant" else None
        return self.append(
            old.parent_id, old.role, content, now=now, extra=old.extra, model=old.model, finish_reason=finish_reason
        )

    def resume(
        self, message_id: str, *, now: datetime, model: str | None, sampling: Mapping[str, Any], gateway_id: str
    ) -> StoredMessage:
        """Let an answer that was cut off stream again, and return it; `grow` and `finish` take its whole text.

        Raises NotFound, or InvalidRequest for a message that can't be continued, and says why.
        """
        with self._store.write() as connection:
            self._owned(connection, lock=True)
            old = self._one(connection, message_id)
            has_replies = sa.select(sa.literal(1)).where(self._live, messages.c.parent_id == message_id)
            if why := _why_whole(old) or (
                "other messages follow it" if connection.execute(has_replies.limit(1)).first() else ""
            ):
                raise InvalidRequest(f"message {message_id!r} can't be continued: {why}", param="message")
            resumed = replace(
                old,
                model=model or old.model,
                sampling=dict(sampling) or None,
                state=MessageState.STREAMING,
                finish_reason=None,
                error=None,
                updated_at=now,
            )
            row = messages.update().where(self._mine, messages.c.id == message_id)
            connection.execute(row.values(**row_of(resumed, gateway_id)))
            self._show(connection, message_id, updated_at=now)
        return resumed

    def delete(self, message_id: str, *, now: datetime) -> list[str]:
        """Put a message and all that follows it out of sight, on every branch; the ids of what went.

        Where that was shown, the newest of its siblings is shown, or else its parent. Raises NotFound, or
        InvalidRequest while an answer among them is being written.
        """
        with self._store.write() as connection:
            shown = self._owned(connection, lock=True)
            message = self._one(connection, message_id)
            gone = self._below(connection, message_id)
            if any(node.state is MessageState.STREAMING for node in gone):
                raise InvalidRequest("an answer there is being written", fix="stop it first", param="message")
            ids = [node.id for node in gone]
            self._mark(connection, message_id, before=None, after=now)
            if shown in set(ids):
                siblings = [node.id for node in self._nodes(connection) if node.parent_id == message.parent_id]
                self._show(connection, self._newest_leaf(connection, siblings[-1]) if siblings else message.parent_id)
        return ids

    def restore(self, message_id: str) -> None:
        """Undo `delete` of this message, and show it. Raises NotFound where it is not deleted or its parent is."""
        with self._store.write() as connection:
            self._owned(connection, lock=True)
            query = sa.select(messages.c.parent_id, messages.c.deleted_at).where(
                self._mine, messages.c.id == message_id, messages.c.deleted_at.is_not(None)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound(f"no deleted message {message_id!r} in conversation {self.conversation_id!r}")
            if row.parent_id is not None:
                self._one(connection, row.parent_id)
            self._mark(connection, message_id, before=row.deleted_at, after=None)
            self._show(connection, self._newest_leaf(connection, message_id))

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
            by_id = {row.id: read(row) for row in connection.execute(SELECT.where(self._live))}
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
            query = sa.select(messages.c.id).where(self._live, messages.c.parent_id == parent_id)
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
            leaf_id = self._newest_leaf(connection, message_id)
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

    @property
    def _live(self) -> sa.ColumnElement[bool]:
        return self._mine & messages.c.deleted_at.is_(None)

    def _one(self, connection: sa.Connection, message_id: str) -> StoredMessage:
        row = connection.execute(SELECT.where(self._live, messages.c.id == message_id)).one_or_none()
        if row is None:
            raise NotFound(f"no message {message_id!r} in conversation {self.conversation_id!r}")
        return read(row)

    def _nodes(self, connection: sa.Connection) -> list[Node]:
        columns = messages.c
        query = sa.select(columns.id, columns.parent_id, columns.position, columns.role, columns.state)
        children: dict[str | None, list[Node]] = {}
        for row in connection.execute(query.where(self._live).order_by(columns.position.desc())):
            children.setdefault(row.parent_id, []).append(Node(*row[:-1], state=MessageState(row.state)))
        ordered: list[Node] = []
        ahead = children.get(None, [])  # a stack, last sibling at the bottom; recursion would fall over a long chat
        while ahead:
            node = ahead.pop()
            ordered.append(node)
            ahead.extend(children.get(node.id, []))
        return ordered

    def _below(self, connection: sa.Connection, message_id: str) -> list[Node]:
        """A message and all that follows it."""
        nodes, below = [], {message_id}
        for node in self._nodes(connection):  # parents come before children
            if node.id in below or node.parent_id in below:
                below.add(node.id)
                nodes.append(node)
        return nodes

    def _mark(
        self, connection: sa.Connection, message_id: str, *, before: datetime | None, after: datetime | None
    ) -> None:
        """Set `deleted_at` of a message and of all that follows it and had the same."""
        is_same = self._mine & messages.c.deleted_at.is_not_distinct_from(before)
        below = sa.select(messages.c.id).where(is_same, messages.c.id == message_id).cte("below", recursive=True)
        children = sa.select(messages.c.id).where(is_same, messages.c.parent_id == below.c.id)
        below = below.union_all(children)
        marked = messages.update().where(self._mine, messages.c.id.in_(sa.select(below.c.id)))
        connection.execute(marked.values(deleted_at=after))

    def _newest_leaf(self, connection: sa.Connection, message_id: str) -> str:
        newest_child = {node.parent_id: node.id for node in self._nodes(connection)}  # siblings come in order
        while message_id in newest_child:
            message_id = newest_child[message_id]
        return message_id

    def _show(self, connection: sa.Connection, leaf_id: str | None, **values: Any) -> None:
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


def _why_whole(message: StoredMessage) -> str:
    """Why there is nothing to continue, "" where there is."""
    if message.role != "assistant":
        return f"it is the {message.role}'s"
    if message.state is MessageState.STREAMING:
        return "it is still being written"
    if message.state is MessageState.COMPLETE and message.finish_reason != "length":
        return "it ended by itself"
    if not isinstance(message.content, str) or not message.content or (message.extra or {}).get("tool_calls"):
        return "it has no text to go on from"
    return ""
