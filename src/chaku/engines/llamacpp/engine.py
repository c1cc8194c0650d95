"""llama.cpp as an engine: its own server in a child process, reached over loopback with a random key.

Two children at most: one for chats and completions, and one, started by the first such call, for embeddings. A pooled
input must fit one physical batch, and so large a batch would make every chat wait behind another's prefill.
What was measured, and why the defaults are what they are: docs/engines.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chaku.engines.base import Answer, Call, Capabilities, Engine, Status
from chaku.engines.llamacpp.child import Settings, start_chat, start_embeddings
from chaku.engines.llamacpp.model import learn
from chaku.engines.llamacpp.plan import Planner
from chaku.engines.llamacpp.speaker import Speaker
from chaku.engines.supervisor import ChildSupervisor

__all__ = ["LlamaCppEngine", "Settings"]


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
            self._launch_embeddings,
            idle_unload_s=settings.idle_unload_s or 600.0,
            when_asked=True,
        )
        self._planner: Planner | None = None

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
        server = self._chat.running.server
        return server.http.base_url, server.key

    async def stop(self) -> None:
        """End both children."""
        outcomes = await asyncio.gather(self._chat.stop(), self._embeddings.stop(), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # only now: both were asked to end

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """See `Engine.ask` and `Speaker.ask`."""
        if call.route == "embeddings":
            async with self._embeddings.use() as speaker:
                self.planner.check_ids(call.body["input"], "input")
                yield await speaker.embed(call)
        else:
            async with self._chat.use() as speaker, speaker.ask(self.planner, call) as answer:
                yield answer

    async def _launch_chat(self) -> Speaker:
        server = await start_chat(self.name, self._settings)
        try:
            self._planner = Planner(self.name, server, await learn(server, self.name, self._settings))
        except BaseException:
            await server.close()
            raise
        return Speaker(self.name, server)

    async def _launch_embeddings(self) -> Speaker:
        return Speaker(self.name, await start_embeddings(self.name, self._settings))
