"""Answers under way: they belong to the gateway, not to a connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chaku.engines.scripted import Reply
from chaku.errors import StoreError
from chaku.store import leases, tree
from chaku.store.conversations import Conversations
from chaku.store.database import open_store
from chaku.store.message_record import MessageState
from chaku.web.answers import Answers
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

WORDS = " ".join(f"word{number}" for number in range(40))
SLOW = Reply(match="slow", text=WORDS, token_delay_s=0.012)
ENDLESS = Reply(match="endless", text=WORDS, token_delay_s=0.005, fault="hang", fault_after_tokens=5)


async def begun(me: Tab, text: str) -> tuple[str, str]:
    """A new chat and the answer that runs in it."""
    chat = await me.chat()
    _, answer = await me.say(chat, text)
    assert (answer["state"], answer["content"]) == ("streaming", "")
    return chat, answer["id"]


def path_of(chat: str, answer: str) -> str:
    return f"/chats/{chat}/messages/{answer}"


def text_of(events: list[dict]) -> str:
    """What a reader of these events has on the screen."""
    text = ""
    for event in events:
        text = text + event.get("content", "") if event["type"] == "delta" else event["message"]["content"]
    return text


async def until_it_says(me: Tab, chat: str, answer: str, least: int) -> str:
    """What the answer has said once it is some characters long."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            text = (await me.texts(chat))[-1]
            if len(text) >= least:
                return text
            await asyncio.sleep(0.02)


async def test_an_answer_streams_and_ends_with_what_it_cost(database: Path) -> None:
    reply = Reply(text=WORDS, token_delay_s=0.002, delay_s=0.05, reasoning="They want words.")
    async with page_gateway(database, scripted(reply)) as g, tab(g) as me:
        chat, answer = await begun(me, "go")
        async with me.stream(f"{path_of(chat, answer)}/stream") as events:
            heard = [event async for event in events]
        numbers = [number for number, _ in heard if number is not None]
        assert (heard[0][1]["type"], heard[-1][1]["type"], numbers) == ("snapshot", "done", sorted(numbers))
        assert text_of([event for _, event in heard[:-1]]) == WORDS
        message = heard[-1][1]["message"]
        assert (message["content"], message["reasoning"]) == (WORDS, "They want words.")
        assert (message["state"], message["finish_reason"], message["error"]) == ("complete", "stop", None)
        assert message["usage"] == {"prompt_tokens": 1, "completion_tokens": 40, "cached_tokens": 0}
        assert 0.05 <= message["timings"]["first_token_s"] < message["timings"]["duration_s"]
        assert 20 < message["timings"]["tokens_per_s"] < 20_000
        assert (await me.call("GET", f"/chats/{chat}"))["messages"][-1] == message | {"feedback": None}
        async with me.stream(f"{path_of(chat, answer)}/stream?after=7") as events:
            assert [event["type"] async for _, event in events] == ["snapshot", "done"]


async def test_a_reader_who_comes_back_reads_on_where_it_was_and_nothing_is_lost_or_said_twice(database: Path) -> None:
    async with page_gateway(database, scripted(SLOW)) as g, tab(g) as me:
        chat, answer = await begun(me, "slow")
        heard: list[dict] = []
        after: int | None = None
        for rounds in itertools.count():
            options: dict[str, Any] = {} if after is None else {"headers": {"Last-Event-ID": str(after)}}
            query = "" if after is None or rounds % 2 else f"?after={after}"
            async with me.stream(f"{path_of(chat, answer)}/stream{query}", **options) as events:
                taken = 0
                async for number, event in events:
                    heard.append(event)
                    after, taken = number, taken + 1
                    if event["type"] == "done" or taken == 7:
                        break
            if heard[-1]["type"] == "done":
                break
        assert rounds >= 3
        assert [event["type"] for event in heard].count("snapshot") == 1
        assert text_of(heard[:-1]) == heard[-1]["message"]["content"] == WORDS


