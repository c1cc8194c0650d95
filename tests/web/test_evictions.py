"""Who is shut out while an answer is written gets no more of it; what was written is kept and booked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaku.engines.scripted import Reply
from chaku.policies import GuestPolicy
from chaku.store import keys
from chaku.store.database import open_store
from chaku.store.guests import block
from gateways import CHAT, Running, chat, page_gateway, scripted
from processes import PATIENCE_S
from tabs import tab


async def streamed(g: Running, key: str) -> list[Any]:
    """The events of an answer of the API."""
    async with g.http.post(g.url + CHAT, json=chat(stream=True), headers={"Authorization": f"Bearer {key}"}) as answer:
        return [orjson.loads(line[6:]) async for line in answer.content if line.startswith(b"data: {")]


async def test_answers_of_a_revoked_key_and_of_a_blocked_guest_end_and_are_booked(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaku.serve.evictions.LOOK_EVERY_S", 0.1)
    slow = scripted(Reply(text="word " * 200, token_delay_s=0.05))
    with open_store(f"sqlite:///{database}") as store:
        bob, eve = (keys.create(store, name, now=datetime.now(UTC)) for name in ("bob", "eve"))
        async with (
            page_gateway(database, slow, guests=GuestPolicy()) as g,
            tab(g, bob.token) as me,
            tab(g, eve.token) as other,
            tab(g) as guest,
        ):
            name = (await guest.call("POST", "/guest"))["user"]["name"]
            chats = [await one.chat() for one in (me, guest, other)]
            _, theirs, untouched = [
                (await one.say(c, "Hi"))[1] for one, c in zip((me, guest, other), chats, strict=True)
            ]
            streaming = asyncio.create_task(streamed(g, bob.token))
            await asyncio.sleep(0.3)
            keys.revoke(store, "bob", now=datetime.now(UTC))
            block(store, name, now=datetime.now(UTC))
            async with asyncio.timeout(PATIENCE_S):
                assert (await streaming)[-1]["error"]["code"] == "invalid_api_key"
                while len(g.exchanges) < 3:
                    await asyncio.sleep(0.02)
            assert [exchange.status for exchange in g.exchanges] == [401] * 3
            assert all(0 < exchange.completion_tokens < 200 for exchange in g.exchanges)
            block(store, name, now=None)
            async with asyncio.timeout(PATIENCE_S):
                shown = {"state": "streaming"}
                while shown["state"] == "streaming":
                    shown = (await guest.call("GET", f"/chats/{chats[1]}"))["messages"][-1]
            assert (shown["id"], shown["state"]) == (theirs["id"], "failed") and shown["content"].startswith("word ")
            assert "withdrawn" in shown["error"]["message"]
            stopped = await other.call("POST", f"/chats/{chats[2]}/messages/{untouched['id']}/stop")
            assert stopped["answer"]["state"] == "stopped"
