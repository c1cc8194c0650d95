"""A real gateway on a real socket, inside the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn

from chaku.config import ModelConfig, ServeConfig
from chaku.engines.base import Engine
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.serve.app import describe_model
from chaku.serve.exchange import Exchange
from chaku.serve.server import Serving, bind, build
from chaku.serve.table import ModelTable
from chaku.web import landing


@dataclass(frozen=True)
class FoundKey:
    """A key that was found."""

    id: str


@dataclass
class Keys:
    """A key ring in memory: token to id."""

    known: dict[str, str] = field(default_factory=dict)

    @property
    def num_made(self) -> int:
        return len(self.known)

    num_active = num_made

    def find(self, token: bytes) -> FoundKey | None:
        key_id = self.known.get(token.decode())
        return FoundKey(key_id) if key_id else None


@dataclass
class Running:
    """A gateway under test and what it noted."""

    url: str
    serving: Serving
    http: aiohttp.ClientSession
    exchanges: list[Exchange]

    async def post(self, path: str, body: Any, **kwargs: Any) -> tuple[int, Any, Any]:
        """Status, parsed body, headers."""
        async with self.http.post(self.url + path, json=body, **kwargs) as response:
            return response.status, await response.json(), response.headers

    async def events(self, path: str, body: Any) -> list[str]:
        """The data of every event of a stream."""
        async with self.http.post(self.url + path, json=body) as response:
            assert response.status == 200, await response.text()
            text = await response.text()
        return [event.removeprefix("data: ") for event in text.split("\n\n") if event]


@contextlib.asynccontextmanager
async def gateway(
    *engines: Engine, keys: Keys | None = None, model: dict[str, Any] | None = None, wait: bool = True, **config: Any
) -> AsyncIterator[Running]:
    """Serve `engines` (a scripted one by default) on a free port until the block ends."""
    table = ModelTable()
    for engine in engines or (ScriptedEngine("scripted", Script()),):
        table.add(engine, ModelConfig(source="test", **(model or {})), created=1_700_000_000)
    exchanges: list[Exchange] = []
    serving = build(ServeConfig(**config), table, keys or Keys(), exchanges.append)
    landing.mount(serving.app, lambda: [describe_model(served) for served in table])
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(serving.gateway, log_config=None, lifespan="off", http="httptools", timeout_graceful_shutdown=1)
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve(sockets=[listener]))
    starting = asyncio.create_task(table.start())
    if wait:
        await starting
    try:
        async with aiohttp.ClientSession() as http:
            yield Running(url, serving, http, exchanges)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        server.should_exit = True
        await task
        await table.stop()
        listener.close()


def scripted(*replies: Reply, name: str = "scripted", **script: Any) -> ScriptedEngine:
    """A scripted engine with these replies."""
    return ScriptedEngine(name, Script(replies=replies, **script) if replies else Script(**script))


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A minimal chat request."""
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}