async def test_two_readers_see_the_same_and_one_with_a_number_nobody_gave_gets_it_all(database: Path) -> None:
    async with page_gateway(database, scripted(SLOW)) as g, tab(g) as me, tab(g) as other:
        chat, answer = await begun(me, "slow")

        async def read(reader: Tab, query: str) -> list[dict]:
            async with reader.stream(f"{path_of(chat, answer)}/stream{query}") as events:
                return [event async for _, event in events]

        await until_it_says(me, chat, answer, 30)
        one, two, late = await asyncio.gather(read(me, "?after=0"), read(other, ""), read(other, "?after=999999"))
    assert text_of(one[:-1]) == text_of(two[:-1]) == text_of(late[:-1]) == WORDS
    assert one[-1] == two[-1] == late[-1]
    assert [events[0]["type"] for events in (one, two, late)] == ["delta", "snapshot", "snapshot"]


async def test_an_answer_goes_on_when_the_browser_is_gone(database: Path) -> None:
    async with page_gateway(database, scripted(SLOW)) as g:
        async with tab(g) as me:
            chat, answer = await begun(me, "slow")
            async with me.stream(f"{path_of(chat, answer)}/stream") as events:
                await anext(events)
        async with tab(g) as me:
            message = await me.whole(chat, answer)
        assert (message["state"], message["content"]) == ("complete", WORDS)
        (exchange,) = g.exchanges
        assert (exchange.status, exchange.completion_tokens) == (200, 40)


async def test_stop_ends_the_generation_and_keeps_what_was_said(database: Path) -> None:
    async with page_gateway(database, scripted(ENDLESS)) as g, tab(g) as me:
        chat, answer = await begun(me, "endless")
        said = await until_it_says(me, chat, answer, 20)
        async with me.stream(f"{path_of(chat, answer)}/stream") as events:
            await anext(events)
            stopped = (await me.call("POST", f"{path_of(chat, answer)}/stop"))["answer"]
            *_, (_, last) = [event async for event in events]
        assert (stopped["state"], stopped["error"]) == ("stopped", None)
        assert stopped["content"].startswith(said)
        assert last == {"type": "done", "message": stopped}
        assert (await me.call("POST", f"{path_of(chat, answer)}/stop"))["answer"] == stopped
        assert (await me.call("GET", f"/chats/{chat}"))["messages"][-1] == stopped | {"feedback": None}
        async with asyncio.timeout(PATIENCE_S):
            while (await me.call("GET", "/models"))["models"][0]["running"]:
                await asyncio.sleep(0.02)


async def test_an_answer_can_be_stopped_before_its_first_token(database: Path) -> None:
    async with page_gateway(database, scripted(Reply(text="x", delay_s=60))) as g, tab(g) as me:
        chat, answer = await begun(me, "Hi")
        stopped = (await me.call("POST", f"{path_of(chat, answer)}/stop"))["answer"]
        assert (stopped["state"], stopped["content"], stopped["timings"]["first_token_s"]) == ("stopped", "", None)


@pytest.mark.parametrize(
    ("reply", "model", "code", "text"),
    [
        (Reply(text="a b c d", fault="break_off", fault_after_tokens=2), "scripted", "engine_error", "a b"),
        (Reply(text="a", fault="refuse"), "scripted", "engine_error", ""),
        (Reply(text="a"), "scriptde", "model_not_found", ""),
    ],
)
async def test_a_failed_answer_says_why_and_keeps_its_text(
    database: Path, reply: Reply, model: str, code: str, text: str
) -> None:
    async with page_gateway(database, scripted(reply)) as g, tab(g) as me:
        chat = await me.chat()
        _, answer = await me.ask(chat, "Hi", model=model)
        assert (answer["state"], answer["content"], answer["error"]["code"]) == ("failed", text, code)
        assert set(answer["error"]) == {"message", "type", "param", "code", "fix"}
        # Nothing stands in the way of going on.
        _, more = await me.ask(chat, "and?", answer["id"], model=model)
        assert more["state"] == "failed"


