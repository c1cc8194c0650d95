"""Continues an answer that broke off: what was sent so far becomes the beginning of the answer at another replica.

The client gets one stream under one id. No character is lost or doubled, since an engine continues from the text that
was sent. The chunk with the finish reason says how often the answer was continued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chaku.engines.base import Block, Capabilities, Route
from chaku.protocol.answers import DONE, CompletionUsage, choices_of, chunks_of, event
from chaku.protocol.deltas import THOUGHTS
from chaku.protocol.openai import LENGTH_LIMITS

_FRAME = ("id", "created", "model", "system_fingerprint")
_IN_THE_WAY = ("tools", "logprobs", "response_format")
"""Fields whose answers have a state that text alone does not carry."""
_NOT_TEXT = (*THOUGHTS, "tool_calls", "refusal")
"""Parts of an answer that an engine can't continue."""


def can_be_continued(route: Route, body: Mapping[str, Any]) -> bool:
    """Whether the answer to a request is plain text, one, which its text so far says all about."""
    if route != "chat" or body.get("n", 1) != 1 or any(body.get(field) for field in _IN_THE_WAY):
        return False
    last = body["messages"][-1]
    return last["role"] != "assistant" or isinstance(last.get("content"), str)


class Continuation:
    """The text that was sent of one streamed chat answer, and the way to its end."""

    def __init__(self) -> None:
        self.num_continued = 0
        self.is_finished = False
        """The client has the finish reason."""
        self._texts: list[str] = []
        self._num_tokens = 0
        self._frame: dict[str, Any] = {}
        self._is_text_only = True
        self._num_before = 0

    def fits(self, capabilities: Capabilities) -> bool:
        """Whether a replica can continue what was sent."""
        return self._is_text_only and "continue_final_message" in capabilities.parameters

    def note(self, block: Block) -> None:
        """Note what a block says, before it is sent."""
        self._num_tokens += block.num_tokens
        for chunk in chunks_of(block.data):
            if not self._frame:
                self._frame = {name: chunk[name] for name in _FRAME if name in chunk}
            for choice in choices_of(chunk):
                delta = choice.get("delta") or {}
                text = delta.get("content") or ""
                if not isinstance(text, str) or any(delta.get(name) for name in _NOT_TEXT):
                    self._is_text_only = False
                else:
                    self._texts.append(text)
                self.is_finished |= choice.get("finish_reason") is not None

    def is_at_limit(self, body: Mapping[str, Any]) -> bool:
        """Whether all tokens were sent that the request allows: only the finish reason is missing."""
        return any(body.get(limit) is not None and self._num_tokens >= body[limit] for limit in LENGTH_LIMITS)

    def resume(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request that continues the answer. What is noted from now on is its answer."""
        self.num_continued += 1
        self._num_before = self._num_tokens
        messages = list(body["messages"])
        text = "".join(self._texts)
        if messages[-1]["role"] == "assistant":
            text = messages.pop()["content"] + text
        messages.append({"role": "assistant", "content": text})
        left = {limit: body[limit] - self._num_tokens for limit in LENGTH_LIMITS if body.get(limit) is not None}
        return {**body, **left, "messages": messages, "continue_final_message": True}

    def adapt(self, block: Block) -> Iterator[Block]:
        """A block of a continued answer as part of the first: its id, no second opening, the usage of both."""
        if not self.num_continued:
            yield block
            return
        kept: list[bytes] = []
        usage = self._merged(block.usage) if block.usage is not None else None
        for chunk in chunks_of(block.data):
            chunk.update(self._frame)
            if chunk.get("usage"):
                chunk["usage"] = usage
            choices = choices_of(chunk)
            for choice in choices:
                delta = choice.get("delta") or {}
                delta.pop("role", None)
                if choice.get("finish_reason") is not None:
                    chunk["chaku"] = {"continued": self.num_continued}
            if not choices or any(c.get("finish_reason") or any((c.get("delta") or {}).values()) for c in choices):
                kept.append(event(chunk))
        if block.is_last:
            kept.append(DONE)
        if kept:
            yield Block(
                b"".join(kept),
                num_tokens=block.num_tokens,
                usage=usage,
                is_usage_only=block.is_usage_only,
                is_last=block.is_last,
            )

    def ending(self, *, finish_reason: str | None) -> Iterator[Block]:
        """The end of an answer of which only the end is missing. Its usage is not known."""
        if finish_reason is not None:
            choice = {"index": 0, "delta": {}, "finish_reason": finish_reason, "logprobs": None}
            yield Block(event({**self._frame, "object": "chat.completion.chunk", "choices": [choice]}))
        yield Block(DONE, is_last=True)

    def _merged(self, usage: CompletionUsage) -> CompletionUsage:
        """The engine read what was sent as prompt; for the client it is a part of the answer."""
        return {
            **usage,
            "prompt_tokens": max(0, usage["prompt_tokens"] - self._num_before),
            "completion_tokens": usage["completion_tokens"] + self._num_before,
        }
