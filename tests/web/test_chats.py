"""The page's chats over a real gateway: list, tree, settings, search, export and import."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from chaku.engines.base import Call
from chaku.engines.scripted import Reply
from chaku.web.streams import MAX_WAITING, Hub
from gateways import DOT, page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, tab

PIXEL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}}


async def test_a_chat_is_made_listed_changed_deleted_and_brought_back(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        made = await me.call("POST", "/chats", {"title": "Wool", "system": "Be brief.", "settings": {"top_p": 0.5}})
        assert made == {**made, "pinned": False, "model": None, "leaf_id": None, "settings": {"top_p": 0.5}}
        assert made["created_at"].endswith("Z")
        chat = made["id"]
        changed = await me.call(
            "PATCH",
            f"/chats/{chat}",
            {"title": "Wool 2", "pinned": True, "model": "m", "settings": {"seed": 3, "stop": None}},
        )
        assert changed == {**made, "title": "Wool 2", "pinned": True, "model": "m", "settings": {"seed": 3}}
        cleared = await me.call("PATCH", f"/chats/{chat}", {"system": None, "model": None})
        assert (cleared["system"], cleared["model"], cleared["title"]) == (None, None, "Wool 2")
        assert await me.call("GET", f"/chats/{chat}") == {**cleared, "messages": []}
        assert await me.call("DELETE", f"/chats/{chat}") is None
        assert (await me.call("GET", "/chats"))["chats"] == []
        for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/export")):
            with pytest.raises(Refused, match="404"):
                await me.call(method, f"/chats/{chat}{path}", {} if method == "PATCH" else None)
        assert await me.call("POST", f"/chats/{chat}/restore") == cleared


async def test_the_list_comes_in_pages_and_pinned_chats_come_first(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        made = [await me.chat(title=str(number)) for number in range(7)]
        for number in (1, 4):
            await me.call("PATCH", f"/chats/{made[number]}", {"pinned": True})
        seen, path = [], "/chats?limit=3"
        while path:
            page = await me.call("GET", path)
            seen.append([chat["title"] for chat in page["chats"]])
            path = page["next"] and f"/chats?limit=3&before={page['next']}"
        assert seen == [["4", "1", "6"], ["5", "3", "2"], ["0"]]
        for wrong in ("limit=0", "limit=x", "limit=201", "before=!", "before=e30="):
            with pytest.raises(Refused, match="400"):
                await me.call("GET", f"/chats?{wrong}")


async def test_a_conversation_goes_on_with_the_system_prompt_and_the_path_before_it(database: Path) -> None:
    asked: list[Call] = []
    engine = scripted()
    answer = engine.ask
    engine.ask = lambda call: asked.append(call) or answer(call)  # type: ignore[method-assign,assignment,func-returns-value]
    async with page_gateway(database, engine) as g, tab(g) as me:
        chat = await me.chat(system="Be brief.")
        first, hello = await me.ask(chat, "Hello\nthere, this is the first message of a chat without any title")
        _, more = await me.ask(chat, [{"type": "text", "text": "More?"}], hello["id"], settings={"temperature": 0.5})
        assert (hello["content"][:15], more["content"]) == ("You said: Hello", "You said: More?")
        assert [(m["role"], m["content"]) for m in asked[1].body["messages"]] == [
            ("system", "Be brief."),
            ("user", first["content"]),
            ("assistant", hello["content"]),
            ("user", [{"type": "text", "text": "More?"}]),
        ]
        assert (asked[0].body.get("temperature"), asked[1].body["temperature"]) == (None, 0.5)
        shown = await me.call("GET", f"/chats/{chat}")
    assert (shown["title"], shown["model"], shown["settings"]) == ("Hello", "scripted", {"temperature": 0.5})
    assert shown["leaf_id"] == more["id"]
    assert shown["messages"][-1] == more | {"feedback": None}
    assert [m["parent_id"] for m in shown["messages"]] == [None, *(m["id"] for m in shown["messages"][:-1])]


async def test_editing_and_regenerating_add_siblings_and_every_branch_can_be_shown_again(database: Path) -> None:
    async with page_gateway(database, scripted(), scripted(Reply(text="Other"), name="other")) as g, tab(g) as me:
        chat = await me.chat()
        user, one = await me.ask(chat, "one")
        again = await me.call("POST", f"/chats/{chat}/answers", {"parent_id": user["id"], "model": "other"})
        two = await me.whole(chat, again["answer"]["id"])
        edited, three = await me.ask(chat, "uno")
        assert (two["content"], two["model"], two["parent_id"]) == ("Other", "other", user["id"])
        assert (edited["parent_id"], three["parent_id"]) == (None, edited["id"])
        shown = await me.call("GET", f"/chats/{chat}")
        assert [m["id"] for m in shown["messages"]] == [m["id"] for m in (user, one, two, edited, three)]
        assert shown["leaf_id"] == three["id"]
        for through, leaf in ((user, two), (one, one), (edited, three)):
            changed = await me.call("PATCH", f"/chats/{chat}", {"leaf_id": through["id"]})
            assert changed["leaf_id"] == leaf["id"]
        note, nothing = await me.say(chat, "no answer", three["id"], answer=False, model=None)
        assert (nothing, note["state"]) == (None, "complete")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/chats", {"titel": "x"}, 400, "titel"),
        ("POST", "/chats", {"settings": {"temperature": 3}}, 400, "settings.temperature"),
        ("POST", "/chats", {"settings": {"n": 2}}, 400, "settings.n"),
        ("POST", "/chats", {"title": "x" * 201}, 400, "title"),
        ("POST", "/chats", {"model": "a\0b"}, 400, "model"),
        ("POST", "/chats", b"{", 400, None),
        ("POST", "/chats/CHAT/messages", {"content": "x"}, 400, "model"),
        ("POST", "/chats/CHAT/messages", {"content": [], "model": "m"}, 400, "content"),
        ("POST", "/chats/CHAT/messages", {"content": [{"type": "odd"}], "model": "m"}, 400, "content.0"),
        ("POST", "/chats/CHAT/messages", {"content": "x", "model": "m", "parent_id": "CHAT"}, 404, None),
        ("POST", "/chats/CHAT/messages", {"content": "x", "model": "m", "parent_id": "no id \0"}, 404, None),
        ("POST", "/chats/CHAT/answers", {"parent_id": "ANSWER", "model": "scripted"}, 400, "parent_id"),
        ("POST", "/chats/CHAT/messages/CHAT/stop", None, 404, None),
        ("GET", "/chats/CHAT/messages/CHAT/stream", None, 404, None),
        ("PATCH", "/chats/CHAT", {"leaf_id": "CHAT"}, 404, None),
        ("GET", "/chats/none", None, 404, None),
        ("GET", "/nothing", None, 404, None),
        ("DELETE", "/chats", None, 405, None),
    ],
)
async def test_what_does_not_fit_is_refused_with_the_field_at_fault(
    database: Path, method: str, path: str, body: object, status: int, param: str | None
) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat()
        _, answer = await me.ask(chat, "Hi")

        def filled(text: str) -> str:
            return text.replace("CHAT", chat).replace("ANSWER", answer["id"])

        before = await me.call("GET", f"/chats/{chat}")
        if isinstance(body, dict):
            body = json.loads(filled(json.dumps(body)))
        with pytest.raises(Refused) as refused:
            await me.call(method, filled(path), body)
        assert (refused.value.status, refused.value.error["param"]) == (status, param)
        assert await me.call("GET", f"/chats/{chat}") == before


async def test_a_body_that_is_too_large_is_refused_before_it_is_held(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaku.web.requests.MAX_BODY_BYTES", 2**16)
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat()
        with pytest.raises(Refused, match="413"):
            await me.say(chat, "x" * (2**16 + 1))
        assert await me.texts(chat) == []


async def test_an_image_in_a_message_comes_back_as_it_was(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat()
        parts = [{"type": "text", "text": "What is this?"}, PIXEL]
        user, answer = await me.ask(chat, parts)
        assert user["content"] == parts
        # The scripted model has no eyes; the gateway says so, and the words are not lost.
        assert (answer["state"], answer["error"]["type"]) == ("failed", "invalid_request_error")
        assert (await me.call("GET", f"/chats/{chat}"))["title"] == "What is this?"


async def test_search_finds_texts_and_titles_and_shows_where(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat(title="One")
        await me.say(chat, "far " * 100 + "a VICUÑA here" + " away" * 100, answer=False, model=None)
        await me.chat(title="vicuña two")
        found = (await me.call("GET", "/chats?query=vicuña"))["chats"]
        assert [hit["title"] for hit in found] == ["vicuña two", "One"]
        assert "snippet" not in found[0]
        assert "a VICUÑA here" in found[1]["snippet"] and len(found[1]["snippet"]) < 200
        assert await me.call("GET", "/chats?query=alpaca") == {"chats": [], "next": None}


async def test_what_is_exported_can_be_imported_again(database: Path, tmp_path: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat(title="Tree", system="Be brief.", settings={"top_k": 5})
        await me.ask(chat, "Hi 🦙")
        await me.ask(chat, "Hey", None)
        await me.chat(title="Empty")
        status, path_only, headers = await me.raw("GET", f"/api/chats/{chat}/export")
        assert (status, headers["content-type"]) == (200, "application/jsonl")
        assert headers["content-disposition"] == f'attachment; filename="chat-{chat}.jsonl"'
        assert [(m["role"], m["content"]) for m in json.loads(path_only)["messages"]] == [
            ("system", "Be brief."),
            ("user", "Hey"),
            ("assistant", "You said: Hey"),
        ]
        _, whole, _ = await me.raw("GET", f"/api/chats/{chat}/export?all=1")
        _, everything, _ = await me.raw("GET", "/api/export?all=1")
        assert (whole.count(b"\n"), everything.count(b"\n")) == (2, 3)
        before = await me.call("GET", f"/chats/{chat}")
    async with page_gateway(tmp_path / "other.db") as g, tab(g) as me:
        given = b'{"bad": 1}\n' + everything + b"no json\n"
        imported = await me.call("POST", "/import", given, headers={"content-type": "application/jsonl"})
        assert imported["imported"] == 2
        assert [skipped["line"] for skipped in imported["skipped"]] == [1, 5]
        assert all(skipped["reason"] for skipped in imported["skipped"])
        (copy,) = [row["id"] for row in (await me.call("GET", "/chats"))["chats"] if row["title"] == "Tree"]
        after = await me.call("GET", f"/chats/{copy}")
        _, again, _ = await me.raw("GET", "/api/export?all=1")

    def told(chat: dict) -> list:
        names = {m["id"]: number for number, m in enumerate(chat["messages"])}
        kept = ("title", "system", "settings", "model", "pinned", "updated_at")
        rows = [{**m, "id": names[m["id"]], "parent_id": names.get(m["parent_id"])} for m in chat["messages"]]
        return [rows, names[chat["leaf_id"]], *(chat[name] for name in kept)]

    assert told(after) == told(before)
    assert again.count(b"\n") == 3


async def test_other_tabs_hear_of_every_change_and_other_people_do_not(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, tab(g) as other, other.stream("/events") as events:
        _, first = await anext(events)
        assert (first["type"], first["models"][0]["id"], first["models"][0]["state"]) == (
            "models",
            "scripted",
            "ready",
        )
        chat = await me.chat(title="x")
        user, answer = await me.ask(chat, "Hi")
        await me.call("PATCH", f"/chats/{chat}", {"title": "y"})
        await me.call("DELETE", f"/chats/{chat}")
        await me.call("POST", f"/chats/{chat}/restore")
        await me.call("POST", "/import", b'{"messages": [{"role": "user", "content": "Yo"}]}')
        heard = []
        while not heard or heard[-1]["type"] != "chats":
            heard.append((await anext(events))[1])
    told = [event for event in heard if event["type"] != "models"]
    messages = [event["message"] for event in told if event["type"] == "message"]
    assert [(m["id"], m["state"]) for m in messages] == [
        (user["id"], "complete"),
        (answer["id"], "streaming"),
        (answer["id"], "complete"),
    ]
    assert all(not {"content", "reasoning"} & set(m) for m in messages)
    assert [e["chat"]["title"] for e in told if e["type"] == "chat"][-2:] == ["y", "y"]
    assert [e["id"] for e in told if e["type"] == "chat_deleted"] == [chat]


async def test_a_tab_that_comes_back_hears_what_it_missed_once_and_in_order(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        async with me.stream("/events") as events:
            before, _ = await anext(events)
        chat = await me.chat(title="x")
        await me.call("PATCH", f"/chats/{chat}", {"title": "y"})
        heard: list[dict[str, Any]] = []
        last = before
        for _ in range(2):  # the connection is lost again after the first of them
            async with me.stream("/events", headers={"Last-Event-ID": str(last)}) as events:
                last, event = await anext(events)
                heard.append(event)
        async with me.stream(f"/events?after={last}") as events:
            last, event = await anext(events)
        assert [e["chat"]["title"] for e in heard] == ["x", "y"]
        assert event["type"] == "models"
        async with me.stream("/events", headers={"Last-Event-ID": str(last)}) as events:
            await anext(events)
            await me.call("PATCH", f"/chats/{chat}", {"title": "z"})
            assert (await anext(events))[1]["chat"]["title"] == "z"


async def test_a_tab_is_told_when_what_it_missed_is_not_known_any_more(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        async with me.stream("/events") as events:
            now, _ = await anext(events)
        for after in (int(now) - 1, int(now) + 1, 0):  # of a gateway before this one, or of another one
            async with me.stream("/events", headers={"Last-Event-ID": str(after)}) as events:
                assert [(await anext(events))[1]["type"] for _ in range(2)] == ["missed", "models"]


async def test_events_are_kept_for_those_who_come_back_up_to_a_number_and_for_their_owner_alone() -> None:
    hub = Hub(list)

    async def first_of(owner: str | None, after: int | None, num: int) -> list[tuple[int | None, dict[str, Any]]]:
        async with aclosing(hub.listen(owner, after)) as events:
            return [await anext(events) for _ in range(num)]

    ((start, _),) = await first_of("me", None, 1)
    assert start is not None
    hub.publish("me", {"type": "a"})
    hub.publish("you", {"type": "b"})
    hub.publish("me", {"type": "c"})
    mine = await first_of("me", start, 3)
    assert [(number and number - start, event["type"]) for number, event in mine] == [(1, "a"), (3, "c"), (3, "models")]
    assert [event["type"] for _, event in await first_of(None, start, 1)] == ["models"]
    for _ in range(MAX_WAITING):
        hub.publish("you", {"type": "b"})
    assert [event["type"] for _, event in await first_of("me", start + 2, 2)] == ["missed", "models"]
    assert [event["type"] for _, event in await first_of("me", start + 3, 1)] == ["models"]


async def test_a_model_that_becomes_ready_is_heard_of(database: Path) -> None:
    async with page_gateway(database, scripted(load_s=0.7), wait=False) as g, tab(g) as me:
        assert (await me.call("GET", "/models"))["models"][0]["state"] == "loading"
        async with me.stream("/events") as events:
            states = []
            async with asyncio.timeout(PATIENCE_S):
                while states[-1:] != ["ready"]:
                    states.append((await anext(events))[1]["models"][0]["state"])
    assert states[0] == "loading"


async def test_models_are_watched_again_after_an_unexpected_error(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with page_gateway(database) as g, tab(g) as me, me.stream("/events") as events:
        await anext(events)
        failures = iter([RuntimeError("planted")])
        describe = Hub._describe

        def sometimes(self: Hub) -> dict[str, Any]:
            if error := next(failures, None):
                raise error
            return describe(self)

        monkeypatch.setattr(Hub, "_describe", sometimes)
        async with asyncio.timeout(PATIENCE_S):
            assert (await anext(events))[1]["type"] == "models"
    assert "task=models-watcher" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_a_body_of_countless_values_is_refused_before_it_is_parsed_and_before_any_login(database: Path) -> None:
    async with page_gateway(database) as g:
        body = b'{"key":[' + b"[]," * 300_000 + b"1]}"
        async with g.http.post(g.url + "/api/login", data=body, headers={"X-Chaku": "1"}) as r:
            assert r.status == 413
            assert "5,000 arrays" in (await r.json())["error"]["message"]
