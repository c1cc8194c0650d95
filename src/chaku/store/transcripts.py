"""Conversations as `messages` JSONL, out and in again without loss.

One line is one path: `{"id", "title", "messages": [...], "chaku": {...}}`, readable by whatever reads `messages`.
A conversation's system prompt is the first of them, and the one without a `chaku` of its own.
With all branches there is one line for each leaf, and the messages that paths share carry the same `chaku.id`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from chaku.errors import InvalidRequest
from chaku.store import conversations, feedback, message_record, tables
from chaku.store.conversations import Conversations, StoredConversation
from chaku.store.database import Store
from chaku.store.feedback import LOCAL_VISITOR, Feedback, FeedbackBook
from chaku.store.ids import new_id
from chaku.store.message_record import MessageState, StoredMessage
from chaku.store.transcript_lines import Line, LineMessage, MessageFacts, has_system_prompt, read_line, write_line

_ROWS_AT_ONCE = 500
"""Rows per transaction of an import."""

MOST_ROWS = 50_000
"""Conversations and messages of one import. Each takes about 2 KB of memory, however short its line is. A file of 8 MiB
that chaku exported has fewer than 30,000."""

_LONGEST_PAUSE_S = 0.1


@dataclass(frozen=True)
class ImportResult:
    """The result of an import. `ignored` counts keys of the lines that chaku does not keep."""

    num_conversations: int
    num_messages: int
    ignored: dict[str, int]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A line that was not taken, and why; lines count from 1."""

    line: int
    reason: str


def export_jsonl(
    store: Store, owner_id: str | None, ids: Iterable[str], *, all_branches: bool = False
) -> Iterator[bytes]:
    """The lines of these conversations: the path shown, or every branch. Raises NotFound."""
    mine = Conversations(store, owner_id)
    for conversation_id in ids:
        conversation = mine.get(conversation_id)
        with store.read() as connection:
            columns = tables.messages.c
            kept = (columns.conversation_id == conversation_id) & columns.deleted_at.is_(None)
            rows = connection.execute(message_record.SELECT.where(kept))
            by_id = {row.id: message_record.read(row) for row in rows}
        # All of it comes from one query: an answer that arrives meanwhile is left out, whole.
        leaves = _leaves(by_id.values())
        thumbs = FeedbackBook(store, owner_id).of(conversation_id)
        shown = conversation.leaf_id if conversation.leaf_id in by_id else None
        for leaf_id in leaves if all_branches and leaves else [shown]:
            yield write_line(conversation, _path(by_id, leaf_id), thumbs, is_shown=leaf_id == shown)


def import_jsonl(
    store: Store, owner_id: str | None, lines: Iterable[str | bytes], *, now: datetime, skips_bad_lines: bool = False
) -> ImportResult:
    """Add the conversations of a JSONL file as this owner's, under new ids; all of them or none.

    Raises InvalidRequest naming the line at fault; with `skips_bad_lines` the result names it instead. More than
    MOST_ROWS conversations and messages are an InvalidRequest in any case. A streaming answer comes back as stopped.
    """
    ignored: Counter[str] = Counter()
    skipped: list[Skipped] | None = [] if skips_bad_lines else None
    branches = list(_branches(lines, owner_id, now, ignored, skipped))  # all of it is read before anything is locked
    _write(store, branches, now)
    num_messages = sum(len(branch.messages) for branch in branches)
    return ImportResult(len(branches), num_messages, dict(ignored), tuple(skipped or ()))


def _write(store: Store, branches: list[_Branch], now: datetime) -> None:
    """Write conversations as deleted ones in short transactions, then show all of them with one statement.

    Others can write between two transactions. If a kill ends the import, nothing of it is ever shown, and it is removed
    with old deletions.
    """
    for begun, rows, thumbs in _in_batches(branches, now):
        began = time.monotonic()
        with store.write() as connection:
            if begun:
                connection.execute(tables.conversations.insert(), begun)
            if rows:
                connection.execute(tables.messages.insert(), rows)
            if thumbs:
                connection.execute(tables.feedback.insert(), thumbs)
        # Those who wait for SQLite's lock only try now and then.
        time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE_S))
    if branches:
        table, ids = tables.conversations, [branch.id for branch in branches]
        owner = table.c.owner_id.is_not_distinct_from(branches[0].owner_id)
        ours = table.c.id.between(min(ids), max(ids)) & owner & (table.c.deleted_at == now)
        with store.write() as connection:
            connection.execute(table.update().where(ours).values(deleted_at=None))


Rows = list[dict[str, Any]]


def _in_batches(branches: list[_Branch], now: datetime) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Rows of conversations, messages (parents before children) and thumbs: what fits into one short transaction."""
    begun: Rows = []
    some: Rows = []
    thumbs: Rows = []
    for branch in branches:
        begun.append(conversations.row_of(replace(branch.conversation(), deleted_at=now)))
        if len(begun) + len(some) + len(thumbs) >= _ROWS_AT_ONCE:
            yield begun, some, thumbs
            begun, some, thumbs = [], [], []
        for message in branch.messages:
            some.append(message_record.row_of(message))
            if (thumb := branch.thumbs.get(message.id)) is not None:
                thumbs.append(feedback.row_of(thumb, branch.id))
            if len(begun) + len(some) + len(thumbs) >= _ROWS_AT_ONCE:
                yield begun, some, thumbs
                begun, some, thumbs = [], [], []
    if begun or some:
        yield begun, some, thumbs


def _leaves(messages: Iterable[StoredMessage]) -> list[str]:
    """Messages without children, in the tree's order (siblings as they are numbered): importing keeps that order."""
    children: dict[str | None, list[StoredMessage]] = {}
    for message in sorted(messages, key=lambda message: message.position, reverse=True):
        children.setdefault(message.parent_id, []).append(message)
    leaves: list[str] = []
    ahead = children.get(None, [])  # a stack, last sibling at the bottom
    while ahead:
        message = ahead.pop()
        below = children.get(message.id, [])
        if not below:
            leaves.append(message.id)
        ahead.extend(below)
    return leaves


