"""The seam between the gateway and an API: the requests that its clients send, and the shape of what they get.

The pipeline behind a wire knows OpenAI's requests and chunks only. Another API is another wire: it translates its
request to OpenAI's, and OpenAI's answer back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError, EngineError
from chaku.protocol.deltas import ToolCallPart, read_usage
from chaku.protocol.json_scan import JsonLimits
from chaku.protocol.requests import Request
from chaku.protocol.validation import ReadRequest

Headers = Mapping[bytes, bytes]
EVENT_STREAM = b"text/event-stream; charset=utf-8"
"""Content-Type of server-sent events."""
_CUT_OFF = ("length", "content_filter")
"""Finish reasons of answers that the model did not end itself."""


class Translation(Protocol):
    """One request in OpenAI's words, and its answer in the words of the API that the client speaks."""

    body: dict[str, Any]
    """The request as OpenAI's JSON. Without `model` the gateway takes the only model, or the one of --score-model."""
    is_stream: bool

    @property
    def route(self) -> Route:
        """The kind of work that this request asks for."""

    notes: tuple[str, ...]
    """Notes for the caller on how the request was treated: short ASCII phrases."""
    media_type: bytes
    """Content-Type of a stream."""

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The body of a complete answer."""

    def piece(self, block: Block) -> bytes:
        """The bytes that the client gets for a block of a stream; may be empty."""

    def error_event(self, error: ChakuError) -> bytes:
        """The last bytes of a stream that fails after it has begun."""


class Wire(Protocol):
    """One API at one path."""

    @property
    def route(self) -> Route:
        """The kind of work that a request asks for."""

    @property
    def request(self) -> type[Request]:
        """The shape of a request."""

    @property
    def limits(self) -> JsonLimits:
        """The limits on a request's size."""

    def translate(self, request: ReadRequest[Any], headers: Headers) -> Translation:
        """A request that fits its shape, in OpenAI's words. Raises InvalidRequest."""

    def error(self, error: ChakuError) -> bytes:
        """The body of a refusal or failure."""


def renamed(error: ChakuError, name: str) -> str:
    """The error's message with another name for the field at fault."""
    return re.sub(rf"\b{re.escape(error.param or '')}\b", name, str(error))


def prompt_tokens_of(answer: dict[str, Any]) -> int:
    """The prompt's tokens, where a client asks for their number. Raises EngineError where nobody counted them."""
    counted = read_usage(answer.get("usage"))
    if counted is None:
        raise EngineError("the engine did not count the tokens of the prompt")
    return counted.prompt_tokens


def arguments_of(call: ToolCallPart, finish_reason: str | None) -> orjson.Fragment | None:
    """The arguments of a call, on one line, for orjson: every number stays as the model wrote it.

    None if the answer was cut off before they were complete. Raises EngineError if the model ended the call, and they
    are not a JSON object.
    """
    was_cut_off = finish_reason in _CUT_OFF
    text = call.arguments or ("" if was_cut_off else "{}")
    try:
        is_object = isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        if was_cut_off:
            return None
        raise EngineError(f"the model's call of {call.name} has arguments that are not a JSON object", fix="ask again")
    return orjson.Fragment(text.replace("\n", " ").replace("\r", " "))  # JSON has line ends between its values alone
