"""llama.cpp's streams as OpenAI's chunks. Pure: bytes in, blocks out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from chaku.engines.base import Block
from chaku.engines.blocks import blocks_of_chunks
from chaku.engines.llamacpp.logprobs import Piece, characters, of_chat, of_completion
from chaku.engines.llamacpp.refusal import refusal
from chaku.protocol.answers import DONE

_NEEDS_A_LOOK = (b'"usage":', b'"timings":', b'"__verbose":{', b'"error":{', DONE)
"""Can't be text of the model: inside a JSON string the quotes would be escaped, and a line break too."""


class Stream:
    """Turns the events of one llama.cpp stream into OpenAI's chunks, with one usage chunk just before the end.

    `n` answers are given to each prompt. This base is the chat route; a subclass says what becomes of a choice.
    """

    _is_openai_s = True
    """Its events are OpenAI's but for the first and the last."""

    def __init__(self, *, model: str, n: int = 1, top_logprobs: int | None = None) -> None:
        self._model = model
        self._n = n
        self._top_logprobs = top_logprobs
        self._untouched = n == 1 and top_logprobs is None and self._is_openai_s
        self.pieces: dict[str, list[Piece]] = {}
        """Tokens of the characters that llama.cpp reports as one although they are several: see `unsplit`."""
        self._begun = False
        self._frame: dict[str, Any] = {}
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def feed(self, events: bytes) -> list[Block]:
        """Translate whole events; those of a plain chat stream pass through unparsed."""
        if self._untouched and self._begun and not any(mark in events for mark in _NEEDS_A_LOOK):
            return [Block(events, num_tokens=events.count(b"\n\n"))]  # one token per event
        return list(blocks_of_chunks(self.events(events)))

    def events(self, block: bytes) -> Iterator[dict[str, Any] | None]:
        """The same, as chunks; None is the end of the stream."""
        for line in block.split(b"\n\n"):
            if not line.startswith(b"data: "):
                continue
            if line + b"\n\n" == DONE:
                yield self._chunk([]) | {"usage": self._usage()}
                yield None
            elif chunk := orjson.loads(line[6:]):  # llama.cpp opens a stream of several prompts with `data: null`
                yield from self._translate(chunk)

    def _translate(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "error" in chunk:
            code = chunk["error"].get("code", 500) if isinstance(chunk["error"], dict) else 500
            raise refusal(code, chunk, model=self._model, param="messages")
        if not self._begun:
            self._begun = True
            self._frame = {name: chunk[name] for name in ("id", "object", "created", "model", "system_fingerprint")}
            self._name_frame()
        if usage := chunk.get("usage"):
            self._prompt_tokens += usage["prompt_tokens"]
            self._completion_tokens += usage["completion_tokens"]
            self._cached_tokens += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        details = chunk.get("__verbose") or {}
        for choice in chunk["choices"]:
            for translated in self._choices(choice):
                if translated["finish_reason"] == "stop" and details.get("stop_type") == "word":
                    translated["stop_reason"] = details["stopping_word"]  # vLLM's name
                yield self._chunk([translated])

    def _name_frame(self) -> None:
        """Set the id's prefix and the object's name; llama.cpp's chat route has them right."""

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta = choice["delta"]
        if delta.get("content", "") is None and "tool_calls" not in delta:
            delta["content"] = ""
        if logprobs := choice.get("logprobs"):
            choice["logprobs"] = self._chat_logprobs(logprobs)
        yield choice

    def _chat_logprobs(self, logprobs: dict[str, Any]) -> dict[str, Any]:
        return of_chat(logprobs, self.pieces, top=self._top_logprobs or 0)

    def unsplit(self, events: bytes) -> set[str]:
        """Characters in these events that may be several tokens; `pieces` must have them before the events are read."""
        if self._top_logprobs is None or b'"logprobs":{' not in events:
            return set()
        return characters(events) - self.pieces.keys()

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._frame, "choices": choices}

    def _usage(self) -> dict[str, Any]:
        prompt = self._prompt_tokens // self._n  # each of n choices reports the same prompt
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt + self._completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens // self._n},
        }


class CompletionStream(Stream):
    """The completions route: OpenAI's legacy log probabilities, and `echo` as a first piece of text.

    `echo` holds the text of each prompt; choice i belongs to prompt i // n.
    """

    _is_openai_s = False

    def __init__(
        self, *, model: str, n: int = 1, top_logprobs: int | None = None, echo: list[str] | None = None
    ) -> None:
        super().__init__(model=model, n=n, top_logprobs=top_logprobs)
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def _name_frame(self) -> None:
        self._frame["id"] = "cmpl-" + self._frame["id"].rpartition("-")[2]

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index, text = choice["index"], choice["text"]
        if index not in self._offsets:
            self._offsets[index] = 0
            if self._echo is not None:
                yield {"index": index, "text": self._echo[index // self._n], "logprobs": None, "finish_reason": None}
        logprobs = None
        if choice.get("logprobs"):
            logprobs, self._offsets[index] = of_completion(
                choice["logprobs"], self.pieces, top=self._top_logprobs or 0, offset=self._offsets[index]
            )
        yield {"index": index, "text": text, "logprobs": logprobs, "finish_reason": choice["finish_reason"]}


class RawChatStream(Stream):
    """A completion shown as a chat."""

    _is_openai_s = False

    def __init__(self, *, model: str, n: int = 1, top_logprobs: int | None = None) -> None:
        super().__init__(model=model, n=n, top_logprobs=top_logprobs)
        self._opened: set[int] = set()

    def _name_frame(self) -> None:
        self._frame["id"] = "chatcmpl-" + self._frame["id"].rpartition("-")[2]
        self._frame["object"] = "chat.completion.chunk"

    def _choices(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        index = choice["index"]
        if index not in self._opened:
            self._opened.add(index)
            yield {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield from self._deltas(choice)

    def _deltas(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta = {"content": choice["text"]} if choice["text"] else {}
        translated = {"index": choice["index"], "delta": delta, "finish_reason": choice["finish_reason"]}
        if choice.get("logprobs"):
            translated["logprobs"] = self._chat_logprobs(choice["logprobs"])
        yield translated
