"""llama.cpp as an engine: its own server in a child process, reached over loopback with a random key.

Two children at most: one for chats and completions, and one, started by the first such call, for embeddings. A pooled
input must fit one physical batch, and so large a batch would make every chat wait behind another's prefill.
What was measured, and why the defaults are what they are: docs/engines.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from chaku import tasks
from chaku.engines.base import Answer, Block, Call, Capabilities, Engine, Status
from chaku.engines.llamacpp import wire
from chaku.engines.llamacpp.child import EMBEDDING_SLOTS, LlamaServer, Settings, start_chat, start_embeddings
from chaku.engines.llamacpp.model import learn
from chaku.engines.llamacpp.plan import Planner, PreparedCall
from chaku.engines.sse_blocks import sse_blocks
from chaku.engines.supervisor import ChildSupervisor
from chaku.errors import EngineError
from chaku.http_out import read_json
from chaku.protocol.openai import prompts_of

__all__ = ["LlamaCppEngine", "Settings"]

_log = logging.getLogger(__name__)


@dataclass
class _Held:
    """Slots that a call holds."""

    is_finished: bool = False
    """llama.cpp has finished the call, so its slots are free."""


class LlamaCppEngine(Engine):
    """One GGUF model."""

    def __init__(self, name: str, settings: Settings) -> None:
        """`name` is what clients call the model. Nothing is started or read yet."""
        self.name = name
        self._settings = settings
        self._chat = ChildSupervisor(
            name, self._launch_chat, idle_unload_s=settings.idle_unload_s, back_off=settings.back_off
        )
        self._embeddings = ChildSupervisor(
            f"{name} (embeddings)",
            lambda: start_embeddings(name, settings),
            idle_unload_s=settings.idle_unload_s or 600.0,
            when_asked=True,
        )
        self._planner: Planner | None = None
        self._active_slots: Counter[str] = Counter()
        """Slots that calls hold, by the key of the child."""
        self._waiting_for_slots: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the model and generate a token. Raises ModelError (file, memory, missing package) or EngineError."""
        await self._chat.start()

    @property
    def capabilities(self) -> Capabilities:
        """Read from the server and the chat template when the model was loaded."""
        return self._planner.learned.capabilities if self._planner else Capabilities()

    @property
    def planner(self) -> Planner:
        """Prepares calls for the child that chats. Available once `start` has returned."""
        assert self._planner is not None, "the engine was started"
        return self._planner

    def status(self) -> Status:
        """Of the child that chats; the one for embeddings comes and goes."""
        return self._chat.status()

    @property
    def endpoint(self) -> tuple[str, str]:
        """URL and key of the child that chats, for benchmarks; both change with a restart. Raises EngineUnavailable."""
        server = self._chat.running
        return server.http.base_url, server.key

    async def stop(self) -> None:
        """End both children."""
        for task in tuple(self._waiting_for_slots):
            task.cancel()
        outcomes = await asyncio.gather(self._chat.stop(), self._embeddings.stop(), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # only now: both were asked to end

    # ---- asking

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """See `Engine.ask`. The context is entered with the first token.

        A call that is left while decoding frees its slots in less than 0.1 s. llama.cpp does not look for hang-ups
        during a prefill: then its slots are free when the prompt is read, and `call.hold` keeps them until then.
        """
        if call.route == "embeddings":
            async with self._embeddings.use() as server:
                self.planner.check_ids(call.body["input"], "input")
                width = min(len(prompts_of(call.body["input"])), EMBEDDING_SLOTS)
                with self._holding(server, call, width) as held:
                    answer: Answer = await self._embed(server, call)
                    held.is_finished = True
                yield answer
            return
        async with self._chat.use() as server:
            plan = await self.planner.plan(call)
            with self._holding(server, call, plan.width) as held:
                async with server.http.request("POST", plan.path, plan.request) as response:
                    if response.status != 200:
                        held.is_finished = True
                        param = "messages" if call.route == "chat" else "prompt"
                        body = await read_json(response, who=self.name)
                        raise wire.refusal(response.status, body, model=self.name, param=param)
                    streamed = _StreamedAnswer(
                        plan, _split(self.planner, plan.stream, sse_blocks(response, who=self.name))
                    )
                    await streamed.begin()
                    yield streamed
                    held.is_finished = streamed.is_finished

    @contextlib.contextmanager
    def _holding(self, server: LlamaServer, call: Call, width: int) -> Iterator[_Held]:
        held = _Held()
        self._active_slots[server.key] += width
        try:
            yield held
        finally:
            self._active_slots[server.key] -= width
            if not held.is_finished:
                task = tasks.start(self._until_slots_free(server), f"{self.name}-slots")
                self._waiting_for_slots.add(task)
                task.add_done_callback(self._waiting_for_slots.discard)
                call.hold.keep_until(task)

    async def _until_slots_free(self, server: LlamaServer) -> None:
        """Wait until llama.cpp uses no more slots than the running calls hold: it has dropped those that were left."""
        pause_s = 0.01
        while server.child.is_running:
            try:
                status, slots = await server.http.json("GET", "/slots")
            except EngineError:
                return  # the child is dying, and its slots with it
            if status != 200:
                _log.warning("no look at the slots model=%s status=%d", self.name, status)
                return
            if sum(slot["is_processing"] for slot in slots) <= self._active_slots[server.key]:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(0.2, pause_s * 2)

    async def _embed(self, server: LlamaServer, call: Call) -> Answer:
        request = {"model": self.name, "input": call.body["input"], "embd_normalize": 2}
        if call.body.get("encoding_format"):
            request["encoding_format"] = call.body["encoding_format"]
        status, body = await server.http.json("POST", "/v1/embeddings", request)
        if status != 200:
            raise wire.refusal(status, body, model=self.name, param="input")
        data = [{"object": "embedding", "index": one["index"], "embedding": one["embedding"]} for one in body["data"]]
        data.sort(key=lambda one: one["index"])
        return _WholeAnswer({"object": "list", "data": data, "model": self.name, "usage": body["usage"]})

    # ---- starting

    async def _launch_chat(self) -> LlamaServer:
        server = await start_chat(self.name, self._settings)
        try:
            self._planner = Planner(self.name, server, await learn(server, self.name, self._settings))
        except BaseException:
            await server.close()
            raise
        return server


class _WholeAnswer(Answer):
    def __init__(self, response: dict[str, Any]) -> None:
        self._response = response

    async def whole(self) -> dict[str, Any]:
        return self._response

    def blocks(self) -> AsyncIterator[Block]:
        raise AssertionError("this route does not stream")


async def _split(planner: Planner, stream: wire.Stream, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same blocks; before each, `stream` is told the tokens of its characters, where that matters."""
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
        return wire.assemble(chunks)

    async def blocks(self) -> AsyncIterator[Block]:
        for block in self._stream.feed(self._first):
            yield block
        async for events in self._blocks:
            for block in self._stream.feed(events):
                yield block
        self.is_finished = True
