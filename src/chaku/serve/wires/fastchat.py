"""FastChat's worker surface: prompts of its servers and clients as chats or completions, answers as cumulative text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError, InvalidRequest
from chaku.protocol.answers import choices_of, chunks_of
from chaku.protocol.deltas import TokenUsage, read_usage, text_in
from chaku.protocol.fastchat import (
    CountRequest,
    EmbeddingsRequest,
    GenerateRequest,
    error_of,
    frame,
    messages_of,
)
from chaku.protocol.validation import ReadRequest
from chaku.serve.body import TEXT_LIMITS
from chaku.serve.wires.base import Headers, Translation, prompt_tokens_of

_DEFAULT_TOKENS = 256
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty")
_UNREAD = {
    "logprobs": "read them from /v1/completions",
    "best_of": "send it to /v1/completions",
    "use_beam_search": "no engine here searches beams",
    "images": "send them to /v1/chat/completions",
    "stop_token_ids": "send stop, texts that end the answer",
}
_MEDIA_TYPE = b"application/octet-stream"


class _FastChatWire:
    def error(self, error: ChakuError) -> bytes:
        """FastChat's object."""
        return orjson.dumps(error_of(str(error), error.http_status, error.code))


@dataclass(frozen=True)
class FastChatGenerateWire:
    """POST /fastchat/worker_generate_stream and /fastchat/worker_generate."""

    is_stream: bool
    route: Route = "completions"
    request = GenerateRequest
    limits = TEXT_LIMITS

    def translate(self, request: ReadRequest[GenerateRequest], headers: Headers) -> Translation:
        """A chat where chaku's own template wrote the prompt, else a completion. Raises InvalidRequest."""
        typed = request.typed
        for name, fix in _UNREAD.items():
            if getattr(typed, name) not in (None, False, []) and (name, typed.best_of) != ("best_of", 1):
                raise InvalidRequest(f"{name} is not read here", fix=fix, param=name)
        body: dict[str, Any] = {"model": typed.model, "max_tokens": typed.max_new_tokens or _DEFAULT_TOKENS}
        body |= {name: value for name in _SAMPLING if (value := getattr(typed, name)) is not None}
        if typed.top_p == 0:  # greedy, as FastChat takes it
            body |= {"temperature": 0, "top_p": 1}
        if typed.stop:
            body["stop"] = typed.stop
        beginning = typed.prompt if typed.echo in (None, True) else ""
        return _Generation(_asked(typed.prompt, body), self.is_stream, request.notes, beginning)

    def error(self, error: ChakuError) -> bytes:
        """FastChat's object, as the only one of a stream."""
        content = error_of(str(error), error.http_status, error.code)
        return frame(content) if self.is_stream else orjson.dumps(content)


@dataclass(frozen=True)
class FastChatCountTokenWire(_FastChatWire):
    """POST /fastchat/count_token: the model reads the prompt and writes one token, which counts exactly."""

    route: Route = "completions"
    request = CountRequest
    limits = TEXT_LIMITS

    def translate(self, request: ReadRequest[CountRequest], headers: Headers) -> Translation:
        """A chat or a completion of one token."""
        body = _asked(request.typed.prompt, {"model": request.typed.model, "max_tokens": 1})
        return _Generation(body, False, request.notes, "", counts_only=True)


@dataclass(frozen=True)
class FastChatEmbeddingsWire(_FastChatWire):
    """POST /fastchat/worker_get_embeddings."""

    route: Route = "embeddings"
    request = EmbeddingsRequest
    limits = TEXT_LIMITS

    def translate(self, request: ReadRequest[EmbeddingsRequest], headers: Headers) -> Translation:
        """The texts as OpenAI's embeddings."""
        body: dict[str, Any] = {"model": request.typed.model, "input": request.typed.input}
        if request.typed.encoding_format:
            body["encoding_format"] = request.typed.encoding_format
        return _Embeddings(body, request.notes)


def _asked(prompt: str, body: dict[str, Any]) -> dict[str, Any]:
    messages = messages_of(prompt)
    if messages is None:
        return {**body, "prompt": prompt}
    if not messages:
        raise InvalidRequest("the conversation has no message", param="prompt")
    return {**body, "messages": messages}


@dataclass
class _Generation:
    """A prompt that is continued."""

    body: dict[str, Any]
    is_stream: bool
    notes: tuple[str, ...]
    beginning: str
    """What the text begins with: the prompt, or nothing."""
    counts_only: bool = False
    media_type = _MEDIA_TYPE
    _text: str = ""
    _finish: str | None = None
    _usage: TokenUsage | None = None

    @property
    def route(self) -> Route:
        """A chat where the prompt holds messages."""
        return "chat" if "messages" in self.body else "completions"

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The only object, or the number of tokens."""
        if self.counts_only:
            return orjson.dumps({"count": prompt_tokens_of(answer), "error_code": 0})
        choice = answer["choices"][0]
        self._text = text_in(choice["message"]["content"] if "message" in choice else choice["text"])
        self._finish, self._usage = choice["finish_reason"], read_usage(answer.get("usage"))
        return orjson.dumps(self._content())

    def piece(self, block: Block) -> bytes:
        """One object for each block that adds text; the last one says why the answer ended."""
        added = block.text
        self._text += added
        self._usage = read_usage(block.usage) or self._usage
        for chunk in chunks_of(block.data):
            for choice in choices_of(chunk):
                self._finish = choice.get("finish_reason") or self._finish
        if block.is_last:
            return frame(self._content())
        return frame({"text": self.beginning + self._text, "error_code": 0, "finish_reason": None}) if added else b""

    def _content(self) -> dict[str, Any]:
        usage = self._usage or TokenUsage(0, 0)
        return {
            "text": self.beginning + self._text,
            "error_code": 0,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
            "finish_reason": "length" if self._finish == "length" else "stop",
        }

    def error_event(self, error: ChakuError) -> bytes:
        """FastChat's object as the last one."""
        return frame(error_of(str(error), error.http_status, error.code))


@dataclass
class _Embeddings:
    """Texts that are embedded."""

    body: dict[str, Any]
    notes: tuple[str, ...]
    route: ClassVar[Route] = "embeddings"
    is_stream = False
    media_type = _MEDIA_TYPE

    def whole(self, answer: dict[str, Any]) -> bytes:
        """The vectors in the order of their texts."""
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = [row["embedding"] for row in rows]
        return orjson.dumps({"embedding": vectors, "token_num": prompt_tokens_of(answer)})

    def piece(self, block: Block) -> bytes:
        """Embeddings are never streamed."""
        raise AssertionError("an embedding is not a stream")

    def error_event(self, error: ChakuError) -> bytes:
        """Embeddings are never streamed."""
        raise AssertionError("an embedding is not a stream")