async def test_a_parameter_that_the_model_can_not_honour_fails_the_answer_by_name(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        _, answer = await me.ask(await me.chat(), "Hi", settings={"seed": 7})
        assert (answer["error"]["param"], answer["settings"]) == ("seed", {"seed": 7})


async def test_what_was_said_is_written_down_every_second(database: Path) -> None:
    async with page_gateway(database, scripted(ENDLESS)) as g, tab(g) as me:
        chat, answer = await begun(me, "endless")
        said = await until_it_says(me, chat, answer, 20)
        with open_store(f"sqlite:///{database}") as store:
            kept = Conversations(store, None).tree(chat)
            async with asyncio.timeout(PATIENCE_S):
                while (await asyncio.to_thread(kept.get, answer)).content != said:
                    await asyncio.sleep(0.05)
            assert kept.get(answer).state is MessageState.STREAMING


async def test_a_gateway_that_stops_marks_its_answers_and_lets_every_tab_go(database: Path) -> None:
    async with contextlib.AsyncExitStack() as running:
        g = await running.enter_async_context(page_gateway(database, scripted(ENDLESS)))
        async with tab(g) as me:
            chat, answer = await begun(me, "endless")
            said = await until_it_says(me, chat, answer, 20)
            async with me.stream("/events") as events, me.stream(f"{path_of(chat, answer)}/stream") as deltas:
                await anext(events)
                await running.aclose()
                assert [event["type"] async for _, event in events if event["type"] == "message"] in ([], ["message"])
                assert [event["type"] async for _, event in deltas] == ["snapshot"]  # ended, not broken off
    async with page_gateway(database) as g, tab(g) as me:
        message = (await me.call("GET", f"/chats/{chat}"))["messages"][-1]
    assert (message["state"], message["content"], message["error"]["code"]) == ("failed", said, "gateway_stopped")


async def test_an_answer_left_by_a_killed_gateway_fails_after_the_restart_and_keeps_its_text(database: Path) -> None:
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{database}") as store:
        mine = Conversations(store, None)
        chat = mine.create("x", now=now)
        kept = mine.tree(chat.id)
        user = kept.append(None, "user", "Hi", now=now)
        killed = kept.append(user.id, "assistant", "Hel", now=now, state=MessageState.STREAMING, gateway_id="gone")
    path = f"{path_of(chat.id, killed.id)}/stream?after=3"
    # It fails once the new gateway has seen for a whole lease that nobody writes it.
    async with page_gateway(database, lease_s=1.0) as g, tab(g) as me, me.stream(path) as events:
        heard = [event async for _, event in events]
    assert (heard[0]["message"]["state"], heard[0]["message"]["content"]) == ("streaming", "Hel")
    last = heard[-1]
    assert (last["type"], last["message"]["content"], last["message"]["error"]) == ("failed", "Hel", leases.RESTARTED)


async def test_two_gateways_over_one_database_show_and_stop_each_others_answers(database: Path) -> None:
    slower = Reply(match="slow", text=WORDS, token_delay_s=0.04)
    one, two = page_gateway(database, scripted(slower)), page_gateway(database)
    async with one as first, two as second, tab(first) as here, tab(second) as there:
        chat, answer = await begun(here, "slow")
        path = f"{path_of(chat, answer)}/stream"

        async def moved() -> str:
            """What a reader has on its screen that goes to the other gateway and back, with the id it heard last."""
            heard: list[dict] = []
            after = ""
            for reader, num_events in ((here, 3), (there, 2), (here, None)):
                async with reader.stream(path + after) as events:
                    taken = 0
                    async for number, event in events:
                        heard.append(event)
                        after, taken = f"?after={number}", taken + 1
                        if taken == num_events:
                            break
            return text_of(heard[:-1])

        moving = asyncio.create_task(moved())
        async with there.stream(path) as events:
            heard = [event async for _, event in events]
        on_screen = await moving
        assert heard[-1]["type"] == "done" and heard[-1]["message"]["content"] == on_screen == WORDS
        assert [event["type"] for event in heard].count("snapshot") >= 2
        chat, answer = await begun(here, "slow")
        await until_it_says(here, chat, answer, 10)
        stopped = (await there.call("POST", f"{path_of(chat, answer)}/stop"))["answer"]
        assert stopped["state"] == "stopped"
        assert (await here.whole(chat, answer))["state"] == "stopped"


async def test_a_database_that_is_away_for_a_moment_loses_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = iter([StoreError("the database is away")] * 2)
    finish = tree.Tree.finish

    def sometimes(self: tree.Tree, *args: Any, **fields: Any) -> None:
        if error := next(refusals, None):
            raise error
        finish(self, *args, **fields)

    monkeypatch.setattr(tree.Tree, "finish", sometimes)
    monkeypatch.setattr("chaku.web.answers._SAVE_PAUSES_S", (0.01, 0.01))
    async with page_gateway(database) as g, tab(g) as me:
        chat = await me.chat()
        _, answer = await me.ask(chat, "Hi")
        assert (answer["state"], await me.texts(chat)) == ("complete", ["Hi", "You said: Hi"])
    assert next(refusals, None) is None


async def test_an_answer_finishes_in_a_chat_that_was_deleted_meanwhile(database: Path) -> None:
    async with page_gateway(database, scripted(SLOW)) as g, tab(g) as me:
        chat, answer = await begun(me, "slow")
        await me.call("DELETE", f"/chats/{chat}")
        with pytest.raises(Refused, match="404"):
            await me.whole(chat, answer)
        async with asyncio.timeout(PATIENCE_S):
            while not g.exchanges:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        await me.call("POST", f"/chats/{chat}/restore")
        assert (await me.texts(chat))[-1] == WORDS


async def test_answers_side_by_side_come_whole(database: Path) -> None:
    async with page_gateway(database, scripted(SLOW)) as g, tab(g) as me:
        running = [await begun(me, "slow") for _ in range(8)]
        ended = await asyncio.gather(*(me.whole(chat, answer) for chat, answer in running))
    assert [message["content"] for message in ended] == [WORDS] * 8


async def test_an_unexpected_error_fails_the_answer_and_every_reader_hears_of_the_end(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def planted(self: tree.Tree, *args: Any, **fields: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(tree.Tree, "finish", planted)
    async with page_gateway(database, scripted(SLOW)) as g, tab(g) as me, asyncio.timeout(PATIENCE_S):
        chat, answer = await begun(me, "slow")
        async with me.stream(f"{path_of(chat, answer)}/stream") as events:
            heard = [event async for _, event in events]
    assert (heard[-1]["type"], heard[-1]["message"]["content"]) == ("failed", WORDS)
    assert f"task=answer-{answer}" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_answers_are_kept_again_after_an_unexpected_error(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grow, failures = tree.Tree.grow, iter([RuntimeError("planted")])

    def sometimes(self: tree.Tree, *args: Any, **fields: Any) -> None:
        if error := next(failures, None):
            raise error
        grow(self, *args, **fields)

    monkeypatch.setattr(tree.Tree, "grow", sometimes)
    monkeypatch.setattr("chaku.web.answers.KEEP_S", 0.05)
    async with page_gateway(database, scripted(ENDLESS)) as g, tab(g) as me:
        chat, answer = await begun(me, "endless")
        with open_store(f"sqlite:///{database}") as store:
            kept = Conversations(store, None).tree(chat)
            async with asyncio.timeout(PATIENCE_S):
                while not (await asyncio.to_thread(kept.get, answer)).content:
                    await asyncio.sleep(0.02)
    assert "task=answers-keeper" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_a_store_that_is_slow_for_longer_than_a_lease_costs_no_answer(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaku.web.answers.KEEP_S", 0.05)
    slow = Reply(match="slow", text=WORDS, token_delay_s=0.05)
    one, two = page_gateway(database, scripted(slow), lease_s=0.3), page_gateway(database, scripted(slow), lease_s=0.3)
    async with one as first, two as second, tab(first) as here, tab(second) as there:
        begun_here, begun_there = await begun(here, "slow"), await begun(there, "slow")
        await asyncio.sleep(0.4)

        def be_slow() -> None:
            with open_store(f"sqlite:///{database}") as store, store.write():
                time.sleep(0.9)

        await asyncio.to_thread(be_slow)
        for me, (chat, answer) in ((here, begun_here), (there, begun_there)):
            assert (await me.whole(chat, answer))["state"] == "complete"


async def test_an_answer_whose_asker_leaves_while_it_begins_is_written_all_the_same(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = tree.Tree.append

    def slowly(self: tree.Tree, *args: Any, **fields: Any) -> tree.Message:
        message = append(self, *args, **fields)
        time.sleep(0.2)
        return message

    with open_store(f"sqlite:///{database}") as store:
        answers = Answers(store, "http://127.0.0.1:1/v1", lambda key_id: "", lambda owner, message: None)
        await answers.start()
        mine = Conversations(store, None)
        chat = mine.create("x", now=datetime.now(UTC))
        user = mine.tree(chat.id).append(None, "user", "Hi", now=datetime.now(UTC))
        monkeypatch.setattr(tree.Tree, "append", slowly)
        asking = asyncio.create_task(answers.begin(None, chat, user.id, "m", {}))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_S):
            while (await asyncio.to_thread(mine.tree(chat.id).path))[-1].state is not MessageState.FAILED:
                await asyncio.sleep(0.02)
        await answers.stop()
