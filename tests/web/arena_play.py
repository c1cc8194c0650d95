"""A battle as a visitor plays it: begun, asked, voted and looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chaku.engines.scripted import Reply
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.web.arena import ArenaSettings
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

NAMES = ("zebrafish-7b", "quokka-3b")
CONSENT = {"consent": {"keep": True, "publish": True}}


def engine(name: str, text: str = "", **fields: Any):
    return scripted(Reply(text=text or f"{name[0]} says: {{prompt}}", **fields), name=name)


@contextlib.asynccontextmanager
async def arena(database: Path, *engines: Any, **settings: Any) -> AsyncIterator[Tab]:
    engines = engines or tuple(engine(name) for name in NAMES)
    async with page_gateway(database, *engines, arena=ArenaSettings(**settings)) as g, tab(g) as me:
        yield me


async def begun(me: Tab, **consent: Any) -> str:
    return (await me.call("POST", "/arena/battles", {"consent": {"keep": True, "publish": True, **consent}}))["id"]


async def played(me: Tab, battle: str, content: str = "Hello") -> list[dict]:
    """The events of one whole turn."""
    await me.call("POST", f"/arena/battles/{battle}/turns", {"content": content})
    return await events_of(me, battle)


async def events_of(me: Tab, battle: str, **options: Any) -> list[dict]:
    async with asyncio.timeout(PATIENCE_S), me.stream(f"/arena/battles/{battle}/events", **options) as events:
        return [event async for _, event in events]


async def shown(me: Tab, battle: str) -> dict:
    return await me.call("GET", f"/arena/battles/{battle}")


async def voted(me: Tab, battle: str, choice: str = "a", **fields: Any) -> dict:
    token = (await shown(me, battle))["token"]
    return await me.call("POST", f"/arena/battles/{battle}/vote", {"choice": choice, "token": token, **fields})


async def refusal(call: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.status, refused.value.error["code"]


def counted(database: Path) -> list[Any]:
    with open_store(f"sqlite:///{database}") as store:
        return ComparisonBook(store).games()
