"""Who sees what: the local user, sessions and keys, and pages of other sites."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount, Route

from chaku.engines.scripted import Reply
from chaku.store import keys
from chaku.store.database import open_store
from chaku.store.keys import NewKey
from chaku.store.sessions import MAX_IDLE
from gateways import Running, page_gateway, scripted
from gateways import chat as chat_request
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

OPEN = {"/session", "/login", "/logout", "/guest"}
OF_THE_MACHINE = {"/runs", "/runs/{run}", "/models/kept"} | {
    "/fleet", "/fleet/{worker}/drain", "/fleet/{worker}/reload", "/fleet/{worker}/logs",
    "/arena/operator", "/arena/operator/exclusions", "/evals", "/evals/{run}", "/evals/{run}/disagree",
    "/keys", "/keys/{key}",
}  # fmt: skip
REFUSED_TO_ALL = {("POST", "/arena/battles"): 409, ("GET", "/arena/battles"): 400}
"""One model is not a pair; a list of battles is that of a pair."""
NOBODYS = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def bob(database: Path) -> NewKey:
    return make_key(database, "bob")


@pytest.fixture
def eve(database: Path, bob: NewKey) -> NewKey:
    return make_key(database, "eve")


def make_key(database: Path, name: str) -> NewKey:
    with open_store(f"sqlite:///{database}") as store:
        return keys.create(store, name, now=datetime.now(UTC))


def revoke(database: Path, name: str) -> None:
    with open_store(f"sqlite:///{database}") as store:
        keys.revoke(store, name, now=datetime.now(UTC))


def routes(g: Running) -> Iterator[tuple[str, str]]:
    """Method and path of everything below /api."""
    (api,) = [route for route in g.serving.app.routes if isinstance(route, Mount) and route.path == "/api"]
    for route in api.routes:
        assert isinstance(route, Route) and route.methods is not None
        for method in route.methods - {"HEAD"}:
            yield method, route.path


def body_for(method: str, path: str, ids: dict[str, str]) -> Any:
    """A body that fits, so that nothing but the visitor is at fault."""
    bodies: dict[str, Any] = {
        "/chats": {"title": "Eve's"},
        "/login": {"key": "ck-wrong"},
        "/keys": {"name": "eve", "scopes": ["admin"]},
        "/import": b'{"messages": [{"role": "user", "content": "Eve\'s"}]}',
        "/chats/{chat}": {"title": "taken over", "leaf_id": ids["user"]},
        "/chats/{chat}/messages": {"parent_id": ids["user"], "content": "taken over", "model": "scripted"},
        "/chats/{chat}/answers": {"parent_id": ids["user"], "model": "scripted"},
        "/chats/{chat}/messages/{message}/continue": {},
        "/chats/{chat}/messages/{message}/edit": {"content": "taken over"},
        "/chats/{chat}/messages/{message}/feedback": {"value": "down", "consent": True},
        "/arena/battles": {"consent": {"keep": True, "publish": False}},
        "/arena/battles/{battle}/turns": {"content": "taken over"},
        "/arena/battles/{battle}/vote": {"choice": "tie", "token": "guess"},
        "/arena/operator/exclusions": {"kind": "battle", "id": ids["battle"], "reason": "taken over"},
        "/compare/votes": {
            "answers": [{"chat": ids["chat"], "message": ids["message"]}] * 2, "choice": "tie", "is_blind": False,
        },
    }  # fmt: skip
    if (method, path) == ("PATCH", "/arena/battles/{battle}/vote"):
        return {"reasons": []}
    return bodies.get(path) if method in ("POST", "PATCH", "PUT") else None


async def test_without_keys_there_is_one_local_user(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, tab(g) as other:
        session = await me.call("GET", "/session")
        assert (session["login_required"], session["user"]) == (False, {"name": "local", "kind": "local"})
        assert await me.call("POST", "/login", {"key": "anything"}) == session
        chat = await me.chat()
        await me.ask(chat, "Hi")
        assert await other.texts(chat) == ["Hi", "You said: Hi"]
        assert [exchange.key_id for exchange in g.exchanges] == [None]
        assert not list(me.http.cookie_jar)


async def test_with_keys_nothing_but_the_login_answers_a_stranger(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g) as stranger:
        session = await stranger.call("GET", "/session")
        assert (session["login_required"], session["user"]) == (True, None)
        ids = {
            "chat": bob.key.id,
            "message": bob.key.id,
            "user": bob.key.id,
            "run": "r",
            "key": "k",
            "worker": "w",
            "battle": NOBODYS,
        }
        checked = 0
        for method, path in routes(g):
            if path not in OPEN:
                with pytest.raises(Refused) as refused:
                    await stranger.call(method, path.format(**ids), body_for(method, path, ids))
                assert (refused.value.status, refused.value.error["code"]) == (401, "login_required"), path
                checked += 1
    assert checked >= 15


async def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_can_use(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        status, _, headers = await me.raw("POST", "/api/login", {"key": f" {bob.token}\n"})
        attributes = {part.strip().lower() for part in headers["set-cookie"].split(";")}
        assert status == 200
        assert {"httponly", "samesite=strict", "path=/", f"max-age={int(MAX_IDLE.total_seconds())}"} <= attributes
        assert "secure" not in attributes and bob.token not in headers["set-cookie"]
        session = await me.call("GET", "/session")
        assert (session["login_required"], session["user"]) == (True, {"name": "bob", "kind": "key"})
        (cookie,) = [cookie.value for cookie in me.http.cookie_jar]
        await me.call("POST", "/logout")
        assert not list(me.http.cookie_jar)
        for token in (cookie, "", "guess", bob.token):
            with pytest.raises(Refused, match="login_required"):
                await me.call("GET", "/chats", headers={"cookie": f"chaku_session={token}"})
        await me.call("POST", "/login", {"key": bob.token})
        (before,) = [cookie.value for cookie in me.http.cookie_jar]
        await me.call("POST", "/login", {"key": bob.token})
        with pytest.raises(Refused, match="login_required"):  # a new login ends the session it replaces
            async with tab(g) as other:
                await other.call("GET", "/chats", headers={"cookie": f"chaku_session={before}"})


async def test_wrong_keys_are_refused_and_after_ten_of_them_so_is_the_right_one(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        for _ in range(10):
            with pytest.raises(Refused, match="401") as refused:
                await me.call("POST", "/login", {"key": "ck-wrong"})
            assert refused.value.error["code"] == "invalid_api_key"
        status, body, headers = await me.raw("POST", "/api/login", {"key": bob.token})
        assert (status, b"too_many_logins" in body) == (429, True)
        assert 50 < int(headers["retry-after"]) <= 60


async def test_a_key_made_a_moment_ago_opens_the_door(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g:
        async with tab(g, bob.token):
            pass
        new = make_key(database, "new")
        async with tab(g, new.token) as me:
            assert (await me.call("GET", "/session"))["user"]["name"] == "new"


async def test_a_revoked_key_ends_its_sessions_and_its_open_streams(
    database: Path, bob: NewKey, eve: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaku.web.streams.KEEP_ALIVE_S", 0.2)
    async with page_gateway(database) as g, tab(g, bob.token) as me, tab(g, eve.token) as other:
        async with me.stream("/events") as mine, other.stream("/events") as theirs:
            await anext(mine)
            await anext(theirs)
            revoke(database, "bob")
            with pytest.raises(Refused, match="login_required"):
                await me.call("GET", "/chats")
            async with asyncio.timeout(PATIENCE_S):
                assert {event["type"] async for _, event in mine} <= {"models"}
            await other.chat(title="still here")
            titles = (event["chat"]["title"] async for _, event in theirs if event["type"] == "chat")
            assert await anext(titles) == "still here"
        with pytest.raises(Refused, match="invalid_api_key"):
            await me.call("POST", "/login", {"key": bob.token})


async def test_usage_is_booked_on_the_key_of_the_session(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g, bob.token) as me:
        _, answer = await me.ask(await me.chat(), "Hi")
        assert answer["state"] == "complete"
    assert [(exchange.key_id, exchange.status) for exchange in g.exchanges] == [(bob.key.id, 200)]


async def test_what_the_page_shows_the_gateway_for_a_key_can_not_be_guessed(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, page_gateway(database) as another:
        inside = g.serving.access.inside_token(bob.key.id)
        foreign = another.serving.access.inside_token(bob.key.id)
        for token, status in ((inside, 200), (foreign, 401), (f".{bob.key.id}", 401), (".", 401), (inside[1:], 401)):
            got, _, _ = await g.post(
                "/v1/chat/completions", chat_request(), headers={"authorization": f"Bearer {token}"}
            )
            assert got == status, token


async def snapshot(me: Tab) -> Any:
    """Everything that someone has."""
    rows = (await me.call("GET", "/chats?limit=200"))["chats"]
    return [await me.call("GET", f"/chats/{row['id']}") for row in rows]


async def test_no_route_shows_or_changes_what_is_someone_elses(database: Path, bob: NewKey, eve: NewKey) -> None:
    engine = scripted(
        Reply(match="run", text="secret secret", fault="hang", fault_after_tokens=1), Reply(text="secret")
    )
    async with page_gateway(database, engine) as g, tab(g, bob.token) as his, tab(g, eve.token) as hers:
        chat = await his.chat(title="secret plan", system="secret")
        user, answer = await his.ask(chat, "a secret")
        _, running = await his.say(chat, "run, secret", answer["id"])
        gone = await his.chat(title="secret, gone")
        await his.call("DELETE", f"/chats/{gone}")
        await asyncio.sleep(0.1)
        before = await snapshot(his)
        assert before[0]["messages"][-1]["state"] == "streaming"
        own = await hers.chat(title="hers")
        checked = 0
        async with hers.stream("/events") as events:
            for of_chat, message in itertools.product((chat, gone, own), (user["id"], answer["id"], running["id"])):
                ids = {
                    "chat": of_chat,
                    "message": message,
                    "user": user["id"],
                    "run": "r",
                    "key": "k",
                    "worker": "w",
                    "battle": NOBODYS,
                }
                for method, path in routes(g):
                    if path in OPEN or path == "/events" or (of_chat == own and method == "DELETE"):
                        continue
                    if "{message}" not in path and message != user["id"]:
                        continue
                    status, content, _ = await hers.raw(
                        method, "/api" + path.format(**ids), body_for(method, path, ids)
                    )
                    assert b"secret" not in content, (method, path)
                    if path in OF_THE_MACHINE:
                        assert status == 403, path
                    elif (method, path) in REFUSED_TO_ALL:
                        assert status == REFUSED_TO_ALL[method, path], path
                    else:
                        assert status in ((404,) if "{chat}" in path and of_chat != own else (200, 204, 404)), (
                            method,
                            path,
                        )
                    checked += 1
            for query in ("secret", "plan", "run"):
                assert (await hers.call("GET", f"/chats?query={query}"))["chats"] == []
            await his.call("PATCH", f"/chats/{chat}", {"title": "secret plan"})
            await hers.call("POST", "/import", b"")
            heard: list[dict] = []
            while len([event for event in heard if event["type"] == "chats"]) < 4:
                heard.append((await anext(events))[1])
        assert checked > 50
        assert "secret" not in str(heard) and not {user["id"], running["id"]} & {
            str(e.get("message", {}).get("id")) for e in heard
        }
        assert await snapshot(his) == before
        assert await his.call("POST", f"/chats/{gone}/restore")
        await his.call("POST", f"/chats/{chat}/messages/{running['id']}/stop")


async def test_chats_from_before_the_first_key_are_no_keys(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat(title="local")
        new = make_key(database, "bob")
        await asyncio.sleep(0.2)
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats")
        await me.call("POST", "/login", {"key": new.token})
        assert (await me.call("GET", "/chats"))["chats"] == []
        with pytest.raises(Refused, match="404"):
            await me.call("GET", f"/chats/{chat}")


async def test_no_change_is_made_without_the_pages_own_header(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat(title="safe")
        user, _ = await me.ask(chat, "Hi")
        before = await snapshot(me)
        del me.http.headers["X-Chaku"]
        ids = {
            "chat": chat,
            "message": user["id"],
            "user": user["id"],
            "worker": "w",
            "run": "r",
            "battle": NOBODYS,
            "key": "k",
        }
        checked = 0
        for method, path in routes(g):
            if method != "GET":
                for headers in ({}, {"X-Chaku": "0"}, {"content-type": "text/plain"}):
                    with pytest.raises(Refused) as refused:
                        await me.call(method, path.format(**ids), body_for(method, path, ids), headers=headers)
                    assert (refused.value.status, refused.value.error["code"]) == (403, "csrf")
                checked += 1
        assert checked >= 9
        assert await snapshot(me) == before


async def test_pages_of_other_sites_are_refused_even_those_that_may_call_the_api(database: Path) -> None:
    async with page_gateway(database, cors_origins=("https://friend.example",)) as g, tab(g) as me:
        async with g.http.get(g.url + "/v1/models", headers={"origin": "https://friend.example"}) as response:
            assert response.status == 200
        foreign = [
            {"origin": "https://friend.example"},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": g.url.replace("127.0.0.1", "localhost")},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ]
        for headers in foreign:
            for method, path in (("GET", "/chats"), ("GET", "/events"), ("POST", "/chats"), ("GET", "/session")):
                status, _, _ = await me.raw(method, f"/api{path}", {} if method == "POST" else None, headers=headers)
                assert status == 403, headers
        own = {"origin": g.url, "sec-fetch-site": "same-origin"}
        assert (await me.raw("POST", "/api/chats", {}, headers=own))[0] == 200
        assert len((await me.call("GET", "/chats"))["chats"]) == 1


async def test_a_session_idle_for_too_long_has_to_log_in_again(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g, bob.token) as me:
        await me.call("GET", "/chats")
        with open_store(f"sqlite:///{database}") as store, store.write() as connection:
            long_ago = datetime.now(UTC) - MAX_IDLE - timedelta(seconds=1)
            connection.exec_driver_sql("UPDATE sessions SET last_seen_at = ?", (long_ago.replace(tzinfo=None),))
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats")


async def test_revoking_the_last_key_lets_the_local_user_in_again(database: Path, bob: NewKey) -> None:
    async with page_gateway(database) as g, tab(g) as me, asyncio.timeout(PATIENCE_S):
        with pytest.raises(Refused, match="login_required"):
            await me.call("GET", "/chats")
        assert (await me.raw("GET", "/v1/models"))[0] == 401
        revoke(database, "bob")
        while (await me.raw("GET", "/v1/models"))[0] != 200:
            await asyncio.sleep(0.02)
        assert (await me.call("GET", "/session"))["login_required"] is False
        assert await me.call("GET", "/chats") == {"chats": [], "next": None}


async def test_behind_a_trusted_proxy_wrong_logins_are_counted_by_visitor_and_the_cookie_is_secure(
    database: Path, bob: NewKey
) -> None:
    spoofed = {"x-forwarded-for": "1.1.1.1, 203.0.113.9"}  # the visitor's own word, then the proxy's
    async with page_gateway(database, trusted_proxies=("127.0.0.0/8",)) as g, tab(g) as me:
        for _ in range(10):
            with pytest.raises(Refused, match="401"):
                await me.call("POST", "/login", {"key": "ck-wrong"}, headers=spoofed)
        from_there, from_elsewhere = {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "203.0.113.10"}
        with pytest.raises(Refused, match="too_many_logins"):
            await me.call("POST", "/login", {"key": bob.token}, headers=from_there)
        tls = {**from_elsewhere, "x-forwarded-proto": "https"}
        for headers, is_secure in ((tls, True), (from_elsewhere, False)):
            _, _, answered = await me.raw("POST", "/api/login", {"key": bob.token}, headers=headers)
            assert ("Secure" in answered["set-cookie"]) is is_secure


async def test_without_a_trusted_proxy_forwarded_headers_count_for_nothing(database: Path, bob: NewKey) -> None:
    async with page_gateway(database, trusted_proxies=("203.0.113.0/24",)) as g, tab(g) as me:
        for number in range(10):
            with pytest.raises(Refused, match="401"):
                await me.call("POST", "/login", {"key": "ck-wrong"}, headers={"x-forwarded-for": f"1.1.1.{number}"})
        with pytest.raises(Refused, match="too_many_logins"):
            await me.call("POST", "/login", {"key": bob.token}, headers={"x-forwarded-for": "9.9.9.9"})
