"""Answers of FastChat's model workers: NUL-framed, cumulative texts become OpenAI's chunks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from chaku.engines.base import Answer, Block, Call
from chaku.engines.blocks import blocks_of_chunks
from chaku.engines.fastchat_text import NewText
from chaku.errors import ChakuError, ContextOverflow, EngineError, InvalidRequest, Overloaded
from chaku.http_out import BrokenOff
from chaku.protocol.answers import AnswerFrame, completion_usage
from chaku.protocol.fastchat import CONTEXT_OVERFLOW, Frames

log = logging.getLogger(__name__)

_EXCUSE = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
"""What FastChat writes before every reason."""


@dataclass(frozen=True)
class Asked:
    """A request in FastChat's words."""

    params: dict[str, Any]
    stops: tuple[str, ...]
    """Texts that end the answer."""
    num_prompt: int
    """Tokens of the prompt."""
    notes: tuple[str, ...]


class FastChatAnswer(Answer):
    """What a worker sends, as OpenAI's answer or chunks."""

    def __init__(self, name: str, call: Call, asked: Asked, response: aiohttp.ClientResponse) -> None:
        self.notes = asked.notes
        self._name = name
        self._is_chat = call.route == "chat"
        self._asked = asked
        self._response = response
        self._finish: str | None = None
        self._frame = AnswerFrame(name, call.request_id, is_chat=self._is_chat)
        self.usage = completion_usage(asked.num_prompt, 0)

    async def _texts(self) -> AsyncIterator[str]:
        """What is new, piece by piece; `_finish` and `usage` are set at the end."""
        new = NewText(self._asked.stops)
        text, frames = "", Frames()
        try:
            async for piece in self._response.content.iter_any():
                for content in frames.push(piece):
                    if content.get("error_code"):
                        raise _failure(self._name, content)
                    text = str(content["text"])
                    self._note(content)
                    if shown := new.push(text):
                        yield shown
                if new.has_stopped:  # before the worker noticed
                    self._finish = "stop"
                    return
        except (orjson.JSONDecodeError, KeyError, ValueError):
            raise EngineError(f"{self._name}: its FastChat worker sent something that is no answer") from None
        if self._finish is None or not frames.is_empty:
            raise BrokenOff(f"{self._name}: its FastChat worker ended its answer before it was complete")
        if shown := new.push(text, is_last=True):
            yield shown
        if new.has_stopped:
            self._finish = "stop"
        if new.was_changed:
            log.warning("FastChat worker changed text that was sent model=%s", self._name)

    def _note(self, content: dict[str, Any]) -> None:
        reason = content.get("finish_reason")
        if reason == "abort":
            raise BrokenOff(f"{self._name}: its FastChat worker aborted the answer")
        if reason is not None:
            self._finish = "length" if reason == "length" else "stop"
        if isinstance(told := content.get("usage"), dict):
            self.usage = completion_usage(int(told["prompt_tokens"]), int(told["completion_tokens"]))

    async def whole(self) -> dict[str, Any]:
        """The whole answer."""
        text = "".join([piece async for piece in self._texts()])
        said: dict[str, Any] = {"text": text}
        if self._is_chat:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **said, "finish_reason": self._finish, "logprobs": None}
        return self._frame.whole([choice], self.usage)

    async def blocks(self) -> AsyncIterator[Block]:
        """One chunk for each text that came."""
        if self._is_chat:
            for block in blocks_of_chunks([self._chunk({"role": "assistant", "content": ""})]):
                yield block
        async for piece in self._texts():
            for block in blocks_of_chunks([self._chunk({"content": piece})]):
                yield block
        end = self._chunk({})
        end["choices"][0]["finish_reason"] = self._finish
        for block in blocks_of_chunks([end, self._frame.usage_chunk(self.usage), None]):
            yield block

    def _chunk(self, delta: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": None, "logprobs": None}
        choice |= {"delta": delta} if self._is_chat else {"text": delta.get("content", "")}
        return self._frame.chunk(choice)


def _failure(name: str, content: dict[str, Any]) -> ChakuError:
    """The error that an object with an error code stands for."""
    code = content["error_code"]
    words = " ".join(str(content.get("text", "")).replace(_EXCUSE, "").split())[:500]
    message = f"{name}: its FastChat worker failed with {code}: {words or 'it says no more'}"
    error: ChakuError
    if code == CONTEXT_OVERFLOW:
        error = ContextOverflow(message)
    elif isinstance(code, int) and 40000 <= code < 42900:
        error = InvalidRequest(message)
    elif isinstance(code, int) and 42900 <= code < 50000:
        error = Overloaded(message, retry_after_s=1.0)
    else:
        error = EngineError(message)
    error.quotes_server = True
    return error
