"""Speaks to one running child of llama.cpp: sends calls, reads answers, and knows which slots are still busy.

It keeps nothing alive and starts nothing: that is the supervisor's business (`engine.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from chaku import tasks
from chaku.engines.base import PROMPT_FIELD, Answer, Block, Call
from chaku.engines.llamacpp.assemble import assemble
from chaku.engines.llamacpp.child import EMBEDDING_SLOTS, LlamaServer
from chaku.engines.llamacpp.plan import Planner, PreparedCall
from chaku.engines.llamacpp.refusal import refusal
from chaku.engines.llamacpp.streams import Stream
from chaku.engines.process import Child
from chaku.engines.sse_blocks import sse_blocks
from chaku.errors import EngineError
from chaku.http_out import read_json
from chaku.protocol.openai import prompts_of

_log = logging.getLogger(__name__)


@dataclass
class _HeldSlots:
    """Slots that a call holds."""

    is_finished: bool = False
    """llama.cpp has finished the call, so its slots are free."""


class Speaker:
    """One child, and the calls that run there."""

    def __init__(self, name: str, server: LlamaServer) -> None:
        """`name` is what clients call the model."""
        self.name = name
        self.server = server
        self._num_active_slots = 0
        """Slots that calls hold."""
        self._waiting_for_slots: set[asyncio.Task[None]] = set()

    @property
    def child(self) -> Child:
        """The process, for its supervisor."""
        return self.server.child

    async def close(self) -> None:
        """Close the connections and end the process. Calls that were left get their slots back."""
        await tasks.cancel(*self._waiting_for_slots)
        await self.server.close()

    @contextlib.asynccontextmanager
    async def ask(self, planner: Planner, call: Call) -> AsyncIterator[Answer]:
        """Send a chat or a completion. The context is entered with the first token.

        A call that is left while decoding frees its slots in less than 0.1 s. llama.cpp does not look for hang-ups
        during a prefill: then the slots are free when the prompt is read, and `call.hold` keeps them until then.
        """
        plan = await planner.plan(call)
        with self._holding(call, plan.width) as held:
            async with self.server.http.request("POST", plan.path, plan.request) as response:
                if response.status != 200:
                    held.is_finished = True
                    body = await read_json(response, who=self.name)
                    raise refusal(response.status, body, model=self.name, param=PROMPT_FIELD[call.route])
                events = _with_pieces(planner, plan.stream, sse_blocks(response, who=self.name))
                answer = _StreamedAnswer(plan, events)
                await answer.begin()
                yield answer
                held.is_finished = answer.is_finished

    async def embed(self, call: Call) -> Answer:
        """Send inputs for embeddings. Raises what `refusal` makes of llama.cpp's."""
        request = {"model": self.name, "input": call.body["input"], "embd_normalize": 2}
        if call.body.get("encoding_format"):
            request["encoding_format"] = call.body["encoding_format"]
        width = min(len(prompts_of(call.body["input"])), EMBEDDING_SLOTS)
        with self._holding(call, width) as held:
            status, body = await self.server.http.json("POST", "/v1/embeddings", request)
            held.is_finished = True
        if status != 200:
            raise refusal(status, body, model=self.name, param="input")
        data = [{"object": "embedding", "index": row["index"], "embedding": row["embedding"]} for row in body["data"]]
        data.sort(key=lambda row: row["index"])
        return _WholeAnswer({"object": "list", "data": data, "model": self.name, "usage": body["usage"]})

    @contextlib.contextmanager
    def _holding(self, call: Call, width: int) -> Iterator[_HeldSlots]:
        held = _HeldSlots()
        self._num_active_slots += width
        try:
            yield held
        finally:
            self._num_active_slots -= width
            if not held.is_finished:
                task = tasks.start(self._until_slots_free(), f"{self.name}-slots")
                self._waiting_for_slots.add(task)
                task.add_done_callback(self._waiting_for_slots.discard)
                call.hold.keep_until(task)

    async def _until_slots_free(self) -> None:
        """Wait until llama.cpp uses no more slots than the running calls hold: it has dropped those that were left."""
        pause_s = 0.01
        while self.child.is_running:
            try:
                status, slots = await self.server.http.json("GET", "/slots")
            except EngineError:
                return  # the child is dying, and its slots with it
            if status != 200:
                _log.warning("no look at the slots model=%s status=%d", self.name, status)
                return
            if sum(slot["is_processing"] for slot in slots) <= self._num_active_slots:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(0.2, pause_s * 2)


class _WholeAnswer(Answer):
    def __init__(self, response: dict[str, Any]) -> None:
        self._response = response

    async def whole(self) -> dict[str, Any]:
        return self._response

    def blocks(self) -> AsyncIterator[Block]:
        raise AssertionError("this route does not stream")


async def _with_pieces(planner: Planner, stream: Stream, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same blocks; before each, `stream` learns the tokens of its characters, where they matter."""
    async for block in blocks:
        for text in stream.unsplit(block):
            stream.pieces[text] = await planner.pieces(text)
        yield block


class _StreamedAnswer(Answer):
    def __init__(self, plan: PreparedCall, blocks: AsyncIterator[bytes]) -> None:
        self.notes = plan.notes
        self.is_finished = False
        self._stream = plan.stream
        self._blocks = blocks
        self._first = b""

    async def begin(self) -> None:
        """Wait for the first events."""
        self._first = await anext(self._blocks)

    async def whole(self) -> dict[str, Any]:
        chunks = [chunk for chunk in self._stream.events(self._first) if chunk is not None]
        async for block in self._blocks:
            chunks += [chunk for chunk in self._stream.events(block) if chunk is not None]
        self.is_finished = True
        return assemble(chunks)

    async def blocks(self) -> AsyncIterator[Block]:
        for block in self._stream.feed(self._first):
            yield block
        async for events in self._blocks:
            for block in self._stream.feed(events):
                yield block
        self.is_finished = True