def _path(by_id: dict[str, StoredMessage], leaf_id: str | None) -> list[StoredMessage]:
    path = []
    while leaf_id is not None:
        path.append(by_id[leaf_id])
        leaf_id = by_id[leaf_id].parent_id
    return path[::-1]


@dataclass
class _Branch:
    """A conversation being put together from its lines."""

    owner_id: str | None
    line: Line
    now: datetime
    id: str = ""
    leaf_id: str | None = None
    messages: list[StoredMessage] = field(default_factory=list)
    by_old_id: dict[str, StoredMessage] = field(default_factory=dict)
    thumbs: dict[str, Feedback] = field(default_factory=dict)
    num_children: Counter[str | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.id = new_id(self.now)

    def continues_with(self, line: Line) -> bool:
        """Whether a line is another branch of this conversation: only our own exports have those."""
        is_ours = self.line.chaku is not None and line.chaku is not None
        return is_ours and line.id is not None and line.id == self.line.id

    def add(self, line: Line) -> None:
        """Take a line's messages, or none of them where one is at fault."""
        num_before = len(self.messages)
        try:
            self._add(line)
        except InvalidRequest:
            for message in self.messages[num_before:]:
                self.num_children[message.parent_id] -= 1
            self.by_old_id = {old: new for old, new in self.by_old_id.items() if new in self.messages[:num_before]}
            del self.messages[num_before:]
            raise

    def _add(self, line: Line) -> None:
        parent_id: str | None = None
        for item in line.messages[has_system_prompt(line) :]:
            known = self.by_old_id.get(item.chaku.id) if item.chaku else None
            message = known or self._new(item, parent_id)
            if message.parent_id != parent_id:
                raise InvalidRequest(f"message {message.id!r} has two parents", param="messages")
            parent_id = message.id
        if self.leaf_id is None or (line.chaku and line.chaku.is_shown):
            self.leaf_id = parent_id

    def _new(self, item: LineMessage, parent_id: str | None) -> StoredMessage:
        message_record.check_message(item.role, item.content, item.model_extra)
        if not isinstance(item.reasoning_content, str | None):
            raise InvalidRequest("reasoning_content is not text", param="reasoning_content")
        facts = item.chaku or MessageFacts(id=new_id(self.now), created_at=self.now, updated_at=self.now)
        message = StoredMessage(
            conversation_id=self.id,
            parent_id=parent_id,
            position=self.num_children[parent_id],
            role=item.role,
            content=item.content,
            reasoning=item.reasoning_content,
            extra=item.model_extra or None,
            **{
                **{name: value for name, value in facts if name != "feedback"},
                "id": new_id(facts.created_at),
                "state": MessageState.STOPPED if facts.state is MessageState.STREAMING else facts.state,
            },
        )
        self.num_children[parent_id] += 1
        self.by_old_id[facts.id] = message
        self.messages.append(message)
        if facts.feedback is not None and item.role == "assistant":
            visitor = self.owner_id or LOCAL_VISITOR
            self.thumbs[message.id] = Feedback(message_id=message.id, visitor=visitor, **dict(facts.feedback))
        return message

    def conversation(self) -> StoredConversation:
        facts = self.line.chaku
        return StoredConversation(
            id=self.id,
            owner_id=self.owner_id,
            title=conversations.check_title(self.line.title) or ("" if facts else self._own_title()),
            leaf_id=self.leaf_id,
            is_pinned=facts.is_pinned if facts else False,
            created_at=facts.created_at if facts else self.now,
            updated_at=facts.updated_at if facts else self.now,
            system=self.line.messages[0].content if has_system_prompt(self.line) else None,
            model=facts.model if facts else None,
            settings=facts.settings if facts else None,
        )

    def _own_title(self) -> str:
        return next((conversations.title_from(one.content) for one in self.messages if one.role == "user"), "")


def _branches(
    lines: Iterable[str | bytes],
    owner_id: str | None,
    now: datetime,
    ignored: Counter[str],
    skipped: list[Skipped] | None,
) -> Iterator[_Branch]:
    current: _Branch | None = None
    num_rows = 0
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = read_line(text)
            num_rows += 1 + len(line.messages)
            if num_rows > MOST_ROWS:
                break
            if current is not None and current.continues_with(line):
                current.add(line)
            else:
                begun = _Branch(owner_id, line, now)
                begun.add(line)
                if current is not None:
                    yield current
                current = begun
        except InvalidRequest as error:
            if skipped is None:
                raise InvalidRequest(f"line {number}: {error.message}", param=error.param) from None
            skipped.append(Skipped(number, error.message))
        else:
            ignored.update(list(line.model_extra or ()))
    if num_rows > MOST_ROWS:
        raise InvalidRequest(
            f"line {number}: an import takes at most {MOST_ROWS:,} conversations and messages",
            fix="split the file, and import the parts one after the other",
        )
    if current is not None:
        yield current
