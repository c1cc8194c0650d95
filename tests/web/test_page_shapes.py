"""The fake server that browser tests talk to answers in the shapes of the real application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateways import page_gateway, scripted
from tabs import Tab, tab
from web.fake_page import FakePage
from web.fake_world import World


def shape(value: Any) -> Any:
    """Which fields there are, and which are objects and lists in their turn."""
    if isinstance(value, dict):
        return {name: shape(field) for name, field in value.items() if name not in FREE}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


FREE = {"settings", "usage", "timings", "capabilities", "error", "extra", "system", "recommended"}
"""Fields whose content is of many shapes, or none."""


async def answers(me: Tab, model: str) -> dict[str, Any]:
    """What each kind of call answers."""
    session = await me.call("GET", "/session")
    created = await me.call("POST", "/chats", {"title": "T", "model": model})
    chat = created["id"]
    body = {"parent_id": None, "content": "Hello", "model": model, "settings": {}, "answer": True}
    sent = await me.call("POST", f"/chats/{chat}/messages", body)
    await me.whole(chat, sent["answer"]["id"])
    path = f"/chats/{chat}/messages/{sent['answer']['id']}"
    rating = {"value": "up", "reasons": ["Helpful"], "consent": True}
    return {
        "rated": await me.call("PUT", f"{path}/feedback", rating),
        "edited": await me.call("POST", f"{path}/edit", {"content": "Better"}),
        "removed": await me.call("DELETE", path),
        "restored": await me.call("POST", f"{path}/restore"),
        "found": await me.call("GET", "/chats?query=better"),
        "session": session,
        "created": created,
        "sent": sent,
        "chat": await me.call("GET", f"/chats/{chat}"),
        "chats": await me.call("GET", "/chats"),
        "again": await me.call("POST", f"/chats/{chat}/answers", {"parent_id": sent["user"]["id"], "model": model}),
        "changed": await me.call("PATCH", f"/chats/{chat}", {"title": "U"}),
        "models": await me.call("GET", "/models"),
    }


def assert_within(fake: Any, real: Any, where: str) -> None:
    """The fake has every field that the real one has, and none of another kind."""
    if isinstance(real, dict):
        assert isinstance(fake, dict), where
        missing = set(real) - set(fake)
        assert not missing, f"{where} lacks {missing}"
        for name in real:
            assert_within(fake[name], real[name], f"{where}.{name}")
    elif isinstance(real, list) and real and fake:
        assert_within(fake[0], real[0], f"{where}[0]")


async def test_the_fake_answers_in_the_shapes_of_the_real_application(database: Path) -> None:
    async with page_gateway(database, scripted()) as g, tab(g) as me:
        real = await answers(me, "scripted")
    with FakePage(World()).running() as server:
        me = Tab(server.url)
        try:
            fake = await answers(me, "vicuna-7b")
        finally:
            await me.http.close()
    for name in real:
        assert_within(shape(fake[name]), shape(real[name]), name)
