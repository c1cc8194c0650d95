"""Every route of the page under a guest's cookie: nothing of anybody else, and the gateway never fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from starlette.routing import Mount, Route

from chaku.engines.scripted import Reply
from chaku.policies import GuestPolicy, Limits
from gateways import Running, page_gateway, scripted
from tabs import tab

SECRET = "xylophone"
MANY = Limits(requests_per_minute=10_000)
BODIES: tuple[Any, ...] = ({}, [None], {"content": "hi", "answers": [{}], "choice": 7})
STREAMS = ("/events", "/stream")


def routes_of(running: Running) -> list[tuple[str, str]]:
    """Method and path of every route below /api."""
    (mounted,) = (one for one in running.serving.app.routes if isinstance(one, Mount) and one.path == "/api")
    return [
        (method, route.path)
        for route in mounted.routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


async def test_no_route_gives_a_guest_what_is_another_guests(database: Path) -> None:
    engines = [scripted(Reply(text="You said: {prompt}"), name=name) for name in ("scripted", "other")]
    async with (
        page_gateway(database, *engines, guests=GuestPolicy(limits=MANY)) as g,
        tab(g) as ann,
        tab(g) as bob,
    ):
        await ann.call("POST", "/guest")
        await bob.call("POST", "/guest")
        chat = await ann.chat(title=SECRET)
        user, answer = await ann.ask(chat, SECRET)
        routes = [(method, path) for method, path in routes_of(g) if path not in ("/logout", "/guest", "/login")]
        assert len(routes) > 30
        seen = set()
        for method, path in routes:
            for message in (user["id"], answer["id"]) if "{message}" in path else ("",):
                filled = _filled(path, chat, message)
                if path.endswith(STREAMS):
                    continue
                for body in BODIES if method != "GET" else (None,):
                    content = None if method == "GET" else json.dumps(body).encode()
                    status, answered, _ = await bob.raw(method, f"/api{filled}", content)
                    assert status < 500, (method, path, body, answered)
                    assert SECRET.encode() not in answered, (method, path, body)
                    if "{chat}" in path:
                        assert 400 <= status < 500, (method, path, body, status)
                    seen.add((method, path))
        assert len(seen) > 25
        mine = (await ann.call("GET", f"/chats/{chat}"))["messages"]
        assert [message["content"] for message in mine] == [SECRET, f"You said: {SECRET}"]


def _filled(path: str, chat: str, message: str) -> str:
    """The path with ids of another guest."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: message if found[1] == "message" else chat, path)
