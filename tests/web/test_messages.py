"""What is done with single messages over HTTP: continued, edited, deleted, rated."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from chaku.engines.scripted import Reply
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

WORDS = " ".join(f"word{number}" for number in range(40))
SHORT = {"max_tokens": 5}


def path_of(chat: str, message: str) -> str:
    return f"/chats/{chat}/messages/{message}"


async def cut_off(me: Tab) -> tuple[str, dict]:
    """A chat and its answer that ended at the token limit."""
    chat = await me.chat()
    _, answer = await me.ask(chat, "go", settings=SHORT)
    assert (answer["content"], answer["finish_reason"]) == ("word0 word1 word2 word3 word4", "length")
    return chat, answer


async def test_an_answer_that_ended_at_its_limit_is_continued_in_the_same_message(database: Path) -> None:
    async with page_gateway(database, scripted(Reply(text=WORDS, token_delay_s=0.002))) as g, tab(g) as me:
        chat, first = await cut_off(me)
        path = f"{path_of(chat, first['id'])}/continue"
        going = (await me.call("POST", path, {"settings": {"max_tokens": 7}}))["answer"]
        assert (going["id"], going["state"], going["content"]) == (first["id"], "streaming", first["content"])
        second = await me.whole(chat, first["id"])
        assert second["content"] == " ".join(WORDS.split()[:12]) and second["finish_reason"] == "length"
        assert second["usage"]["completion_tokens"] == 12 and second["settings"] == {"max_tokens": 7}
        assert second["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
        assert second["timings"]["first_token_s"] == first["timings"]["first_token_s"]
        assert second["timings"]["duration_s"] > first["timings"]["duration_s"]
        await me.call("POST", path, {})
        last = await me.whole(chat, first["id"])
        assert (last["content"], last["finish_reason"]) == (WORDS, "stop")
        assert await me.texts(chat) == ["go", WORDS]
        with pytest.raises(Refused, match="ended by itself"):
            await me.call("POST", path, {})


async def test_a_reader_of_the_first_part_reads_the_rest_and_nothing_is_lost_or_said_twice(database: Path) -> None:
    async with page_gateway(database, scripted(Reply(text=WORDS, token_delay_s=0.01))) as g, tab(g) as me:
        chat, first = await cut_off(me)
        path = path_of(chat, first["id"])
        await me.call("POST", f"{path}/continue", {})
        for after in (3, 5, 12):  # numbers that the first part gave, or could have given
            async with me.stream(f"{path}/stream?after={after}") as events:
                heard = [event async for _, event in events]
            assert heard[0]["type"] == "snapshot"
            text = heard[0]["message"]["content"] + "".join(e.get("content", "") for e in heard if e["type"] == "delta")
            assert text == heard[-1]["message"]["content"] == WORDS


async def test_a_stopped_answer_goes_on_and_can_be_stopped_again(database: Path) -> None:
    async with page_gateway(database, scripted(Reply(text=WORDS, token_delay_s=0.02))) as g, tab(g) as me:
        chat = await me.chat()
        _, answer = await me.say(chat, "go")
        texts = [""]
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(2):
                while len((await me.texts(chat))[-1]) < len(texts[-1]) + 12:
                    await asyncio.sleep(0.02)
                stopped = (await me.call("POST", f"{path_of(chat, answer['id'])}/stop"))["answer"]
                texts.append(stopped["content"])
                assert stopped["state"] == "stopped" and WORDS.startswith(texts[-1])
                await me.call("POST", f"{path_of(chat, answer['id'])}/continue", {})
            assert (await me.whole(chat, answer["id"]))["content"] == WORDS


async def test_a_model_that_can_not_continue_says_so_and_the_answer_stays_as_it_was(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scripted(Reply(text=WORDS))
    able = engine.capabilities
    monkeypatch.setattr(type(engine), "capabilities", replace(able, parameters=frozenset({"n"})))
    async with page_gateway(database, engine) as g, tab(g) as me:
        chat, answer = await cut_off(me)
        with pytest.raises(Refused, match="can't continue an answer") as refused:
            await me.call("POST", f"{path_of(chat, answer['id'])}/continue", {})
        assert refused.value.status == 400
        with pytest.raises(Refused, match="not served here"):
            await me.call("POST", f"{path_of(chat, answer['id'])}/continue", {"model": "other"})
        assert (await me.call("GET", f"/chats/{chat}"))["messages"][-1] == {**answer, "feedback": None}


async def test_an_answer_is_rewritten_beside_the_old_one(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, me.stream("/events") as events:
        chat = await me.chat()
        user, answer = await me.ask(chat, "Hi")
        edited = (await me.call("POST", f"{path_of(chat, answer['id'])}/edit", {"content": "Better"}))["message"]
        assert (edited["parent_id"], edited["content"], edited["finish_reason"]) == (user["id"], "Better", "edited")
        shown = await me.call("GET", f"/chats/{chat}")
        assert shown["leaf_id"] == edited["id"]
        assert [m["content"] for m in shown["messages"]] == ["Hi", "You said: Hi", "Better"]
        async for _, event in events:
            if event["type"] == "message" and event["message"]["id"] == edited["id"]:
                break


async def test_a_message_is_deleted_with_what_follows_and_restored(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, me.stream("/events") as events:
        chat = await me.chat()
        user, answer = await me.ask(chat, "Hi")
        more, last = await me.ask(chat, "and?", answer["id"])
        gone = await me.call("DELETE", path_of(chat, answer["id"]))
        assert gone == {"deleted": [answer["id"], more["id"], last["id"]], "leaf_id": user["id"]}
        assert await me.texts(chat) == ["Hi"]
        with pytest.raises(Refused, match="404"):
            await me.call("DELETE", path_of(chat, answer["id"]))
        back = await me.call("POST", f"{path_of(chat, answer['id'])}/restore")
        assert back == {"leaf_id": last["id"]}
        assert len(await me.texts(chat)) == 4
        kinds = []
        async for _, event in events:
            kinds.append(event["type"])
            if kinds.count("messages") == 2:
                break


async def test_a_thumb_is_kept_shown_changed_and_taken_back(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me, me.stream("/events") as events:
        chat = await me.chat()
        _, answer = await me.ask(chat, "Hi")
        path = f"{path_of(chat, answer['id'])}/feedback"
        with pytest.raises(Refused) as refused:
            await me.call("PUT", path, {"value": "up"})
        assert (refused.value.status, refused.value.error["code"]) == (400, "consent_needed")
        given = (await me.call("PUT", path, {"value": "up", "consent": True}))["feedback"]
        assert (given["value"], given["reasons"], given["consent"]) == ("up", [], True)
        await me.call("PUT", path, {"value": "down", "reasons": ["Not correct", "2 + 2 = 4"]})
        shown = (await me.call("GET", f"/chats/{chat}"))["messages"]
        assert [m["feedback"] and m["feedback"]["reasons"] for m in shown] == [None, ["Not correct", "2 + 2 = 4"]]
        await me.call("DELETE", path)
        assert (await me.call("GET", f"/chats/{chat}"))["messages"][1]["feedback"] is None
        told = []
        async for _, event in events:
            if event["type"] == "message" and "feedback" in event["message"]:
                told.append(event["message"]["feedback"] and event["message"]["feedback"]["value"])
            if len(told) == 3:
                break
        assert told == ["up", "down", None]


@pytest.mark.parametrize(
    "body",
    [{"value": "maybe"}, {"value": "up", "reasons": "x"}, {"value": "up", "reasons": ["x"] * 21}, {"consent": True}],
)
async def test_a_thumb_of_another_shape_is_refused(database: Path, body: dict) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat()
        user, answer = await me.ask(chat, "Hi")
        with pytest.raises(Refused, match="400"):
            await me.call("PUT", f"{path_of(chat, answer['id'])}/feedback", body)
        with pytest.raises(Refused, match="only answers are rated"):
            await me.call("PUT", f"{path_of(chat, user['id'])}/feedback", {"value": "up", "consent": True})


async def test_a_search_names_the_message_that_it_found(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat(title="Fruit")
        user, _ = await me.ask(chat, "Where do vicuñas live?")
        await me.ask(chat, "Other", user["id"])
        (hit,) = (await me.call("GET", "/chats?query=Where"))["chats"]
        assert hit["message_id"] in {m["id"] for m in (await me.call("GET", f"/chats/{chat}"))["messages"]}
        assert "Where do" in hit["snippet"]
        (hit,) = (await me.call("GET", "/chats?query=fruit"))["chats"]
        assert "message_id" not in hit
