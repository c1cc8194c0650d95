"""Battles over HTTP: two anonymous sides, one vote, and nothing before it that has a name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from chaku.engines.scripted import Reply
from chaku.settings import Contestant
from chaku.store import battles, keys
from chaku.store.battles import SIDES, Battles
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.store.message_record import MessageState
from chaku.store.tables import comparisons, votes
from chaku.web.arena import ArenaSettings
from chaku.web.battle_turn import BattleTurn
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

NAMES = ("zebrafish-7b", "quokka-3b")
CONSENT = {"consent": {"keep": True, "publish": True}}


def engine(name: str, text: str = "", **fields: Any):
    return scripted(Reply(text=text or f"{name[0]} says: {{prompt}}", **fields), name=name)


@contextlib.asynccontextmanager
async def arena(database: Path, *engines: Any, **settings: Any) -> AsyncIterator[Tab]:
    engines = engines or tuple(engine(name) for name in NAMES)
    async with page_gateway(database, *engines, arena=ArenaSettings(**settings)) as g, tab(g) as me:
        yield me


async def begun(me: Tab, **consent: Any) -> str:
    return (await me.call("POST", "/arena/battles", {"consent": {"keep": True, "publish": True, **consent}}))["id"]


async def played(me: Tab, battle: str, content: str = "Hello") -> list[dict]:
    """The events of one whole turn."""
    await me.call("POST", f"/arena/battles/{battle}/turns", {"content": content})
    return await events_of(me, battle)


async def events_of(me: Tab, battle: str, **options: Any) -> list[dict]:
    async with asyncio.timeout(PATIENCE_S), me.stream(f"/arena/battles/{battle}/events", **options) as events:
        return [event async for _, event in events]


async def shown(me: Tab, battle: str) -> dict:
    return await me.call("GET", f"/arena/battles/{battle}")


async def voted(me: Tab, battle: str, choice: str = "a", **fields: Any) -> dict:
    token = (await shown(me, battle))["token"]
    return await me.call("POST", f"/arena/battles/{battle}/vote", {"choice": choice, "token": token, **fields})


async def refusal(call: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.status, refused.value.error["code"]


def counted(database: Path) -> list[Any]:
    with open_store(f"sqlite:///{database}") as store:
        return ComparisonBook(store).games()


async def test_a_battle_is_played_voted_and_revealed(database: Path) -> None:
    async with arena(database, *(engine(name, delay_s=0.5) for name in NAMES)) as me:
        terms = await me.call("GET", "/arena")
        assert (terms["is_open"], terms["contestants_count"], terms["consent_needed"]) == (True, 2, True)
        battle = await begun(me)
        events = await played(me, battle)
        kinds = [event["kind"] for event in events]
        assert kinds.count("began") == kinds.count("ended") == 2 and kinds.count("votable") == 1
        before = await shown(me, battle)
        assert before["state"] == "votable" and before["prompts"] == ["Hello"] and before["revealed"] is None
        assert sorted(side["answers"][0] for side in before["sides"].values()) == ["q says: Hello", "z says: Hello"]
        await played(me, battle, "And again")
        assert (await shown(me, battle))["turn"] == 2
        revealed = await voted(me, battle, "b", reasons=["Clear"])
        names = {side: row["contestant"] for side, row in revealed["sides"].items()}
        assert sorted(names.values()) == sorted(NAMES) and revealed["counted"]
        assert all(row["model"] == row["contestant"] for row in revealed["sides"].values())
        (game,) = counted(database)
        assert (game.model_a, game.model_b, game.outcome) == (names["a"], names["b"], "b")
        assert (game.turn, game.category, game.consent, game.voter) == (2, "multi_turn", True, "local")
        assert (await me.call("GET", "/arena"))["consent"] == {"keep": True, "publish": True}


async def test_nothing_before_the_vote_has_a_name_in_it(database: Path) -> None:
    """Bodies and headers of every call, failures included, and what other streams of the visitor tell."""
    engines = (engine(NAMES[0]), engine(NAMES[1], fault="refuse"), engine("axolotl-1b", "three words here"))
    names = [*NAMES, "axolotl-1b"]
    seen: list[tuple[str, str]] = []
    async with arena(database, *engines) as me:

        async def look(method: str, path: str, body: Any = None, **options: Any) -> None:
            status, content, headers = await me.raw(method, "/api" + path, body, **options)
            seen.append((f"{method} {path} {status}", f"{content.decode()} {dict(headers)}"))

        await look("POST", "/arena/battles", CONSENT)
        told: list[Any] = []

        async def listen() -> None:
            async with me.stream("/events") as events:
                async for _, event in events:
                    if event["type"] != "models":  # the list of what is served, whoever asks
                        told.append(event)

        listening = asyncio.create_task(listen())
        for _ in range(4):
            battle = await begun(me)
            await me.call("POST", f"/arena/battles/{battle}/turns", {"content": "Hi"})
            await look("GET", f"/arena/battles/{battle}/events")
            await look("GET", f"/arena/battles/{battle}")
            await look("POST", f"/arena/battles/{battle}/turns", {"content": ""})
            await look("POST", f"/arena/battles/{battle}/turns", {"content": "More"})
            await look("GET", f"/arena/battles/{battle}/events")
            await look("POST", f"/arena/battles/{battle}/vote", {"choice": "a", "token": "wrong"})
            await look("DELETE", f"/arena/battles/{battle}/vote")
        for path in (
            "/arena",
            "/chats",
            "/chats?query=says",
            "/export",
            "/arena/battles/00000000-0000-7000-8000-000000000000",
        ):
            await look("GET", path)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert len(seen) > 30 and told == []
    for where, text in seen:
        assert not [name for name in names if name in text], (where, text)


async def test_the_list_of_models_does_not_show_who_answers_a_battle(database: Path) -> None:
    words = " ".join(map(str, range(30)))
    async with arena(database, *(engine(name, words, token_delay_s=0.01) for name in NAMES)) as me:
        battle = await begun(me)
        await me.call("POST", f"/arena/battles/{battle}/turns", {"content": "Count"})
        reading = asyncio.create_task(events_of(me, battle))
        looked = 0
        while not reading.done():
            rows = (await me.call("GET", "/models"))["models"]
            assert [(row["running"], row["waiting"]) for row in rows] == [(0, 0)] * 2
            looked += 1
            await asyncio.sleep(0.01)
        assert looked > 3 and len(await reading) > 4
        chat = await me.chat()
        await me.say(chat, "Count", model=NAMES[0])
        async with asyncio.timeout(PATIENCE_S):
            while not any(row["running"] for row in (await me.call("GET", "/models"))["models"]):
                await me.say(chat, "Count", model=NAMES[0])


async def test_both_sides_are_first_seen_together_and_then_at_their_own_pace(database: Path) -> None:
    slow = engine(NAMES[0], "one two three four", delay_s=0.4)
    fast = engine(NAMES[1], "five six seven eight")
    async with arena(database, slow, fast) as me:
        events = await played(me, await begun(me))
    if events[0]["kind"] == "snapshot":
        assert [side["answers"] for side in events[0]["battle"]["sides"].values()] == [[""], [""]]
    kinds = [event["kind"] for event in events if event["kind"] != "snapshot"]
    first_delta = kinds.index("delta")
    assert "ended" not in kinds[: kinds.index("votable")] and kinds.count("began") == 2
    assert kinds[first_delta - 1] == "began" and kinds[first_delta + 1] == "began" and kinds[first_delta + 2] == "delta"


async def test_a_vote_counts_while_both_still_write_and_stops_them(database: Path) -> None:
    words = " ".join(map(str, range(300)))
    async with arena(database, *(engine(name, words, token_delay_s=0.02) for name in NAMES)) as me:
        battle = await begun(me)
        assert (await refusal(voted(me, battle, token="early")))[1] == "not_votable"
        await me.call("POST", f"/arena/battles/{battle}/turns", {"content": "Count"})
        async with me.stream(f"/arena/battles/{battle}/events") as events:
            async for _, event in events:
                if event["kind"] == "votable" or (event["kind"] == "snapshot" and event["battle"]["token"]):
                    break
        assert (await refusal(me.call("POST", f"/arena/battles/{battle}/turns", {"content": "x"})))[0] == 409
        assert (await voted(me, battle, "tie"))["counted"]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sides = (await shown(me, battle))["sides"].values()
                if all(side["state"] == "ended" for side in sides):
                    break
                await asyncio.sleep(0.05)
        assert all(0 < len(side["answers"][-1]) < len(words) for side in sides)


async def test_the_same_vote_twenty_times_at_once_is_one_row(database: Path) -> None:
    async with arena(database) as me:
        battle = await begun(me)
        await played(me, battle)
        token = (await shown(me, battle))["token"]
        body = {"choice": "a", "token": token}
        path = f"/api/arena/battles/{battle}/vote"
        answers = await asyncio.gather(*(me.raw("POST", path, body) for _ in range(20)))
        assert sorted(status for status, _, _ in answers) == [200] + [409] * 19
    with open_store(f"sqlite:///{database}") as store, store.read() as connection:
        assert [
            connection.execute(sa.select(sa.func.count()).select_from(t)).scalar() for t in (votes, comparisons)
        ] == [1, 1]


async def test_two_gateways_on_one_database_play_one_battle_and_count_one_vote(database: Path) -> None:
    slow = [engine(name, "one two three four five six", token_delay_s=0.1) for name in NAMES]
    async with arena(database, *slow) as here, arena(database, battles_per_hour=1) as there:
        battle = await begun(here)
        await here.call("POST", f"/arena/battles/{battle}/turns", {"content": "Count"})
        assert await refusal(begun(there)) == (429, "too_many_battles")  # while the other gateway still writes
        playing = asyncio.create_task(events_of(here, battle))
        path, last = f"/arena/battles/{battle}/events", None
        for gateway in (here, there, here):  # a tab that moves, and says which event it heard last, as browsers do
            async with gateway.stream(path if last is None else f"{path}?after={last}") as heard:
                number, event = await anext(heard)
            last = number or last
            assert event["kind"] == "snapshot"
        events = await playing
        assert [event["kind"] for event in events].count("ended") == 2
        (event,) = await events_of(there, battle)
        assert event["battle"]["sides"]["a"]["answers"] == ["one two three four five six"]
        token = (await shown(there, battle))["token"]
        body = {"choice": "a", "token": token}
        path = f"/api/arena/battles/{battle}/vote"
        answers = await asyncio.gather(*((here, there)[number % 2].raw("POST", path, body) for number in range(20)))
        assert sorted(status for status, _, _ in answers) == [200] + [409] * 19
        names = [(await shown(tab, battle))["revealed"]["sides"] for tab in (here, there)]
        assert names[0] == names[1]
    assert len(counted(database)) == 1


async def test_stale_tabs_and_replays_are_refused(database: Path) -> None:
    async with arena(database) as me:
        battle = await begun(me)
        await played(me, battle)
        old = (await shown(me, battle))["token"]
        await played(me, battle, "More")
        vote = f"/arena/battles/{battle}/vote"
        assert await refusal(me.call("POST", vote, {"choice": "a", "token": old})) == (409, "stale_vote")
        token = (await shown(me, battle))["token"]
        await me.call("POST", vote, {"choice": "a", "token": token})
        assert await refusal(me.call("POST", vote, {"choice": "b", "token": token})) == (409, "already_voted")
        assert await refusal(me.call("POST", f"/arena/battles/{battle}/turns", {"content": "x"})) == (
            409,
            "battle_voted",
        )
        await me.call("DELETE", vote)
        assert await refusal(me.call("POST", vote, {"choice": "b", "token": token})) == (409, "stale_vote")
    assert [game.counted for game in counted(database)] == [False]


async def test_an_undone_vote_is_superseded_and_the_next_one_is_not_counted(database: Path) -> None:
    async with arena(database) as me:
        battle = await begun(me)
        await played(me, battle)
        await voted(me, battle, "a")
        again = await me.call("DELETE", f"/arena/battles/{battle}/vote")
        assert (again["state"], again["revealed"]) == ("votable", None)
        second = await voted(me, battle, "b")
        assert (second["counted"], second["reason"]) == (False, "the names had been shown before the vote")
    assert sorted(game.reason for game in counted(database)) == [
        "the names had been shown before the vote",
        "the vote was undone",
    ]


async def test_a_vote_can_be_undone_for_ten_seconds_only(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with arena(database) as me:
        battle = await begun(me)
        await played(me, battle)
        await voted(me, battle)
        monkeypatch.setattr(battles, "UNDO", timedelta(0))
        assert await refusal(me.call("DELETE", f"/arena/battles/{battle}/vote")) == (409, "too_late")


async def test_a_side_that_fails_is_replaced_and_the_battle_not_counted(database: Path) -> None:
    broken = engine("broken-9b", "one two three four five six", fault="break_off", token_delay_s=0.01)
    standing = tuple(Contestant(name=name, model=name) for name in (NAMES[0], "broken-9b", NAMES[1]))
    async with arena(database, engine(NAMES[0]), engine(NAMES[1]), broken, contestants=standing) as me:
        for _ in range(30):
            battle = await begun(me)
            events = await played(me, battle)
            state = await shown(me, battle)
            if state["side_replaced"]:
                break
        assert state["state"] == "votable" and "failed" not in {event["kind"] for event in events}
        (late,) = await events_of(me, battle)
        assert late["battle"]["side_replaced"], "who comes late hears of it too"
        assert [side["state"] for side in state["sides"].values()] == ["ended", "ended"]
        revealed = await voted(me, battle)
        assert (revealed["counted"], revealed["reason"]) == (False, "a side failed and was replaced")
        assert "broken-9b" not in {row["contestant"] for row in revealed["sides"].values()}


async def test_a_battle_fails_and_its_readers_hear_of_the_end_whatever_it_raises(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def planted(*_: object) -> bool:
        raise RuntimeError("planted")

    monkeypatch.setattr(BattleTurn, "_answer", planted)
    async with arena(database, engine(NAMES[0]), engine(NAMES[1])) as me:
        battle = await begun(me)
        await played(me, battle)
        assert (await shown(me, battle))["state"] == "failed"
    assert f"task=battle-{battle}" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_a_battle_without_two_answers_has_failed(database: Path) -> None:
    async with arena(database, engine(NAMES[0]), engine(NAMES[1], fault="refuse")) as me:
        battle = await begun(me)
        events = await played(me, battle)
        assert not any(event["kind"] == "votable" for event in events)
        # An event says it, or the snapshot where the side had failed before anybody looked.
        assert any(event["kind"] == "failed" or event.get("battle", {}).get("state") == "failed" for event in events)
        assert (await shown(me, battle))["state"] == "failed"
        assert await refusal(me.call("POST", f"/arena/battles/{battle}/turns", {"content": "x"})) == (
            409,
            "battle_failed",
        )
        assert (await refusal(voted(me, battle, token="x")))[1] == "not_votable"


async def test_an_answer_that_names_its_model_is_marked_and_not_counted(database: Path) -> None:
    async with arena(database, engine(NAMES[0], "I am Zebrafish, trained by fish."), engine(NAMES[1])) as me:
        battle = await begun(me)
        await played(me, battle)
        revealed = await voted(me, battle)
        assert (revealed["counted"], revealed["reason"]) == (False, "an answer said which model wrote it")


async def test_a_visitor_begins_only_so_many_battles_and_turns(database: Path) -> None:
    async with arena(database, battles_per_hour=2, turns=1) as me:
        await begun(me)
        battle = await begun(me)
        assert await refusal(begun(me)) == (429, "too_many_battles")
        assert (await me.call("GET", "/arena"))["limits"]["battles_left"] == 0
        await played(me, battle)
        assert (await refusal(me.call("POST", f"/arena/battles/{battle}/turns", {"content": "x"})))[
            1
        ] == "too_many_turns"


async def test_no_battle_without_two_contestants_or_without_consent(database: Path) -> None:
    async with arena(database, engine(NAMES[0])) as me:
        assert (await me.call("GET", "/arena"))["why_closed"] == "a battle needs two contestants, and one is ready"
        assert await refusal(begun(me)) == (409, "arena_closed")
        for body in ({}, {"consent": {"keep": False, "publish": True}}, {"consent": {"publish": True}}):
            assert (await refusal(me.call("POST", "/arena/battles", body)))[0] == 400


async def test_a_battle_is_its_visitors_alone(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        tokens = [keys.create(store, name, now=datetime.now(UTC)).token for name in ("ana", "bo")]
        scopes = ["page", "admin"]
        tokens.append(keys.create(store, "cleo", now=datetime.now(UTC), scopes=scopes).token)
    async with (
        page_gateway(database, *(engine(name) for name in NAMES)) as g,
        tab(g, tokens[0]) as ana,
        tab(g, tokens[1]) as bo,
        tab(g, tokens[2]) as cleo,
    ):
        battle = await begun(ana)
        await played(ana, battle)
        for method, path, body in (
            ("GET", "", None),
            ("GET", "/events", None),
            ("POST", "/turns", {"content": "x"}),
            ("POST", "/vote", {"choice": "a", "token": "x"}),
            ("DELETE", "/vote", None),
        ):
            assert (await refusal(bo.call(method, f"/arena/battles/{battle}{path}", body)))[0] == 404
        for method, path, body in (
            ("GET", "/arena/operator", None),
            ("POST", "/arena/operator/exclusions", {"kind": "battle", "id": battle, "reason": "because"}),
        ):
            assert (await refusal(ana.call(method, path, body)))[0] == 403

        assert (await cleo.call("GET", "/arena"))["is_operator"] and not (await ana.call("GET", "/arena"))[
            "is_operator"
        ]
        await cleo.call("GET", "/arena/operator")


async def test_a_reader_resumes_where_it_was(database: Path) -> None:
    words = " ".join(f"w{number}" for number in range(40))
    async with arena(database, *(engine(name, words, token_delay_s=0.005) for name in NAMES)) as me:
        battle = await begun(me)
        await me.call("POST", f"/arena/battles/{battle}/turns", {"content": "Go"})
        texts, seen, last = {"a": "", "b": ""}, 0, None

        def take(event: dict) -> None:
            if event["kind"] == "snapshot":
                for side, row in event["battle"]["sides"].items():
                    texts[side] = row["answers"][-1]
            elif event["kind"] == "delta":
                texts[event["side"]] += event["text"]

        async with me.stream(f"/arena/battles/{battle}/events") as events:
            async for number, event in events:
                take(event)
                last, seen = number, seen + 1
                if seen == 12:
                    break
        async with me.stream(f"/arena/battles/{battle}/events", headers={"Last-Event-ID": str(last)}) as events:
            later = [event async for _, event in events]
        assert "snapshot" not in [event["kind"] for event in later]
        for event in later:
            take(event)
        assert texts == {"a": words, "b": words}
        (after,) = await events_of(me, battle, headers={"Last-Event-ID": str(last)})
        assert after["kind"] == "snapshot" and after["battle"]["sides"]["a"]["answers"] == [words]


@pytest.mark.parametrize(
    ("turn", "texts", "state"),
    [(1, ("", "half of"), "failed"), (1, ("Well", "half of"), "votable"), (2, ("", ""), "votable")],
)
async def test_a_battle_whose_gateway_was_killed_can_be_judged_or_has_failed(
    database: Path, turn: int, texts: tuple[str, str], state: str
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    with open_store(f"sqlite:///{database}") as store:
        book = Battles(store, None)
        pair = tuple(Contestant(name=name, model=name) for name in NAMES)
        battle = book.create((pair[0], pair[1]), 1.0, publish=True, per_hour=9, now=before)
        for number in range(turn):
            is_last = number == turn - 1
            book.begin_turn(battle.id, most=9, now=before)
            for side, text in zip(SIDES, texts, strict=True):
                tree = book.tree(battle, side)
                path = tree.path()
                user = tree.append(path[-1].id if path else None, "user", "Hi", now=before)
                lost = MessageState.FAILED if is_last else MessageState.COMPLETE
                tree.append(user.id, "assistant", text if is_last else "Whole", now=before, state=lost)
            if not is_last:
                book.open_voting(battle.id, now=before)
    async with arena(database) as me:
        (event,) = await events_of(me, battle.id)
        assert event["battle"]["state"] == state == (await shown(me, battle.id))["state"]
        if state == "votable":
            revealed = await voted(me, battle.id)
            assert (revealed["counted"], revealed["reason"]) == (False, "a side failed")
