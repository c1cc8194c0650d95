"""OpenAI's Responses API, without its memory: answers as response objects, or as their events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.answers import choices_of, chunks_of
from chaku.protocol.deltas import Delta, TokenUsage, delta_of_choice, read_usage
from chaku.protocol.errors import body_of
from chaku.protocol.responses import ResponsesRequest
from chaku.protocol.validation import ReadRequest
from chaku.serve.body import CHAT_LIMITS
from chaku.serve.wires.base import EVENT_STREAM, Headers, Translation, renamed
from chaku.serve.wires.responses_requests import chat_body

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}
"""Fields of a request that its response repeats, and what they say where they were left out."""
_FIELD_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
"""Names of fields in chat completions, as errors of the pipeline say them, and in this API."""


class ResponsesWire:
    """POST /v1/responses."""

    route: Route = "chat"
    request = ResponsesRequest
    limits = CHAT_LIMITS

    def translate(self, request: ReadRequest[ResponsesRequest], headers: Headers) -> Translation:
        """The request as a chat."""
        asked = request.body
        notes = (*request.notes, *(("include: thoughts come in plain text",) if asked.get("include") else ()))
        return _Response(chat_body(asked), bool(request.typed.stream), notes, asked)

    def error(self, error: ChakuError) -> bytes:
        """OpenAI's error object; it names fields as this API does."""
        name = _FIELD_NAMES.get(error.param or "")
        body = body_of(error)
        if name is not None:
            body["error"] |= {"param": name, "message": renamed(error, name)}
        return orjson.dumps(body)


