"""OpenAI's API: engines speak it too, so streams pass through as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError, InvalidRequest
from chaku.protocol.errors import body_of, event_of
from chaku.protocol.json_scan import JsonLimits
from chaku.protocol.requests import Request
from chaku.protocol.validation import ReadRequest
from chaku.serve.wires.base import EVENT_STREAM, Headers, Translation


@dataclass(frozen=True)
class OpenAIWire:
    """Chat completions, completions or embeddings."""

    route: Route
    request: type[Request]
    limits: JsonLimits

    def translate(self, request: ReadRequest[Any], headers: Headers) -> Translation:
        """The request as it is. Raises InvalidRequest for options of a stream where none is asked for."""
        options = getattr(request.typed, "stream_options", None)
        is_stream = bool(getattr(request.typed, "stream", None))
        if options is not None and not is_stream:
            raise InvalidRequest("stream_options needs stream: true", param="stream_options")
        return PassedThrough(
            request.body, is_stream, request.notes, bool(options and options.include_usage), self.route
        )

    def error(self, error: ChakuError) -> bytes:
        """OpenAI's error object."""
        return orjson.dumps(body_of(error))


@dataclass
class PassedThrough:
    """A request and an answer that need no translation."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    shows_usage: bool
    """Whether the client asked for the token counts of a stream."""
    route: Route = "chat"
    media_type = EVENT_STREAM

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The answer as it is."""
        return orjson.dumps(answer)

    def piece(self, block: Block) -> bytes:
        """The block's bytes; token counts only for a client that asked for them."""
        return block.data if self.shows_usage or not block.is_usage_only else b""

    def error_event(self, error: ChakuError) -> bytes:
        """OpenAI's error object as an event."""
        return event_of(error)
