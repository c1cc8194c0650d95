"""The wire of one API: the requests that its clients send, and the shape of their answers, streams and errors.

The pipeline behind a wire knows OpenAI's requests and chunks only. Another API is another wire: it turns its request
into OpenAI's, and OpenAI's answer into its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.errors import body_of, event_of
from chaku.protocol.json_scan import JsonLimits


class Wire(Protocol):
    """One API at one path."""

    @property
    def route(self) -> Route:
        """The kind of work that a request asks for."""

    @property
    def request(self) -> type[BaseModel]:
        """The shape of a request."""

    @property
    def limits(self) -> JsonLimits:
        """The limits on a request's size."""

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The body of a complete answer."""

    def piece(self, block: Block, *, shows_usage: bool) -> bytes:
        """The bytes that a client gets for a block of a stream; may be empty."""

    def error(self, error: ChakuError) -> bytes:
        """The body of a refusal or failure."""

    def error_event(self, error: ChakuError) -> bytes:
        """The last event of a stream that fails after it has begun."""


@dataclass(frozen=True)
class OpenAIWire:
    """OpenAI's API: engines speak it too, so streams pass through as bytes."""

    route: Route
    request: type[BaseModel]
    limits: JsonLimits

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The answer as it is."""
        return orjson.dumps(answer)

    def piece(self, block: Block, *, shows_usage: bool) -> bytes:
        """The block's bytes; token counts only for a client that asked for them."""
        return block.data if shows_usage or not block.is_usage_only else b""

    def error(self, error: ChakuError) -> bytes:
        """OpenAI's error object."""
        return orjson.dumps(body_of(error))

    def error_event(self, error: ChakuError) -> bytes:
        """OpenAI's error object as an event."""
        return event_of(error)
