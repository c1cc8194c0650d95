"""One message of a conversation: its record, its states, and its row in the table."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chaku.errors import InvalidRequest
from chaku.store.folding import fold, plain_text
from chaku.store.tables import messages

ROLES = ("system", "developer", "user", "assistant", "tool")

Content = str | list[dict[str, Any]] | None
"""Text, OpenAI content parts, or None (an assistant message that only calls tools)."""


class MessageState(enum.StrEnum):
    """Where a message is in its life. Only `streaming` grows; a continued answer streams again."""

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


EDITED = "edited"
"""The finish_reason of an answer that a person has rewritten."""


@dataclass(frozen=True)
class Node:
    """A message without its weight: enough to draw the tree and find siblings."""

    id: str
    parent_id: str | None
    position: int
    role: str
    state: MessageState


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
