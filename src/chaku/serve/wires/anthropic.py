"""Anthropic's Messages API: its requests as OpenAI's chats, and the answers as messages or their events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.answers import choices_of, chunks_of
from chaku.protocol.anthropic import CountTokensRequest, MessagesRequest
from chaku.protocol.deltas import Delta, TokenUsage, ToolCallPart, delta_of_choice, read_usage
from chaku.protocol.validation import ReadRequest
from chaku.serve.body import CHAT_LIMITS
from chaku.serve.wires.anthropic_requests import chat_body
from chaku.serve.wires.base import EVENT_STREAM, Headers, Translation, arguments_of, prompt_tokens_of, renamed

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_FIELD_NAMES = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "continue_final_message": "a last message of the assistant",
}
"""OpenAI's names of fields, as errors of the pipeline say them, and Anthropic's."""
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def error_body(error: ChakuError) -> bytes:
    """Anthropic's error object; the message names fields as Anthropic does."""
    kind = _ERROR_TYPES.get(error.http_status, "invalid_request_error" if error.http_status < 500 else "api_error")
    name = _FIELD_NAMES.get(error.param or "")
    message = str(error) if name is None else renamed(error, name)
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


class MessagesWire:
    """POST /v1/messages."""

    route: Route = "chat"
    request = MessagesRequest
    limits = CHAT_LIMITS

    def translate(self, request: ReadRequest[MessagesRequest], headers: Headers) -> Translation:
        """The request as a chat."""
        return _Message(chat_body(request.body), bool(request.typed.stream), request.notes)

    def error(self, error: ChakuError) -> bytes:
        """Anthropic's error object."""
        return error_body(error)


class CountTokensWire:
    """POST /v1/messages/count_tokens: the model reads the prompt and writes one token, which counts exactly."""

    route: Route = "chat"
    request = CountTokensRequest
    limits = CHAT_LIMITS

    def translate(self, request: ReadRequest[CountTokensRequest], headers: Headers) -> Translation:
        """The request as a chat of one token."""
        return _Count(chat_body(request.body) | {"max_tokens": 1}, False, request.notes)

    def error(self, error: ChakuError) -> bytes:
        """Anthropic's error object."""
        return error_body(error)


@dataclass
class _Count:
    """The number of tokens of a prompt."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    route: ClassVar[Route] = "chat"
    media_type = EVENT_STREAM

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The count, of which cached tokens are a part."""
        return orjson.dumps({"input_tokens": prompt_tokens_of(answer)})

    def piece(self, block: Block) -> bytes:
        """A count is never streamed."""
        raise AssertionError("a count is not a stream")

    def error_event(self, error: ChakuError) -> bytes:
        """A count is never streamed."""
        raise AssertionError("a count is not a stream")


@dataclass
class _Message:
    """One message, whole or as events."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    route: ClassVar[Route] = "chat"
    media_type = EVENT_STREAM
    _open: dict[str, int] = field(default_factory=dict)
    """Numbers of the blocks that are not closed, by what they hold: text, thinking or a call."""
    _num_blocks: int = 0
    _finish_reason: str | None = None
    _stop_sequence: str | None = None
    _usage: TokenUsage | None = None
    _is_begun: bool = False

    def whole(self, answer: dict[str, Any]) -> bytes:
        """A message object. Raises EngineError for a call that the model ended with arguments that are not JSON."""
        choice = answer["choices"][0]
        delta = delta_of_choice(choice, choice["message"], answer.get("usage"))
        self._note(delta)
        content: list[dict[str, Any]] = []
        if delta.reasoning:
            content.append({"type": "thinking", "thinking": delta.reasoning, "signature": ""})
        if text := delta.text or delta.refusal:
            content.append({"type": "text", "text": text})
        for call in delta.tool_calls:
            arguments = arguments_of(call, delta.finish_reason)
            # A call that was cut off stays, without input: Anthropic's clients find it beside the stop reason.
            content.append(_tool_use(call, {} if arguments is None else arguments))
        return orjson.dumps(_head(answer) | {"content": content, **self._ending(), "usage": _counts(self._usage)})

    def piece(self, block: Block) -> bytes:
        """The events that a block adds."""
        return b"".join(_event(event) for event in self._events(block))

    def error_event(self, error: ChakuError) -> bytes:
        """Anthropic's error event."""
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _events(self, block: Block) -> Iterator[dict[str, Any]]:
        for chunk in chunks_of(block.data):
            if not self._is_begun:
                self._is_begun = True
                message = _head(chunk) | {"content": [], "stop_reason": None, "stop_sequence": None}
                yield {"type": "message_start", "message": message | {"usage": _counts(None)}}
                yield {"type": "ping"}
            self._usage = read_usage(chunk.get("usage")) or self._usage
            for choice in choices_of(chunk):
                delta = delta_of_choice(choice, choice.get("delta") or {}, None)
                self._note(delta)
                yield from self._deltas(delta)
        if block.is_last:
            yield from self._close(*self._open)
            yield {"type": "message_delta", "delta": self._ending(), "usage": _counts(self._usage)}
            yield {"type": "message_stop"}

    def _note(self, delta: Delta) -> None:
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._stop_sequence = delta.stop_sequence or self._stop_sequence
        self._usage = delta.usage or self._usage
        if delta.refusal:
            self._finish_reason = "content_filter"

    def _deltas(self, delta: Delta) -> Iterator[dict[str, Any]]:
        if delta.reasoning:
            yield from self._add("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta("thinking", {"type": "thinking_delta", "thinking": delta.reasoning})
        if text := delta.text or delta.refusal:
            yield from self._add("text", {"type": "text", "text": ""})
            yield self._delta("text", {"type": "text_delta", "text": text})
        for call in delta.tool_calls:
            kind = f"call {call.index}"
            yield from self._add(kind, _tool_use(call, {}))
            if call.arguments:
                yield self._delta(kind, {"type": "input_json_delta", "partial_json": call.arguments})

    def _add(self, kind: str, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Open a block of this kind unless it is open. Calls stay open to the end: their pieces may alternate."""
        if kind in self._open:
            return
        yield from self._close(*(self._open.keys() & {"text", "thinking"}))
        self._open[kind] = self._num_blocks
        self._num_blocks += 1
        yield {"type": "content_block_start", "index": self._open[kind], "content_block": block}

    def _close(self, *kinds: str) -> Iterator[dict[str, Any]]:
        for kind in kinds:
            yield {"type": "content_block_stop", "index": self._open.pop(kind)}

    def _delta(self, kind: str, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._open[kind], "delta": delta}

    def _ending(self) -> dict[str, Any]:
        """Why the message ends. A context that is full before `max_tokens` has a reason of its own."""
        if self._finish_reason == "stop" and self._stop_sequence in self.body.get("stop", ()):
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop_sequence}
        reason = None if self._finish_reason is None else _STOP_REASONS.get(self._finish_reason, self._finish_reason)
        written = self._usage.completion_tokens if self._usage else self.body["max_tokens"]
        if reason == "max_tokens" and written < self.body["max_tokens"]:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": None}


def _head(answer: dict[str, Any]) -> dict[str, Any]:
    number = answer["id"].rpartition("-")[2]
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": answer["model"]}


def _tool_use(call: ToolCallPart, arguments: Mapping[str, Any] | orjson.Fragment) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _counts(usage: TokenUsage | None) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the other input."""
    usage = usage or TokenUsage(0, 0)
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\n".encode() + b"data: " + orjson.dumps(event) + b"\n\n"