@dataclass
class _Response:
    """One response, whole or as events."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    asked: dict[str, Any]
    """The request, as far as the response repeats it."""
    route: ClassVar[Route] = "chat"
    media_type = EVENT_STREAM
    _output: list[dict[str, Any]] = field(default_factory=list)
    _open: dict[str, int] = field(default_factory=dict)
    """Indices of the items that are not closed, by what they hold: text, refusal, thoughts or a call."""
    _head: dict[str, Any] = field(default_factory=dict)
    _number: str = ""
    _finish_reason: str | None = None
    _usage: TokenUsage | None = None
    _num_events: int = 0

    def whole(self, answer: dict[str, Any]) -> bytes:
        """A response object."""
        self._begin(answer)
        choice = answer["choices"][0]
        self._usage = read_usage(answer.get("usage"))
        for _ in self._take(delta_of_choice(choice, choice["message"], None)):
            pass  # a whole answer is what its events add up to
        for _ in self._close(*self._open):
            pass
        return orjson.dumps(self._response(self._status()))

    def piece(self, block: Block) -> bytes:
        """The events that a block adds."""
        return b"".join(self._event(event) for event in self._events(block))

    def error_event(self, error: ChakuError) -> bytes:
        """The event of a response that failed."""
        failed = self._response("failed") | {"error": {"code": "server_error", "message": str(error)}}
        return self._event({"type": "response.failed", "response": failed})

    def _event(self, event: dict[str, Any]) -> bytes:
        event["sequence_number"] = self._num_events
        self._num_events += 1
        return f"event: {event['type']}\n".encode() + b"data: " + orjson.dumps(event) + b"\n\n"

    def _begin(self, frame: dict[str, Any]) -> None:
        self._number = frame["id"].rpartition("-")[2]
        created_at = frame.get("created") or int(time.time())
        self._head = {"id": f"resp_{self._number}", "object": "response", "created_at": created_at}
        self._head["model"] = frame["model"]

    def _events(self, block: Block) -> Iterator[dict[str, Any]]:
        for chunk in chunks_of(block.data):
            if not self._head:
                self._begin(chunk)
                yield {"type": "response.created", "response": self._response("in_progress")}
                yield {"type": "response.in_progress", "response": self._response("in_progress")}
            self._usage = read_usage(chunk.get("usage")) or self._usage
            for choice in choices_of(chunk):
                yield from self._take(delta_of_choice(choice, choice.get("delta") or {}, None))
        if block.is_last:
            yield from self._close(*self._open)
            status = self._status()
            yield {"type": f"response.{status}", "response": self._response(status)}

    def _take(self, delta: Delta) -> Iterator[dict[str, Any]]:
        self._finish_reason = delta.finish_reason or self._finish_reason
        if delta.reasoning:
            yield from self._add("thoughts", "reasoning", {"summary": [], "content": []})
            yield from self._text("thoughts", "reasoning_text", delta.reasoning)
        if delta.text:
            yield from self._add("text", "message", {"role": "assistant", "content": []})
            yield from self._text("text", "output_text", delta.text)
        if delta.refusal:
            yield from self._add("refusal", "message", {"role": "assistant", "content": []})
            yield from self._text("refusal", "refusal", delta.refusal)
        for call in delta.tool_calls:
            kind = f"call {call.index}"
            yield from self._add(kind, "function_call", {"call_id": call.id, "name": call.name, "arguments": ""})
            if call.arguments:
                place = self._place(kind)
                self._output[place["output_index"]]["arguments"] += call.arguments
                yield {"type": "response.function_call_arguments.delta", **place, "delta": call.arguments}

    def _add(self, kind: str, item_type: str, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Open an item unless it is open. Calls stay open to the end: their pieces may alternate."""
        if kind in self._open:
            return
        yield from self._close(*(name for name in list(self._open) if not name.startswith("call")))
        self._open[kind] = index = len(self._output)
        prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}[item_type]
        head = {"id": f"{prefix}_{self._number}_{index}", "type": item_type, "status": "in_progress"}
        self._output.append({**head, **item})
        yield {"type": "response.output_item.added", "output_index": index, "item": {**head, **item}}

    def _text(self, kind: str, part_type: str, text: str) -> Iterator[dict[str, Any]]:
        name = "refusal" if part_type == "refusal" else "text"
        place = {**self._place(kind), "content_index": 0}
        parts = self._output[place["output_index"]]["content"]
        if not parts:
            part: dict[str, Any] = {"type": part_type, name: ""} | (
                {"annotations": []} if part_type == "output_text" else {}
            )
            parts.append(part)
            yield {"type": "response.content_part.added", **place, "part": dict(part)}
        parts[0][name] += text
        yield {"type": f"response.{part_type}.delta", **place, "delta": text, **_logprobs(part_type)}

    def _close(self, *kinds: str) -> Iterator[dict[str, Any]]:
        for kind in kinds:
            place = self._place(kind)
            item = self._output[self._open.pop(kind)]
            item["status"] = "completed" if self._finish_reason != "length" else "incomplete"
            for part in item.get("content") or ():
                name = "refusal" if part["type"] == "refusal" else "text"
                here = {**place, "content_index": 0}
                done = {name: part[name], **_logprobs(part["type"])}
                yield {"type": f"response.{part['type']}.done", **here, **done}
                yield {"type": "response.content_part.done", **here, "part": part}
            if item["type"] == "function_call":
                ends = {"name": item["name"], "arguments": item["arguments"]}
                yield {"type": "response.function_call_arguments.done", **place, **ends}
            yield {"type": "response.output_item.done", "output_index": place["output_index"], "item": item}

    def _place(self, kind: str) -> dict[str, Any]:
        index = self._open[kind]
        return {"item_id": self._output[index]["id"], "output_index": index}

    def _status(self) -> str:
        return "incomplete" if self._finish_reason in ("length", "content_filter") else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        reason = "content_filter" if self._finish_reason == "content_filter" else "max_output_tokens"
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            **{name: self.asked.get(name, default) for name, default in _ECHOED.items()},
            "output": self._output,
            "previous_response_id": None,
            "store": False,
            "usage": _counts(self._usage),
        }


def _logprobs(part_type: str) -> dict[str, Any]:
    """Events of text have a list of log probabilities; it is empty, since none can be asked for."""
    return {"logprobs": []} if part_type == "output_text" else {}


def _counts(usage: TokenUsage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
