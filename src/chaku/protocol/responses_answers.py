"""Answers of OpenAI's Responses API: shapes for the API's description."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class ResponseUsage(TypedDict):
    """Tokens counted by the engine."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class Response(TypedDict):
    """Answer of POST /v1/responses. It repeats the request's settings."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    output: list[dict[str, Any]]
    """Items: message, function_call, reasoning."""
    usage: ResponseUsage | None
    store: Literal[False]


class ResponseEvent(TypedDict):
    """One event of a streamed response."""

    type: str
    sequence_number: int
