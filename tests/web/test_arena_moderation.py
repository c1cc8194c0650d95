"""Moderation treats both sides of a battle alike: a refused prompt reaches neither, a filtered side ends it."""

from __future__ import annotations

from pathlib import Path

from chaku.engines.scripted import Reply
from gateways import page_gateway, scripted
from tabs import tab
from web.arena_play import begun, counted, events_of, played, refusal, shown

POLICY = {"patterns": {"secret": "forbidden"}}


def named(name: str, text: str):
    return scripted(Reply(text=text, delay_s=0.3), name=name)


async def test_a_refused_prompt_reaches_no_side(database: Path) -> None:
    engines = (named("zebra", "fine"), named("quokka", "fine too"))
    async with page_gateway(database, *engines, moderation=POLICY) as g, tab(g) as me:
        battle = await begun(me)
        asking = me.call("POST", f"/arena/battles/{battle}/turns", {"content": "the forbidden word"})
        assert await refusal(asking) == (400, "content_filter")
        before = await shown(me, battle)
        assert (before["state"], before["turn"], before["prompts"]) == ("drawn", 0, [])
        assert not g.exchanges
        await played(me, battle, "a usual word")
        assert (await shown(me, battle))["state"] == "votable"


async def test_a_filtered_side_ends_the_battle_and_nobody_replaces_it(database: Path) -> None:
    engines = (named("zebra", "the forbidden word"), named("quokka", "fine"))
    async with page_gateway(database, *engines, moderation=POLICY) as g, tab(g) as me:
        battle = await begun(me)
        events = await played(me, battle)
        after = await shown(me, battle)
        assert "failed" in [event["kind"] for event in events]
        assert "replaced" not in [event["kind"] for event in events]
        assert (after["state"], after["token"]) == ("failed", None)
        assert "forbidden" not in str(events) + str(after)
        again = me.call("POST", f"/arena/battles/{battle}/turns", {"content": "hello"})
        assert (await refusal(again))[0] == 409
        assert await events_of(me, battle)
    assert counted(database) == []
