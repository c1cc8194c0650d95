"""Answers of the OpenAI-compatible routes: shapes for the API page, and for engines that build answers themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic reads these only from here before Python 3.12
)

import orjson
from typing_extensions import TypedDict

from chaku.errors import EngineError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class PromptTokensDetails(TypedDict):
    """The number of prompt tokens that came out of a cache."""

    cached_tokens: int


class CompletionUsage(TypedDict):
    """Tokens counted by the engine."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: NotRequired[PromptTokensDetails | None]
    completion_tokens_details: NotRequired[dict[str, Any] | None]


class TopLogprob(TypedDict):
    """One likely token at a position."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TypedDict):
    """The token taken at a position and its likely rivals."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of the answer's tokens."""

    content: list[TokenLogprob] | None
    refusal: NotRequired[list[TokenLogprob] | None]


class CalledFunction(TypedDict):
    """Name and JSON arguments of a call."""

    name: str
    arguments: str


class AnswerToolCall(TypedDict):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(TypedDict):
    """The model's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[AnswerToolCall]]


class ChatChoice(TypedDict):
    """One of n answers."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None
    stop_reason: NotRequired[str | int | None]
    """vLLM's field: the stop sequence that ended the answer, where the engine names it."""


class ChatCompletion(TypedDict):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    system_fingerprint: NotRequired[str | None]
    service_tier: NotRequired[str | None]


class CalledFunctionPiece(TypedDict):
    """A piece of a call: the name comes once, the arguments piece by piece."""

    name: NotRequired[str | None]
    arguments: NotRequired[str | None]


class ToolCallPiece(TypedDict):
    """A piece of the call at `index`."""

    index: int
    id: NotRequired[str | None]
    type: NotRequired[Literal["function"] | None]
    function: NotRequired[CalledFunctionPiece | None]


class ChunkDelta(TypedDict):
    """The part of a message that a chunk adds."""

    role: NotRequired[Literal["assistant"] | None]
    content: NotRequired[str | None]
    refusal: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCallPiece] | None]


class ChunkChoice(TypedDict):
    """One choice of a chunk."""

    index: int
    delta: ChunkDelta
    finish_reason: FinishReason | None
    logprobs: NotRequired[ChatLogprobs | None]
    stop_reason: NotRequired[str | int | None]
    """vLLM's field: the stop sequence that ended the answer, where the engine names it."""


class ChatChunk(TypedDict):
    """One event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage | None]
    system_fingerprint: NotRequired[str | None]


class LegacyLogprobs(TypedDict):
    """Log-probabilities in the shape of plain completions."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(TypedDict):
    """One of n texts."""

    index: int
    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    logprobs: LegacyLogprobs | None
    stop_reason: NotRequired[str | int | None]
    """vLLM's field: the stop sequence that ended the answer, where the engine names it."""


class TextCompletion(TypedDict):
    """Answer of POST /v1/completions, and each of its chunks."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: NotRequired[CompletionUsage | None]
    system_fingerprint: NotRequired[str | None]


class Embedding(TypedDict):
    """One vector: floats, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """Answer of POST /v1/embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ErrorDetail(TypedDict):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """Every refusal and failure."""

    error: ErrorDetail


def completion_usage(num_prompt: int, num_answer: int) -> CompletionUsage:
    """Token counts of an answer."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_answer,
        "total_tokens": num_prompt + num_answer,
    }


class AnswerFrame:
    """What the objects of one answer have in common, be it a chat's or a plain completion's, whole or in chunks."""

    def __init__(self, model: str, request_id: str, *, is_chat: bool) -> None:
        name = "chatcmpl" if is_chat else "cmpl"
        self.is_chat = is_chat
        self._head = {"id": f"{name}-{request_id}", "created": int(time.time()), "model": model}

    def whole(self, choices: list[dict[str, Any]], usage: CompletionUsage) -> dict[str, Any]:
        """The complete answer."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": usage}

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A chunk of one choice."""
        return {**self._head, "object": self._kind_of_chunks, "choices": [choice]}

    def usage_chunk(self, usage: CompletionUsage) -> dict[str, Any]:
        """The chunk with the token counts."""
        return {**self._head, "object": self._kind_of_chunks, "choices": [], "usage": usage}

    @property
    def _kind_of_chunks(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"


DONE = b"data: [DONE]\n\n"
NOT_OPENAI = "the engine sent an answer in a shape that is not OpenAI's"


def event(chunk: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def chunks_of(events: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of whole events, as engines send them; the mark of the end is none.

    Raises EngineError for an event that is not JSON.
    """
    for line in events.split(b"\n\n"):
        if line.startswith(b"data: {"):
            try:
                yield orjson.loads(line[6:])
            except orjson.JSONDecodeError:
                raise EngineError(NOT_OPENAI) from None


def choices_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices of an answer or a chunk, none where it has none. Raises EngineError for those of another shape."""
    choices = answer.get("choices") or []
    if not isinstance(choices, list) or not all(map(_is_choice, choices)):
        raise EngineError(NOT_OPENAI)
    return choices


def _is_choice(choice: Any) -> bool:
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("index"), int | None)
        and all(isinstance(choice.get(part) or {}, dict) for part in ("message", "delta"))
    )
