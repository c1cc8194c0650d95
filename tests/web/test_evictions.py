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
from tabs import Tab, tab


async def streamed(g: Running, key: str, begun: asyncio.Event) -> list[Any]:
    """The events of an answer of the API; `begun` is set when the first has come."""
    events = []
    async with g.http.post(g.url + CHAT, json=chat(stream=True), headers={"Authorization": f"Bearer {key}"}) as answer:
        async for line in answer.content:
            if line.startswith(b"data: {"):
                events.append(orjson.loads(line[6:]))
                begun.set()
    return events


async def begin(one: Tab) -> tuple[str, str]:
    """A chat, and its answer that has begun."""
    chat_id = await one.chat()
    _, answer = await one.say(chat_id, "Hi")
    async with one.stream(f"/chats/{chat_id}/messages/{answer['id']}/stream") as events:
        async for _, event in events:
            if event["type"] == "delta" or event.get("message", {}).get("content"):
                break
    return chat_id, answer["id"]


async def test_only_answers_of_who_is_shut_out_end_and_they_are_booked(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaku.serve.evictions.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("chaku.store.seen.MAX_KNOWN", 1)  # each guest pushes the one before out of the memory
    slow = scripted(Reply(text="word " * 2000, token_delay_s=0.05))
    with open_store(f"sqlite:///{database}") as store:
        bob, dan, eve = (keys.create(store, name, now=datetime.now(UTC)) for name in ("bob", "dan", "eve"))
        async with (
            page_gateway(database, slow, guests=GuestPolicy()) as g,
            tab(g, bob.token) as me,
            tab(g, eve.token) as other,
            tab(g) as blocked,
            tab(g) as pushed_out,
            tab(g) as latest,
        ):
            name = (await blocked.call("POST", "/guest"))["user"]["name"]
            its_chat, its_answer = await begin(blocked)
            await pushed_out.call("POST", "/guest")
            untouched = {pushed_out: await begin(pushed_out)}
            await latest.call("POST", "/guest")
            await begin(me)
            untouched[other] = await begin(other)
            begun = [asyncio.Event(), asyncio.Event()]
            streams = [
                asyncio.create_task(streamed(g, one.token, event)) for one, event in zip((bob, dan), begun, strict=True)
            ]
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(event.wait() for event in begun))
            keys.revoke(store, "bob", now=datetime.now(UTC))
            keys.edit(store, "dan", expires_at=datetime.now(UTC))
            block(store, name, now=datetime.now(UTC))
            async with asyncio.timeout(PATIENCE_S):
                ends = [events[-1] for events in await asyncio.gather(*streams)]
                assert [end["error"]["code"] for end in ends] == ["invalid_api_key"] * 2
                while len(g.exchanges) < 4:
                    await asyncio.sleep(0.02)
            assert [exchange.status for exchange in g.exchanges] == [401] * 4
            assert all(0 < exchange.completion_tokens < 2000 for exchange in g.exchanges)
            block(store, name, now=None)
            async with asyncio.timeout(PATIENCE_S):
                shown = {"state": "streaming"}
                while shown["state"] == "streaming":
                    shown = (await blocked.call("GET", f"/chats/{its_chat}"))["messages"][-1]
            assert (shown["id"], shown["state"]) == (its_answer, "failed") and shown["content"].startswith("word ")
            assert "withdrawn" in shown["error"]["message"]
            for one, (chat_id, message_id) in untouched.items():
                stopped = await one.call("POST", f"/chats/{chat_id}/messages/{message_id}/stop")
                assert stopped["answer"]["state"] == "stopped"
