"""Conversations as `messages` JSONL, out and in again without loss.

One line is one path: `{"id", "title", "messages": [...], "chaku": {...}}`, readable by whatever reads `messages`.
With all branches there is one line for each leaf, and the messages that paths share carry the same `chaku.id`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from chaku.errors import ChakuError, InvalidRequest
from chaku.store import conversations, tables, tree
from chaku.store.conversations import Conversation, Conversations
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tree import Message, State


@dataclass(frozen=True)
class Imported:
    """What an import brought; `ignored` counts the lines' keys that have no place here."""

    num_conversations: int
    num_messages: int
    ignored: dict[str, int]


class _MessageFacts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    model: str | None = None
    sampling: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    state: State = State.COMPLETE
    created_at: AwareDatetime
    updated_at: AwareDatetime


class _LineMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: str
    content: Any = None  # checked by check_message; as Any, for pydantic's str refuses a lone surrogate
    reasoning_content: Any = None
    chaku: _MessageFacts | None = None


class _LineFacts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    is_pinned: bool
    is_shown: bool
    created_at: AwareDatetime
    updated_at: AwareDatetime


class _Line(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str | None = None
    title: str = ""
    messages: list[_LineMessage]
    chaku: _LineFacts | None = None


def export_jsonl(
    store: Store, owner_id: str | None, ids: Iterable[str], *, all_branches: bool = False
) -> Iterator[bytes]:
    """The lines of these conversations: the path shown, or every branch. Raises NotFound."""
    mine = Conversations(store, owner_id)
    for conversation_id in ids:
        conversation = mine.get(conversation_id)
        with store.read() as connection:
            rows = connection.execute(tree.SELECT.where(tables.messages.c.conversation_id == conversation_id))
            by_id = {row.id: tree.read(row) for row in rows}
        parents = {message.parent_id for message in by_id.values()}
        # mine.tree orders parents before children and siblings as they are numbered: importing keeps that order.
        leaves = [node.id for node in mine.tree(conversation_id).nodes() if node.id not in parents]
        shown = conversation.leaf_id
        for leaf_id in leaves if all_branches and leaves else [shown]:
            yield _write_line(conversation, _path(by_id, leaf_id), is_shown=leaf_id == shown)


def import_jsonl(store: Store, owner_id: str | None, lines: Iterable[str | bytes], *, now: datetime) -> Imported:
    """Add the conversations of a JSONL file as this owner's, under new ids; all of them or none.

    Raises InvalidRequest naming the line at fault. An answer that was streaming comes back as stopped.
    """
    ignored: Counter[str] = Counter()
    num_conversations = num_messages = 0
    with store.write() as connection:
        for branch in _branches(lines, owner_id, now, ignored):
            conversations.insert(connection, branch.conversation())
            if branch.messages:
                tree.insert(connection, branch.messages)
            num_conversations += 1
            num_messages += len(branch.messages)
    return Imported(num_conversations, num_messages, dict(ignored))


def _path(by_id: dict[str, Message], leaf_id: str | None) -> list[Message]:
    path = []
    while leaf_id is not None:
        path.append(by_id[leaf_id])
        leaf_id = by_id[leaf_id].parent_id
    return path[::-1]


def _write_line(conversation: Conversation, path: list[Message], *, is_shown: bool) -> bytes:
    facts = _LineFacts(
        is_pinned=conversation.is_pinned,
        is_shown=is_shown,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
    )
    line = {
        "id": conversation.id,
        "title": conversation.title,
        "messages": [_write_message(message) for message in path],
        "chaku": facts.model_dump(mode="json"),
    }
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(line).encode() + b"\n"


def _write_message(message: Message) -> dict[str, Any]:
    facts = _MessageFacts.model_validate({name: getattr(message, name) for name in _MessageFacts.model_fields})
    reasoning = {} if message.reasoning is None else {"reasoning_content": message.reasoning}
    return {
        "role": message.role,
        "content": message.content,
        **reasoning,
        **(message.extra or {}),
        "chaku": facts.model_dump(mode="json", exclude_none=True),
    }


@dataclass
class _Branch:
    """A conversation being put together from its lines."""

    owner_id: str | None
    line: _Line
    now: datetime
    id: str = ""
    leaf_id: str | None = None
    messages: list[Message] = field(default_factory=list)
    by_old_id: dict[str, Message] = field(default_factory=dict)
    num_children: Counter[str | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.id = new_id(self.now)

    def continues_with(self, line: _Line) -> bool:
        """Whether a line is another branch of this conversation: only our own exports have those."""
        return self.line.chaku is not None and line.chaku is not None and line.id == self.line.id

    def add(self, line: _Line) -> None:
        parent_id: str | None = None
        for item in line.messages:
            known = self.by_old_id.get(item.chaku.id) if item.chaku else None
            message = known or self._new(item, parent_id)
            if message.parent_id != parent_id:
                raise InvalidRequest(f"message {message.id!r} has two parents", param="messages")
            parent_id = message.id
        if self.leaf_id is None or (line.chaku and line.chaku.is_shown):
            self.leaf_id = parent_id

    def _new(self, item: _LineMessage, parent_id: str | None) -> Message:
        tree.check_message(item.role, item.content, item.model_extra)
        if not isinstance(item.reasoning_content, str | None):
            raise InvalidRequest("reasoning_content is not text", param="reasoning_content")
        facts = item.chaku or _MessageFacts(id=new_id(self.now), created_at=self.now, updated_at=self.now)
        message = Message(
            conversation_id=self.id,
            parent_id=parent_id,
            position=self.num_children[parent_id],
            role=item.role,
            content=item.content,
            reasoning=item.reasoning_content,
            extra=item.model_extra or None,
            **{
                **dict(facts),
                "id": new_id(facts.created_at),
                "state": State.STOPPED if facts.state is State.STREAMING else facts.state,
            },
        )
        self.num_children[parent_id] += 1
        self.by_old_id[facts.id] = message
        self.messages.append(message)
        return message

    def conversation(self) -> Conversation:
        facts = self.line.chaku
        return Conversation(
            id=self.id,
            owner_id=self.owner_id,
            title=conversations.check_title(self.line.title),
            leaf_id=self.leaf_id,
            is_pinned=facts.is_pinned if facts else False,
            created_at=facts.created_at if facts else self.now,
            updated_at=facts.updated_at if facts else self.now,
        )


def _branches(
    lines: Iterable[str | bytes], owner_id: str | None, now: datetime, ignored: Counter[str]
) -> Iterator[_Branch]:
    current: _Branch | None = None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate(json.loads(text))
            conversations.check_title(line.title)
            if current is None or not current.continues_with(line):
                if current is not None:
                    yield current
                current = _Branch(owner_id, line, now)
            current.add(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"line {number}: {where}: {first['msg']}", param=where) from None
        except (ValueError, InvalidRequest) as error:
            cause = error.message if isinstance(error, ChakuError) else f"not JSON ({error})"
            raise InvalidRequest(f"line {number}: {cause}") from None
        ignored.update(list(line.model_extra or ()))
    if current is not None:
        yield current
