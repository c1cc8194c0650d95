"""One line of a conversation file: its shape, checked where it is read and written alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from chaku.errors import InvalidRequest
from chaku.store import conversations
from chaku.store.conversations import StoredConversation
from chaku.store.feedback import Feedback
from chaku.store.message_record import MessageState, StoredMessage

MAX_NAME_LENGTH = 256


def _check_moment(moment: datetime) -> datetime:
    if not 1970 <= moment.year <= 9000:
        raise ValueError("a time outside the years 1970 to 9000")
    return moment


def _check_name(text: str) -> str:
    if not text.isprintable() or len(text) > MAX_NAME_LENGTH:
        raise ValueError(f"not {MAX_NAME_LENGTH} printable characters at most")
    return text


_Moment = Annotated[AwareDatetime, AfterValidator(_check_moment)]
_Name = Annotated[str, AfterValidator(_check_name)]
"""Goes into a text column: PostgreSQL takes no NUL there."""


class FeedbackFacts(BaseModel):
    """A thumb, as a line keeps it."""

    model_config = ConfigDict(extra="forbid")

    value: Literal["up", "down"]
    reasons: list[str]
    consent: bool
    created_at: _Moment


class MessageFacts(BaseModel):
    """What chaku keeps of a message beside its text; the `chaku` of a message."""

    model_config = ConfigDict(extra="forbid")

    id: str
    model: _Name | None = None
    sampling: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, float | None] | None = None
    finish_reason: _Name | None = None
    error: dict[str, Any] | None = None
    state: MessageState = MessageState.COMPLETE
    created_at: _Moment
    updated_at: _Moment
    feedback: FeedbackFacts | None = None


class LineMessage(BaseModel):
    """One message of the path."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: Any = None  # checked by check_message; as Any, for pydantic's str refuses a lone surrogate
    reasoning_content: Any = None
    chaku: MessageFacts | None = None


class LineFacts(BaseModel):
    """What chaku keeps of a conversation; the `chaku` of a line."""

    model_config = ConfigDict(extra="forbid")

    is_pinned: bool
    is_shown: bool
    model: _Name | None = None
    settings: dict[str, Any] | None = None
    created_at: _Moment
    updated_at: _Moment


class Line(BaseModel):
    """One path through a conversation."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    title: str = ""
    messages: list[LineMessage]
    chaku: LineFacts | None = None


def has_system_prompt(line: Line) -> bool:
    """Whether the first message is a system prompt, ours or a stranger's, and not a node of a tree."""
    first = line.messages[0] if line.messages else None
    return first is not None and first.role == "system" and first.chaku is None and isinstance(first.content, str)


def read_line(text: str | bytes) -> Line:
    """One line's JSON, in shape. Raises InvalidRequest."""
    try:
        line = Line.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{where}: {first['msg']}", param=where) from None
    except ValueError as error:
        raise InvalidRequest(f"not JSON ({error})") from None
    conversations.check_title(line.title)
    return line


def write_line(
    conversation: StoredConversation, path: list[StoredMessage], thumbs: Mapping[str, Feedback], *, is_shown: bool
) -> bytes:
    """One path as a line of JSON. `thumbs` are by message id; `is_shown` marks the path that the page shows."""
    facts = LineFacts(
        is_pinned=conversation.is_pinned,
        is_shown=is_shown,
        model=conversation.model,
        settings=conversation.settings,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
    )
    line = {
        "id": conversation.id,
        "title": conversation.title,
        "messages": [
            *([] if conversation.system is None else [{"role": "system", "content": conversation.system}]),
            *(_write_message(message, thumbs.get(message.id)) for message in path),
        ],
        "chaku": facts.model_dump(mode="json", exclude_none=True),
    }
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(line).encode() + b"\n"


def _write_message(message: StoredMessage, thumb: Feedback | None) -> dict[str, Any]:
    fields = MessageFacts.model_fields.keys() - {"feedback"}
    facts = MessageFacts.model_validate({name: getattr(message, name) for name in fields})
    if thumb is not None:
        facts.feedback = FeedbackFacts.model_validate(
            {name: getattr(thumb, name) for name in FeedbackFacts.model_fields}
        )
    reasoning = {} if message.reasoning is None else {"reasoning_content": message.reasoning}
    return {
        "role": message.role,
        "content": message.content,
        **reasoning,
        **(message.extra or {}),
        "chaku": facts.model_dump(mode="json", exclude_none=True),
    }
