"""Votes of many people over HTTP: none is lost by a kill, and the strengths that they voted by come out again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from scipy import stats

from chaku.engines.scripted import Reply
from chaku.rank.fit import fit
from chaku.rank.games import Games
from chaku.store import keys
from chaku.store.battle_list import BattleList
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.web.arena import ArenaSettings
from chaku_server import ChakuServer, serving
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, Tab, tab

STRENGTHS = {"ibex-1b": -1.0, "lynx-2b": -0.4, "newt-3b": 0.0, "pika-4b": 0.5, "wren-5b": 0.9}
"""Natural-log strengths. A model's answers say its strength, so that a voter who reads them can vote by it."""
TIES = 0.3
"""Of the votes of a pair of equals."""
CONSENT = {"consent": {"keep": True, "publish": False}}


def answer_of(strength: float) -> str:
    return f"This answer is worth {strength:g} to you."


def worth(text: str) -> float:
    return float(text.split()[4])


async def play(me: Tab) -> tuple[str, str, list[str]]:
    """A battle that waits for its vote: id, token, answers."""
    battle = (await me.call("POST", "/arena/battles", CONSENT))["id"]
    await me.call("POST", f"/arena/battles/{battle}/turns", {"content": "What is this worth?"})
    async with me.stream(f"/arena/battles/{battle}/events") as events:
        async for _ in events:
            pass
    shown = await me.call("GET", f"/arena/battles/{battle}")
    return battle, shown["token"], [shown["sides"][side]["answers"][0] for side in "ab"]


def decide(answers: Sequence[str], chance: random.Random) -> str:
    """The share of points is that of Bradley and Terry, some of them in ties."""
    share = 1 / (1 + math.exp(worth(answers[1]) - worth(answers[0])))
    tie = TIES * 2 * share * (1 - share)
    return chance.choices(["a", "b", "tie", "both_bad"], [share - tie / 2, 1 - share - tie / 2, tie / 2, tie / 2])[0]


async def test_reasons_may_follow_a_vote_and_change_nothing_else(database: Path) -> None:
    engines = [scripted(Reply(text=answer_of(worth)), name=name) for name, worth in list(STRENGTHS.items())[:2]]
    async with page_gateway(database, *engines) as g, tab(g) as me, tab(g) as other:
        battle, token, _ = await play(me)
        path = f"/arena/battles/{battle}/vote"
        with pytest.raises(Refused) as early:
            await me.call("PATCH", path, {"reasons": ["Clear"]})
        assert (early.value.status, early.value.error["code"]) == (409, "no_vote")
        given = await me.call("POST", path, {"choice": "a", "token": token, "reasons": ["Clear"]})
        changed = await me.call("PATCH", path, {"reasons": ["Other"]})
        assert 0 < changed["undo_s"] <= given["undo_s"] <= 10
        assert changed == {**given, "reasons": ["Other"], "undo_s": changed["undo_s"]}
        assert (await me.call("GET", f"/arena/battles/{battle}"))["revealed"]["reasons"] == ["Other"]
        await me.call("DELETE", path)
        with pytest.raises(Refused):
            await other.call("PATCH", path, {"reasons": []})


async def cast(me: Tab, chance: random.Random, acknowledged: dict[str, str]) -> None:
    battle, token, answers = await play(me)
    choice = decide(answers, chance)
    await me.call("POST", f"/arena/battles/{battle}/vote", {"choice": choice, "token": token})
    acknowledged[battle] = choice


def misfit(games: Sequence[Any], strengths: dict[str, float]) -> float:
    """The p-value of the strengths that were found under those that were voted by."""
    found = fit(
        Games.of(((game.model_a, game.model_b, game.score) for game in games), [game.cluster for game in games])
    )
    wanted = np.array([strengths[name] for name in found.names])
    gap = found.strengths - (wanted - wanted.mean())
    return float(stats.chi2.sf(gap @ np.linalg.pinv(found.covariance) @ gap, len(strengths) - 1))


def check_strengths(database: Path) -> None:
    with open_store(f"sqlite:///{database}") as store:
        games = ComparisonBook(store).games()
    swapped = {**STRENGTHS, "ibex-1b": STRENGTHS["wren-5b"], "wren-5b": STRENGTHS["ibex-1b"]}
    assert all(game.counted for game in games)
    assert misfit(games, STRENGTHS) > 0.001 and misfit(games, swapped) < 1e-6


def check_kept(database: Path, acknowledged: dict[str, str]) -> None:
    """Every vote that was answered with 200 is there, and with the same choice."""
    with open_store(f"sqlite:///{database}") as store:
        kept: dict[str, str] = {}
        for first in STRENGTHS:
            for second in STRENGTHS:
                total, found = BattleList(store).of_pair(first, second, limit=10_000)
                assert total == len(found)
                kept |= {one.id: one.outcome for one in found if one.outcome is not None}
    lost = {battle for battle, choice in acknowledged.items() if kept.get(battle) != choice}
    assert acknowledged and not lost


def voters(database: Path, num: int) -> list[str]:
    with open_store(f"sqlite:///{database}") as store:
        return [keys.create(store, f"voter-{number}", now=datetime.now(UTC)).token for number in range(num)]


