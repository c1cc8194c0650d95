"""Users whom a proxy names: believed from a trusted address alone, each with chats of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chaku.config import load
from chaku.engines.scripted import Reply
from chaku.errors import ConfigError
from chaku.settings import ServeConfig
from chaku.store import guests, keys
from chaku.store.database import open_store
from chaku.store.users import Users
from gateways import chat, page_gateway, scripted
from tabs import Refused, Tab, tab

HEADER = "X-Forwarded-User"
TRUSTED, ELSEWHERE = ("127.0.0.0/8",), ("203.0.113.0/24",)


def proxy_gateway(database: Path, trusted: tuple[str, ...] = TRUSTED, **options: Any):
    engine = scripted(Reply(text="You said: {prompt}"))
    return page_gateway(database, engine, user_header=HEADER, trusted_proxies=trusted, **options)


def through_proxy(me: Tab, *names: str) -> Tab:
    """The proxy adds its header to all that this tab sends."""
    for name in names:
        me.http.headers.add(HEADER, name)
    return me


async def test_a_trusted_proxy_names_the_user_who_has_chats_of_their_own(database: Path) -> None:
    async with proxy_gateway(database) as g, tab(g) as first, tab(g) as again, tab(g) as other:
        ann, ann_elsewhere, bob = through_proxy(first, "ann"), through_proxy(again, "ann"), through_proxy(other, "bob")
        session = await ann.call("GET", "/session")
        assert session["user"] == {"name": "ann", "kind": "user"}
        assert not (session["sees_runs"] or session["sees_keys"] or session["sees_fleet"])
        chat_id = await ann.chat()
        _, answer = await ann.ask(chat_id, "hello")
        assert (answer["state"], answer["content"]) == ("complete", "You said: hello")
        assert [found["id"] for found in (await ann_elsewhere.call("GET", "/chats"))["chats"]] == [chat_id]
        assert (await bob.call("GET", "/chats"))["chats"] == []
        with pytest.raises(Refused, match="404"):
            await bob.call("GET", f"/chats/{chat_id}")
        with pytest.raises(Refused, match="403"):
            await ann.call("GET", "/keys")
        assert (await g.post("/v1/chat/completions", chat(), headers={HEADER: "ann"}))[0] == 401


async def test_from_any_other_address_the_header_counts_for_nothing(database: Path) -> None:
    async with proxy_gateway(database, ELSEWHERE) as g, tab(g) as me:
        through_proxy(me, "ann")
        assert (await me.call("GET", "/session"))["user"] is None
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats")
        forwarded = {"X-Forwarded-For": "203.0.113.9"}  # what a visitor says of itself makes it no proxy
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats", headers=forwarded)
    with open_store(f"sqlite:///{database}") as store:
        assert guests.list_guests(store) == []


@pytest.mark.parametrize("names", [(), ("",), ("  ",)])
async def test_without_a_name_nobody_is_let_in_and_never_the_local_user(database: Path, names: tuple[str, ...]) -> None:
    async with proxy_gateway(database) as g, tab(g) as me:
        session = await through_proxy(me, *names).call("GET", "/session")
        assert (session["user"], session["login_required"]) == (None, True)
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats")


@pytest.mark.parametrize(
    "names", [("eve", "ann"), ("eve, ann",), ("ann", ""), ("", "ann"), ("x" * 201,), ("a\tb",), ("\u200bann",)]
)
async def test_a_header_that_does_not_name_one_user_is_refused(database: Path, names: tuple[str, ...]) -> None:
    async with proxy_gateway(database) as g, tab(g) as me:
        with pytest.raises(Refused, match="user_header_unclear") as refused:
            await through_proxy(me, *names).call("GET", "/chats")
        assert refused.value.status == 401
    with open_store(f"sqlite:///{database}") as store:
        assert guests.list_guests(store) == []


async def test_names_are_text_and_the_proxys_word_goes_before_a_cookie(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        admin = keys.create(store, "admin", now=datetime.now(UTC), scopes={"admin", "page"})
    async with proxy_gateway(database) as g, tab(g, admin.token) as me:
        assert (await me.call("GET", "/session"))["user"] == {"name": "admin", "kind": "key"}
        through_proxy(me, "zoë@example.org")
        session = await me.call("GET", "/session")
        assert (session["user"], session["sees_keys"]) == ({"name": "zoë@example.org", "kind": "user"}, False)


async def test_a_blocked_user_is_out_with_a_cookie_too(database: Path) -> None:
    async with proxy_gateway(database) as g, tab(g) as me:
        through_proxy(me, "ann")
        await me.chat()
        with open_store(f"sqlite:///{database}") as store:
            guests.block(store, "ann", now=datetime.now(UTC))
            with pytest.raises(Refused, match="login_required"):
                await me.call("GET", "/chats")
            guests.block(store, "ann", now=None)
            assert len((await me.call("GET", "/chats"))["chats"]) == 1
            guests.delete(store, "ann")
        assert (await me.call("GET", "/chats"))["chats"] == []


def test_a_user_is_never_the_key_or_the_guest_of_that_name(database: Path) -> None:
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{database}") as store:
        key = keys.create(store, "ann", now=now).key
        users = Users(store)
        ann = users.find("ann", now=now)
        assert ann is not None and ann.id != key.id
        assert Users(store).find("ann", now=now) == ann and users.with_id(ann.id) == ann
        assert users.with_id(key.id) is None and not ann.allows("infer")
        assert [found.id for found in keys.list_keys(store)] == [key.id]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"user_header": "X-User"}, "--trusted-proxy"),
        ({"user_header": "Cookie", "trusted_proxies": TRUSTED}, "'Cookie'"),
        ({"user_header": "X User", "trusted_proxies": TRUSTED}, "'X User'"),
        ({"user_header": "", "trusted_proxies": TRUSTED}, "''"),
    ],
)
def test_a_header_that_no_proxy_may_fill_is_refused_at_start(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ServeConfig, flags=flags)
    assert words in str(caught.value)
