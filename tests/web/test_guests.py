"""Guests use the page without a key: with a notice, limits and chats of their own, and nothing of anybody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from canned_engine import CannedEngine
from chaku.engines.scripted import Reply
from chaku.errors import ConfigError, NotFound
from chaku.policies import GuestPolicy, Limits
from chaku.serve.access import Access
from chaku.settings import ServeConfig
from chaku.store import guests, keys
from chaku.store.database import open_store
from chaku.store.tables import conversations, messages, visitors
from gateways import Keys, chat, page_gateway, scripted
from tabs import Refused, Tab, tab

LIMITS = Limits(requests_per_minute=2, max_tokens=20)


def guest_gateway(database: Path, **policy: Any):
    rules = GuestPolicy(**{"limits": LIMITS, **policy})
    return page_gateway(database, scripted(Reply(text="You said: {prompt}")), guests=rules)


async def begin(me: Tab) -> dict[str, Any]:
    return await me.call("POST", "/guest")


async def asked(me: Tab, text: str = "hello") -> dict[str, Any]:
    """A chat with one answer; the answer's message when it has ended."""
    chat_id = await me.chat()
    _, answer = await me.say(chat_id, text)
    return await me.whole(chat_id, answer["id"]) | {"chat": chat_id}


async def test_a_guest_reads_the_notice_then_chats_and_sees_only_his_own_chats(database: Path) -> None:
    async with guest_gateway(database) as g, tab(g) as ann, tab(g) as bob:
        before = await ann.call("GET", "/session")
        assert (before["user"], before["login_required"]) == (None, True)
        notice = " ".join(before["guest_notice"])
        for word in (
            "research preview",
            "reasoning",
            "mathematics",
            "facts",
            "unsafe",
            "stored",
            "30 days",
            "2 requests",
        ):
            assert word in notice, word
        with pytest.raises(Refused):
            await ann.call("GET", "/chats")
        session = await begin(ann)
        assert (session["user"]["kind"], session["guest_notice"], session["sees_fleet"]) == ("guest", None, False)
        answer = await asked(ann)
        assert (answer["state"], answer["content"]) == ("complete", "You said: hello")
        await begin(bob)
        assert (await bob.call("GET", "/chats"))["chats"] == []
        with pytest.raises(Refused) as refused:
            await bob.call("GET", f"/chats/{answer['chat']}")
        assert refused.value.status == 404
        assert len((await ann.call("GET", "/chats"))["chats"]) == 1


async def test_a_guest_sees_the_models_that_he_may_ask_and_no_others(database: Path) -> None:
    rules = GuestPolicy(limits=Limits(models=("mine",)))
    async with page_gateway(database, scripted(name="mine"), scripted(name="other"), guests=rules) as g, tab(g) as ann:
        await begin(ann)
        assert [row["id"] for row in (await ann.call("GET", "/models"))["models"]] == ["mine"]
        async with ann.stream("/events") as events:
            _, first = await anext(events)
        assert (first["type"], [row["id"] for row in first["models"]]) == ("models", ["mine"])


async def test_a_guest_has_limits_and_no_api(database: Path) -> None:
    async with guest_gateway(database) as g, tab(g) as ann:
        await begin(ann)
        states = [(await asked(ann)) for _ in range(3)]
        assert [answer["state"] for answer in states] == ["complete", "complete", "failed"]
        assert states[2]["error"]["code"] == "rate_limit_exceeded"
        status, _, _ = await g.post("/v1/chat/completions", chat())
        assert status == 401
        assert all(exchange.key_id for exchange in g.exchanges if exchange.status == 200)


async def test_a_message_that_moderation_refused_does_not_have_the_next_ones_refused(database: Path) -> None:
    engine = CannedEngine({"content": "fine"})
    async with page_gateway(database, engine, moderation={"patterns": {"secret": "project x"}}) as g, tab(g) as me:
        chat_id = await me.chat()
        _, refused = await me.ask(chat_id, "tell me of project x", model="canned")
        _, answer = await me.ask(chat_id, "and the weather?", refused["id"], model="canned")
    assert (refused["state"], refused["error"]["code"]) == ("failed", "content_filter")
    assert (answer["state"], answer["content"]) == ("complete", "fine")
    assert [message["content"] for message in engine.bodies[-1]["messages"]] == ["and the weather?"]


async def test_a_blocked_guest_is_out_and_one_limit_of_its_own_wins(database: Path) -> None:
    async with guest_gateway(database) as g, tab(g) as ann:
        name = (await begin(ann))["user"]["name"]
        with open_store(f"sqlite:///{database}") as store:
            guests.set_limits(store, name, {"requests_per_minute": 1})
            assert [(await asked(ann))["state"] for _ in range(2)] == ["complete", "failed"]
            guests.block(store, name, now=datetime.now(UTC))
            assert (await ann.call("GET", "/session"))["user"] is None
            with pytest.raises(Refused) as refused:
                await ann.call("GET", "/chats")
            assert refused.value.status == 401
            guests.block(store, name, now=None)
        assert (await ann.call("GET", "/session"))["user"]["name"] == name


async def test_one_address_begins_so_many_guests_and_no_more(database: Path) -> None:
    async with guest_gateway(database, new_per_hour=2) as g:
        codes = []
        for _ in range(3):
            async with tab(g) as someone:
                try:
                    await begin(someone)
                except Refused as refused:
                    codes.append((refused.status, refused.error["code"]))
    assert codes == [(429, "too_many_guests")]


async def test_without_guests_nobody_begins_as_one(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        keys.create(store, "ann", now=datetime.now(UTC))
    async with page_gateway(database) as g, tab(g) as me:
        assert (await me.call("GET", "/session"))["guest_notice"] is None
        with pytest.raises(Refused) as refused:
            await begin(me)
    assert refused.value.status == 403


async def test_a_guest_who_is_deleted_or_forgotten_leaves_nothing(database: Path) -> None:
    async with guest_gateway(database) as g, tab(g) as ann, tab(g) as bob:
        name = (await begin(ann))["user"]["name"]
        await asked(ann)
        await begin(bob)
        await asked(bob)
        with open_store(f"sqlite:///{database}") as store:
            assert guests.delete(store, name)[0].name == name
            with pytest.raises(NotFound, match="visitors list"):
                guests.delete(store, name)
            assert guests.forget(store, datetime.now(UTC) - timedelta(days=1)) == 0
            assert guests.forget(store, datetime.now(UTC) + timedelta(days=1)) == 1
            with store.read() as connection:
                for table in (visitors, conversations, messages):
                    assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0
        assert (await ann.call("GET", "/session"))["user"] is None


@pytest.mark.parametrize("open_to", [{"host": "0.0.0.0"}, {"public_url": "https://chat.example"}])
def test_an_open_address_demands_keys_or_guests_and_makes_nobody_the_local_user(open_to: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--guests"):
        Access(ServeConfig(**open_to), Keys())
    assert Access(ServeConfig(**open_to, guests=True), Keys()).needs_key
    assert Access(ServeConfig(guests=True), Keys()).needs_key