async def test_the_strengths_that_people_vote_by_come_out_again(database: Path) -> None:
    tokens = voters(database, 12)
    engines = [scripted(Reply(text=answer_of(strength)), name=name) for name, strength in STRENGTHS.items()]
    async with page_gateway(database, *engines, arena=ArenaSettings(battles_per_hour=1000)) as g:
        acknowledged: dict[str, str] = {}

        async def votes(number: int, token: str) -> None:
            chance = random.Random(number)
            async with tab(g, token) as me:
                for _ in range(10):
                    await cast(me, chance, acknowledged)

        await asyncio.gather(*(votes(number, token) for number, token in enumerate(tokens)))
        async with tab(g, tokens[0]) as me:
            board = await me.call("GET", "/leaderboard?sources=human")
    assert len(acknowledged) == sum(board["counts"]["source"].values()) == 120
    assert board["rows"][0]["model"] in ("wren-5b", "pika-4b") and not board["error"]
    assert abs(sum(pair["probability"] for pair in board["sampling"]) - 1) < 1e-4
    check_kept(database, acknowledged)
    check_strengths(database)


def scripts(folder: Path) -> list[str]:
    """The five models, as arguments of `chaku serve`."""
    arguments = []
    for name, strength in STRENGTHS.items():
        script = folder / f"{name}.yaml"
        script.write_text(f"replies: [{{text: '{answer_of(strength)}'}}]\n")
        arguments.append(f"{name}=scripted:{script}")
    return arguments


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num", [5, pytest.param(50, marks=pytest.mark.prove)])
async def test_a_vote_that_was_acknowledged_outlives_a_kill_at_once(tmp_path: Path, num: int) -> None:
    acknowledged: dict[str, str] = {}
    models = scripts(tmp_path)[:2]
    away = "203.0.113.77"
    for number in range(num):
        with serving(tmp_path, *models, "--trusted-proxy", "127.0.0.1") as server:
            async with tab(server.url) as me:
                me.http.headers.update({"X-Forwarded-For": away})
                battle, token, answers = await play(me)
                choice = decide(answers, random.Random(number))
                body = {"choice": choice, "token": token}
                status, _, _ = await me.raw("POST", f"/api/arena/battles/{battle}/vote", body)
                server.process.send_signal(signal.SIGKILL)
                assert status == 200
                acknowledged[battle] = choice
            server.process.wait(PATIENCE_S)
    check_kept(tmp_path / "chaku.db", acknowledged)
    for file in tmp_path.glob("chaku.db*"):
        content = file.read_bytes()
        assert b"127.0.0.1" not in content and away.encode() not in content


@pytest.mark.prove
@pytest.mark.timeout(3600)
async def test_two_hundred_voters_lose_no_vote_while_the_gateway_is_killed_twice(
    tmp_path: Path, record_property: Any
) -> None:
    num_voters, num_each, kills = 200, 11, (700, 1400)
    tokens = voters(tmp_path / "chaku.db", num_voters)
    acknowledged: dict[str, str] = {}
    serving_now: asyncio.Future[ChakuServer] = asyncio.get_running_loop().create_future()
    at_once = asyncio.Semaphore(8)
    num_broken = 0

    async def run_voter(number: int, token: str) -> None:
        nonlocal num_broken
        chance = random.Random(number)
        me: Tab | None = None
        num_cast = 0
        try:
            while num_cast < num_each:
                server = await asyncio.shield(serving_now)
                try:
                    async with at_once:
                        if me is None:
                            me = Tab(server.url)
                            await me.call("POST", "/login", {"key": token})
                        me.url = server.url
                        await cast(me, chance, acknowledged)
                    num_cast += 1
                except (aiohttp.ClientError, OSError, AssertionError):  # the gateway is gone: another battle, later
                    num_broken += 1
                    await asyncio.sleep(0.05)
        finally:
            if me is not None:
                await me.close()

    @contextlib.asynccontextmanager
    async def gateway() -> AsyncIterator[ChakuServer]:
        manager = serving(tmp_path, *scripts(tmp_path), "--arena-battles-per-hour", "1000")
        server = await asyncio.to_thread(manager.__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    everybody = [asyncio.create_task(run_voter(number, token)) for number, token in enumerate(tokens)]
    for least in (*kills, None):
        async with gateway() as server:
            serving_now.set_result(server)
            while least is None or len(acknowledged) < least:
                done, _ = await asyncio.wait(everybody, timeout=0.02, return_when=asyncio.FIRST_EXCEPTION)
                if any(task.exception() for task in done) or len(done) == len(everybody):
                    break
            if least is not None:
                serving_now = asyncio.get_running_loop().create_future()
                server.process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(server.process.wait, PATIENCE_S)
            else:
                await asyncio.gather(*everybody)
    record_property("votes acknowledged and kept, broken off", f"{len(acknowledged)}, {num_broken}")
    assert len(acknowledged) >= 2000 and num_broken > 0
    check_kept(tmp_path / "chaku.db", acknowledged)
    check_strengths(tmp_path / "chaku.db")
