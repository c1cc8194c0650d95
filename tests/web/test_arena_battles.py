"""Battles over HTTP: two anonymous sides, one vote, and nothing before it that has a name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chaku.models.registry import Recommended
from chaku.policies import GuestPolicy, Limits
from chaku.settings import Contestant
from chaku.store import keys
from chaku.store.battles import SIDES, Battles
from chaku.store.database import open_store
from chaku.store.message_record import MessageState
from chaku.web.battle_turn import BattleTurn
from gateways import page_gateway
from processes import PATIENCE_S
from tabs import tab
from web.arena_play import CONSENT, NAMES, arena, begun, counted, engine, events_of, played, refusal, shown, voted

OTHERS = tuple(f"llama-{number}b" for number in range(2, 10))


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


async def test_a_model_stands_under_the_settings_that_suit_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suits = Recommended(temperature=0.0, repetition_penalty=1.1, system="You are a helpful assistant.")
    monkeypatch.setattr("chaku.serve.app.recommended_here", lambda source: suits)
    engines = [engine(name) for name in NAMES]
    able = replace(engines[0].capabilities, parameters=frozenset({"temperature"}))
    monkeypatch.setattr(type(engines[0]), "capabilities", able)
    async with arena(database, *engines) as me:
        battle = await begun(me)
        await played(me, battle)
        for side in (await voted(me, battle))["sides"].values():
            assert side["parameters"] == {"system": suits.system, "temperature": 0.0}  # it knows no penalty


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
        why_closed = (await me.call("GET", "/arena"))["why_closed"]
        assert why_closed == "a battle needs two contestants that you may ask, and one is ready"
        assert await refusal(begun(me)) == (409, "arena_closed")
        for body in ({}, {"consent": {"keep": False, "publish": True}}, {"consent": {"publish": True}}):
            assert (await refusal(me.call("POST", "/arena/battles", body)))[0] == 400


async def test_a_visitor_meets_only_contestants_whose_models_he_may_ask(database: Path) -> None:
    """Nobody who fails is replaced by another either."""
    mine = (*NAMES, "axolotl-1b")
    engines = [engine(name, **({"fault": "refuse"} if name == mine[0] else {})) for name in (*mine, *OTHERS)]
    rules = GuestPolicy(limits=Limits(models=mine))
    async with page_gateway(database, *engines, guests=rules) as g, tab(g) as me:
        await me.call("POST", "/guest")
        assert (await me.call("GET", "/arena"))["contestants_count"] == 3
        for _ in range(8):
            battle = await begun(me)
            events = await played(me, battle)
            if "replaced" in [event["kind"] for event in events]:
                break
        revealed = await voted(me, battle)
        assert {side["model"] for side in revealed["sides"].values()} == set(mine[1:])
    asked = {exchange.model for exchange in g.exchanges}
    assert asked <= set(mine)


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
