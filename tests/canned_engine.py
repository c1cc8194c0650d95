"""An engine that answers with given chunks and notes what it was asked, for tests of the wires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chaku.engines.base import Answer, Block, Call, Capabilities
from chaku.engines.blocks import blocks_of_chunks
from chaku.engines.llamacpp.assemble import assemble
from chaku.engines.scripted import Script, ScriptedEngine

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
}
PARAMETERS = frozenset(
    {"top_k", "response_format", "parallel_tool_calls", "continue_final_message", "reasoning_effort"}
)


class CannedEngine(ScriptedEngine):
    """Sends one chunk for each delta; the last choice has `finish_reason` and `end`."""

    def __init__(self, *deltas: dict[str, Any], finish_reason: str = "stop", **end: Any) -> None:
        super().__init__("canned", Script())
        self.bodies: list[dict[str, Any]] = []
        """The bodies of the calls, as the engine gets them."""
        head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1, "model": "canned"}
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish_reason, **end})
        self.chunks: list[dict[str, Any]] = [{**head, "choices": [choice]} for choice in choices]
        self.chunks.append({**head, "choices": [], "usage": USAGE})

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(parameters=PARAMETERS, tools=True, vision=True, reasoning=True, labels=True)

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        self.bodies.append(call.body)
        yield _CannedAnswer(self.chunks)


class _CannedAnswer(Answer):
    def __init__(self, chunks: list[dict[str, Any]]) -> None:
        self._chunks = chunks

    async def whole(self) -> dict[str, Any]:
        return assemble(self._chunks)

    async def blocks(self) -> AsyncIterator[Block]:
        for chunk in [*self._chunks, None]:
            for block in blocks_of_chunks([chunk]):
                yield block


def tool_call(index: int, id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    """A delta with a piece of a call: the first piece has its id and name."""
    function: dict[str, Any] = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})]}
