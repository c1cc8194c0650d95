"""The vote of one battle: it counts once, who may give it and until when, and what keeps it from counting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from chaku.store import battles
from chaku.store.database import open_store
from chaku.store.tables import comparisons, votes
from processes import PATIENCE_S
from web.arena_play import NAMES, arena, begun, counted, engine, events_of, played, refusal, shown, voted


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


async def test_an_answer_that_names_its_model_is_marked_and_not_counted(database: Path) -> None:
    async with arena(database, engine(NAMES[0], "I am Zebrafish, trained by fish."), engine(NAMES[1])) as me:
        battle = await begun(me)
        await played(me, battle)
        revealed = await voted(me, battle)
        assert (revealed["counted"], revealed["reason"]) == (False, "an answer said which model wrote it")
