"""The page's JSON: what it may send, checked, and what it is shown of what the store has."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, create_model

from chaku.config import ModelName
from chaku.errors import ChakuError, InvalidRequest
from chaku.protocol.messages import Content
from chaku.protocol.openai import ChatRequest
from chaku.store.conversations import Found, ListPlace, StoredConversation
from chaku.store.feedback import Feedback
from chaku.store.folding import fold
from chaku.store.message_record import StoredMessage

MAX_SNIPPET_CHARACTERS = 160

SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "seed", "stop"),
)
_STRICT = ConfigDict(extra="forbid", strict=True)

Settings: Any = create_model(
    "Settings",
    __config__=_STRICT,
    **{name: (ChatRequest.model_fields[name].annotation, ChatRequest.model_fields[name]) for name in SETTINGS},  # type: ignore[call-overload]
)
"""Request parameters that a chat may set, within the API's own limits; what is not given is the model's default."""


class _Shape(BaseModel):
    model_config = _STRICT


class NewChat(_Shape):
    """POST /api/chats."""

    title: str | None = None
    model: ModelName | None = None
    system: str | None = None
    settings: Settings | None = None


class ChangedChat(NewChat):
    """PATCH /api/chats/ID: only what is given changes."""

    pinned: bool | None = None
    leaf_id: str | None = None


class NewMessage(_Shape):
    """POST /api/chats/ID/messages."""

    parent_id: str | None = None
    content: Content
    model: ModelName | None = None
    settings: Settings | None = None
    answer: bool = True


class NewAnswer(_Shape):
    """POST /api/chats/ID/answers."""

    parent_id: str
    model: ModelName
    settings: Settings | None = None


class Continuation(_Shape):
    """POST /api/chats/ID/messages/ID/continue. Without a model the answer's own goes on."""

    model: ModelName | None = None
    settings: Settings | None = None


class Edit(_Shape):
    """POST /api/chats/ID/messages/ID/edit."""

    content: Content


class NewFeedback(_Shape):
    """PUT /api/chats/ID/messages/ID/feedback. The first one of a visitor needs `consent`."""

    value: Literal["up", "down"]
    reasons: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=20)] = []
    consent: bool | None = None


class Login(_Shape):
    """POST /api/login."""

    key: Annotated[str, Field(max_length=1000)]


def plain(content: Any) -> Any:
    """A message's content as the store keeps it."""
    return content if isinstance(content, str) else [part.model_dump(exclude_none=True) for part in content]


def given(settings: BaseModel | None) -> dict[str, Any]:
    """The settings that were set."""
    return settings.model_dump(exclude_none=True) if settings else {}


def dump(content: Any) -> bytes:
    """As JSON."""
    try:
        return orjson.dumps(content)
    except TypeError:  # a lone surrogate, which can be imported and only an escape can carry
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def show_chat(chat: StoredConversation) -> dict[str, Any]:
    """A chat without its messages."""
    return {
        **show_row(chat),
        "system": chat.system,
        "settings": chat.settings or {},
        "leaf_id": chat.leaf_id,
    }


def show_row(chat: StoredConversation) -> dict[str, Any]:
    """A chat in the list."""
    return {
        "id": chat.id,
        "title": chat.title,
        "pinned": chat.is_pinned,
        "model": chat.model,
        "created_at": show_time(chat.created_at),
        "updated_at": show_time(chat.updated_at),
    }


def show_hit(found: Found, query: str) -> dict[str, Any]:
    """A chat that a search found, with the words around the hit where it is in a message."""
    row = show_row(found.conversation)
    if found.text is None:
        return row
    return {**row, "message_id": found.message_id, "snippet": snippet(found.text, query)}


def snippet(text: str, query: str) -> str:
    """A piece of the text with the query in it, on one line."""
    flat = " ".join(text.split())
    # Folding may move the place by a few characters; the piece is wide enough for that.
    at = max(0, fold(flat).find(" ".join(fold(query).split())))
    start = max(0, at - MAX_SNIPPET_CHARACTERS // 3)
    end = start + MAX_SNIPPET_CHARACTERS
    return ("…" if start else "") + flat[start:end] + ("…" if end < len(flat) else "")


def show_message(message: StoredMessage) -> dict[str, Any]:
    """A message."""
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "content": message.content if message.content is not None else "",
        "extra": message.extra or None,
        "reasoning": message.reasoning or None,
        "model": message.model,
        "settings": message.sampling or {},
        "state": str(message.state),
        "finish_reason": message.finish_reason,
        "usage": _show_usage(message.usage),
        "timings": message.timings,
        "error": message.error,
        "created_at": show_time(message.created_at),
    }


def show_feedback(given: Feedback | None) -> dict[str, Any] | None:
    """A visitor's thumb."""
    if given is None:
        return None
    return {
        "value": given.value,
        "reasons": given.reasons,
        "consent": given.consent,
        "created_at": show_time(given.created_at),
    }


def show_message_without_text(message: StoredMessage) -> dict[str, Any]:
    """A message as other tabs hear of it: they fetch the text if they show it."""
    shown = show_message(message)
    del shown["content"], shown["reasoning"]
    return shown


def _show_usage(usage: dict[str, Any] | None) -> dict[str, int] | None:
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": usage.get("prompt_tokens") or 0,
        "completion_tokens": usage.get("completion_tokens") or 0,
        "cached_tokens": details.get("cached_tokens") or 0,
    }


def show_error(error: ChakuError) -> dict[str, Any]:
    """An error in OpenAI's shape, with the way out apart from the cause."""
    return {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
        "fix": error.fix,
    }


def show_time(time: datetime) -> str:
    """ISO 8601 in UTC."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def place_of(chat: StoredConversation) -> ListPlace:
    """The place of a chat in the list."""
    return ListPlace(chat.is_pinned, chat.updated_at, chat.id)


def cursor_after(chat: StoredConversation) -> str:
    """The cursor of the next page."""
    place = [chat.is_pinned, chat.updated_at.isoformat(), chat.id]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def read_cursor(cursor: str) -> ListPlace:
    """The place that `cursor_after` wrote into a cursor. Raises InvalidRequest."""
    try:
        is_pinned, updated_at, chat_id = json.loads(base64.urlsafe_b64decode(cursor))
        if not re.fullmatch(r"[0-9a-f-]{36}", chat_id):
            raise ValueError("not an id")
        return ListPlace(bool(is_pinned), datetime.fromisoformat(updated_at).astimezone(UTC), chat_id)
    except (ValueError, TypeError, OverflowError, RecursionError):  # whatever a stranger may write
        raise InvalidRequest(
            f"{cursor[:40]!r} is not a place in the list of chats", fix="take `next` of the page before", param="before"
        ) from None
