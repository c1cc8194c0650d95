"""Answers of Anthropic's Messages API: shapes for the API's description."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class TextAnswer(TypedDict):
    """Text of the model."""

    type: Literal["text"]
    text: str


class ThinkingAnswer(TypedDict):
    """What the model thought before its answer. It is not signed."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseAnswer(TypedDict):
    """A call that the model makes."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(TypedDict):
    """Tokens counted by the engine."""

    input_tokens: int
    """Without cached tokens."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessagesAnswer(TypedDict):
    """Answer of POST /v1/messages."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextAnswer | ThinkingAnswer | ToolUseAnswer]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(TypedDict):
    """One event of a streamed message: message_start, ping, content_block_start, ..., message_stop."""

    type: str


class InputTokens(TypedDict):
    """Answer of POST /v1/messages/count_tokens."""

    input_tokens: int


class MessagesErrorDetail(TypedDict):
    """The error."""

    type: str
    message: str


class MessagesErrorBody(TypedDict):
    """Every refusal and failure of Anthropic's API."""

    type: Literal["error"]
    error: MessagesErrorDetail
