"""Ollama's API: its requests as OpenAI's chats, completions and embeddings; answers as objects or lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError
from chaku.protocol.answers import choices_of, chunks_of
from chaku.protocol.deltas import Delta, TokenUsage, ToolCallPart, delta_of_choice, read_usage
from chaku.protocol.ollama import OllamaChatRequest, OllamaEmbedRequest, OllamaGenerateRequest
from chaku.protocol.validation import ReadRequest
from chaku.serve.body import CHAT_LIMITS, TEXT_LIMITS
from chaku.serve.wires.base import Headers, Translation, arguments_of, renamed
from chaku.serve.wires.ollama_requests import chat_body, generation_body, notes_of

NDJSON = b"application/x-ndjson"
_FIELD_NAMES = {
    "max_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    "response_format": "format",
    "reasoning_effort": "think",
}
"""OpenAI's names of fields, as errors of the pipeline say them, and Ollama's."""


def error_body(error: ChakuError) -> bytes:
    """Ollama's error object."""
    name = _FIELD_NAMES.get(error.param or "")
    return orjson.dumps({"error": str(error) if name is None else renamed(error, name)})


class _Wire:
    def error(self, error: ChakuError) -> bytes:
        """Ollama's error object."""
        return error_body(error)


class OllamaChatWire(_Wire):
    """POST /ollama/api/chat."""

    route: Route = "chat"
    request = OllamaChatRequest
    limits = CHAT_LIMITS

    def translate(self, request: ReadRequest[OllamaChatRequest], headers: Headers) -> Translation:
        """The request as a chat. Raises InvalidRequest."""
        notes = request.notes + notes_of(request.body)
        return _answer(chat_body(request.body), request.typed.stream, notes, is_chat=True)


class OllamaGenerateWire(_Wire):
    """POST /ollama/api/generate."""

    route: Route = "chat"
    request = OllamaGenerateRequest
    limits = CHAT_LIMITS

    def translate(self, request: ReadRequest[OllamaGenerateRequest], headers: Headers) -> Translation:
        """The prompt as a chat, or with `raw` as a completion. Raises InvalidRequest."""
        notes = request.notes + notes_of(request.body)
        return _answer(generation_body(request.body), request.typed.stream, notes, is_chat=False)


class OllamaEmbedWire(_Wire):
    """POST /ollama/api/embed."""

    route: Route = "embeddings"
    request = OllamaEmbedRequest
    limits = TEXT_LIMITS

    def translate(self, request: ReadRequest[OllamaEmbedRequest], headers: Headers) -> Translation:
        """The texts as OpenAI's embeddings."""
        body: dict[str, Any] = {
            name: request.body[name] for name in ("model", "input", "dimensions") if name in request.body
        }
        return _EmbedAnswer(body, request.notes + notes_of(request.body))


def _answer(body: dict[str, Any], stream: bool | None, notes: tuple[str, ...], *, is_chat: bool) -> _Answer:
    is_stream = stream is not False
    if is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return _Answer(body, is_stream, notes, is_chat, "completions" if "prompt" in body else "chat")


@dataclass
class _Answer:
    """One message or generation, whole or as lines."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    is_chat: bool
    route: Route
    media_type: bytes = NDJSON
    _since: float = field(default_factory=time.perf_counter)
    _calls: dict[int, ToolCallPart] = field(default_factory=dict)
    _finish_reason: str | None = None
    _usage: TokenUsage | None = None

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The answer. Raises EngineError for a call that the model ended with arguments that are not JSON."""
        choice = answer["choices"][0]
        delta = _delta(choice, choice.get("message"))
        self._finish_reason = delta.finish_reason
        self._usage = read_usage(answer.get("usage"))
        calls = self._complete(delta.tool_calls)
        return orjson.dumps(self._object(delta.text or delta.refusal, delta.reasoning, calls) | self._end())

    def piece(self, block: Block) -> bytes:
        """The lines that a block adds."""
        return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in self._lines(block))

    def error_event(self, error: ChakuError) -> bytes:
        """The last line."""
        return error_body(error) + b"\n"

    def _lines(self, block: Block) -> Iterator[dict[str, Any]]:
        for chunk in chunks_of(block.data):
            self._usage = read_usage(chunk.get("usage")) or self._usage
            for choice in choices_of(chunk):
                delta = _delta(choice, choice.get("delta"))
                self._finish_reason = delta.finish_reason or self._finish_reason
                for part in delta.tool_calls:
                    begun = self._calls.get(part.index, ToolCallPart(part.index))
                    self._calls[part.index] = ToolCallPart(
                        part.index, begun.id or part.id, begun.name or part.name, begun.arguments + part.arguments
                    )
                text = delta.text or delta.refusal
                if text or delta.reasoning:
                    yield self._object(text, delta.reasoning) | {"done": False}
        if block.is_last:
            if calls := self._complete(self._calls.values()):  # Ollama's calls come whole
                yield self._object("", "", calls) | {"done": False}
            yield self._object("", "") | self._end()

    def _complete(self, calls: Iterable[ToolCallPart]) -> list[dict[str, Any]]:
        """Calls in Ollama's words. One that was cut off is left out: Ollama's clients run every call they get."""
        pairs = [(call.name, arguments_of(call, self._finish_reason)) for call in calls]
        return [
            {"function": {"name": name, "arguments": arguments}} for name, arguments in pairs if arguments is not None
        ]

    def _object(self, text: str, thoughts: str, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        head = {"model": self.body["model"], "created_at": _now()}
        thinking = {"thinking": thoughts} if thoughts else {}
        if not self.is_chat:
            return head | {"response": text} | thinking
        message: dict[str, Any] = {"role": "assistant", "content": text} | thinking
        if calls:
            message["tool_calls"] = calls
        return head | {"message": message}

    def _end(self) -> dict[str, Any]:
        usage = self._usage or TokenUsage(0, 0)
        reason = self._finish_reason or "stop"
        return {
            "done": True,
            "done_reason": "stop" if reason in ("tool_calls", "function_call") else reason,
            "total_duration": _nanoseconds(self._since),
            "prompt_eval_count": usage.prompt_tokens,
            "eval_count": usage.completion_tokens,
        }


@dataclass
class _EmbedAnswer:
    """Texts as vectors."""

    body: dict[str, Any]
    notes: tuple[str, ...]
    is_stream = False
    route: ClassVar[Route] = "embeddings"
    media_type = NDJSON
    _since: float = field(default_factory=time.perf_counter)

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The vectors, in the order of the texts."""
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return orjson.dumps({
            "model": self.body["model"],
            "embeddings": [row["embedding"] for row in rows],
            "total_duration": _nanoseconds(self._since),
            "prompt_eval_count": (read_usage(answer.get("usage")) or TokenUsage(0, 0)).prompt_tokens,
        })  # fmt: skip

    def piece(self, block: Block) -> bytes:
        """Vectors are never streamed."""
        raise AssertionError("vectors are not a stream")

    def error_event(self, error: ChakuError) -> bytes:
        """Vectors are never streamed."""
        raise AssertionError("vectors are not a stream")


def _delta(choice: dict[str, Any], message: dict[str, Any] | None) -> Delta:
    """A choice of a chat, or of a completion, which has its text beside the message's place."""
    return delta_of_choice(choice, message or {"content": choice.get("text")}, None)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(since: float) -> int:
    return int((time.perf_counter() - since) * 1e9)
