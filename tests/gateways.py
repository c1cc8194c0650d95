"""A real gateway on a real socket, inside the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from chaku.cli.gateway import noting_admins
from chaku.engines.base import Engine
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.policies import GuestPolicy, Limits
from chaku.runs import ROOT
from chaku.serve.access import ActiveKeys
from chaku.serve.app import describe_model
from chaku.serve.batches.mount import add_batches
from chaku.serve.exchange import Exchange
from chaku.serve.fleet.routes import NoteAdmin, note_nothing
from chaku.serve.limits import LimitCounters
from chaku.serve.server import GatewayServer, Serving, bind, build, settings
from chaku.serve.table import ModelTable
from chaku.serve.traces import Traces
from chaku.settings import ModelConfig, ServeConfig
from chaku.store import keyring
from chaku.store.counters import Counters
from chaku.store.database import open_memory_store, open_store
from chaku.store.leases import LEASE_S
from chaku.web.application import mount
from chaku.web.arena import ArenaSettings
from chaku.web.page import NOT_KEPT, STATIC, PageFiles

page_files = functools.cache(PageFiles)  # they are read and compressed once


@dataclass(frozen=True)
class FoundKey:
    """A key that was found."""

    id: str
    scopes: frozenset[str] = frozenset({"infer", "page", "metrics"})

    limits: Limits = field(default_factory=Limits)
    expires_at: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def allows(self, scope: str) -> bool:
        return scope in self.scopes


@dataclass
class Keys:
    """A key ring in memory: token to id, and to scopes where they are not the usual ones."""

    known: dict[str, str] = field(default_factory=dict)
    scopes: dict[str, set[str]] = field(default_factory=dict)

    @property
    def num_active(self) -> int:
        return len(self.known)

    @property
    def num_of_callers(self) -> int:
        return sum(not self.scopes.get(token, {"infer"}) <= {"join", "metrics"} for token in self.known)

    def find(self, token: bytes) -> FoundKey | None:
        text = token.decode()
        if text not in self.known:
            return None
        return FoundKey(self.known[text], *([frozenset(self.scopes[text])] if text in self.scopes else []))

    def with_id(self, key_id: str) -> FoundKey | None:
        return next((self.find(token.encode()) for token, known in self.known.items() if known == key_id), None)


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
    *engines: Engine,
    keys: ActiveKeys | None = None,
    model: dict[str, Any] | None = None,
    wait: bool = True,
    port: int = 0,
    bare: bool = False,
    counters: LimitCounters | None = None,
    note_admin: NoteAdmin = note_nothing,
    traces: Traces | None = None,
    extend: Callable[[Serving, str], None] = lambda serving, url: None,
    **config: Any,
) -> AsyncIterator[Running]:
    """Serve `engines` (a scripted one by default, none if `bare`) on a free port until the block ends."""
    table = ModelTable()
    for engine in engines or (() if bare else (ScriptedEngine("scripted", Script()),)):
        table.add(engine, ModelConfig(source="test", **(model or {})), created=1_700_000_000)
    exchanges: list[Exchange] = []
    serving = build(ServeConfig(**config), table, keys or Keys(), exchanges.append, counters, note_admin, traces=traces)
    listener = bind("127.0.0.1", port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert serving.own_api is not None
    serving.own_api.base_url = f"{url}/v1"
    try:
        extend(serving, url)
        for companion in serving.companions:
            await companion.start()
    except BaseException:
        listener.close()
        raise
    server = GatewayServer(settings(serving, grace_s=1), serving.companions)
    task = asyncio.create_task(server._serve(sockets=[listener]))
    starting = asyncio.create_task(table.start())
    try:
        if wait:
            await starting
        async with aiohttp.ClientSession() as http:
            yield Running(url, serving, http, exchanges)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        server.should_exit = True
        await task
        for companion in serving.companions:
            await companion.stop()
        if serving.moderator is not None:
            await serving.moderator.close()
        await table.stop()
        listener.close()


@contextlib.asynccontextmanager
async def page_gateway(
    database: Path | str,
    *engines: Engine,
    static: Path = STATIC,
    lease_s: float = LEASE_S,
    runs: Path = ROOT,
    evals: Path = Path("evals"),
    arena: ArenaSettings | None = None,
    guests: GuestPolicy | None = None,
    user_header: str | None = None,
    keep: bool = True,
    batch_parallel: int = 2,
    **options: Any,
) -> AsyncIterator[Running]:
    """The same with its page, over a real database: a file of SQLite, or a URL."""

    def extend(serving: Serving, url: str) -> None:
        def models() -> list[Any]:
            return [describe_model(served) for served in serving.table]

        batching = ServeConfig(keep=keep, batch_parallel=batch_parallel)
        add_batches(serving, store, f"{url}/v1", batching, lease_s=lease_s)
        serving.companions.append(
            mount(
                serving.app,
                store,
                keys,
                serving.access,
                models=models,
                base_url=f"{url}/v1",
                page=page_files(static, note=None if keep else NOT_KEPT),
                lease_s=lease_s,
                runs=runs,
                evals=evals,
                arena=arena,
                fleet=serving.fleet,
                guests=guests,
                user_header=user_header,
                check_prompt=serving.moderator.check_prompt if serving.moderator else None,
                said=said,
            )
        )

    said = None if keep else open_memory_store()
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    with open_store(url) as store, keyring.KeyRing(store, interval_s=0.05) as keys:
        async with gateway(
            *engines,
            keys=keys,
            counters=Counters(store),
            note_admin=noting_admins(store),
            extend=extend,
            guests=guests,
            user_header=user_header,
            **options,
        ) as running:
            yield running


def scripted(*replies: Reply, name: str = "scripted", **script: Any) -> ScriptedEngine:
    """A scripted engine with these replies."""
    return ScriptedEngine(name, Script(replies=replies, **script) if replies else Script(**script))


def says(text: str, **fields: Any) -> Any:
    """A scripted engine that says this, whatever it is asked."""
    return scripted(Reply(text=text, **fields))


CHAT = "/v1/chat/completions"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
"""A PNG of one black pixel, in base64."""


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A minimal chat request."""
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}
