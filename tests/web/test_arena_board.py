"""The leaderboard, a cell's battles and the operator's view, over HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chaku.arena.example_votes import example_votes
from chaku.arena.standings import standings
from chaku.comparison import Comparison
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.web import arena_board
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import Refused, tab
from web.arena_play import begun, played, shown, voted

FIRST = datetime(2026, 1, 20, tzinfo=UTC)


def seed(database: Path) -> None:
    """Votes and verdicts of three models in two months, and example votes."""
    chance = random.Random(3)
    games = []
    for number in range(240):
        model_a, model_b = chance.sample(["ant", "bee", "cat"], 2)
        voter = f"v{number % 24}"
        games.append(
            Comparison(
                source="human" if number % 4 else "judge",
                model_a=model_a,
                model_b=model_b,
                outcome="a" if voter == "v7" or chance.random() < (0.7 if model_a < model_b else 0.3) else "b",
                voter=voter if number % 4 else None,
                judge=None if number % 4 else "judge-1",
                cluster=voter,
                category=chance.choice(["code", "other"]),
                language=chance.choice(["en", "de"]),
                created=(FIRST + timedelta(hours=3 * number)).isoformat(),
            )
        )
    with open_store(f"sqlite:///{database}") as store:
        ComparisonBook(store).add(games)
        ComparisonBook(store).add(example_votes("steady", "pirate"), is_example=True)


async def test_many_readers_of_a_board_rate_its_votes_once_and_a_costly_one_waits(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(database)
    rated = []

    def slowly(*arguments: Any) -> Any:
        rated.append(arguments)
        time.sleep(1.1)
        return standings(*arguments)

    monkeypatch.setattr(arena_board, "standings", slowly)
    more = Comparison(source="human", model_a="ant", model_b="bee", outcome="a", voter="new", cluster="new")
    async with page_gateway(database, scripted(name="ant"), scripted(name="bee")) as g, tab(g) as me:
        boards = await asyncio.gather(*(me.call("GET", "/leaderboard") for _ in range(10)))
        assert len(rated) == 1 and all(board == boards[0] for board in boards)
        with open_store(f"sqlite:///{database}") as store:
            ComparisonBook(store).add([more])
        assert await me.call("GET", "/leaderboard") == boards[0] and len(rated) == 1
        async with asyncio.timeout(PATIENCE_S):
            while (board := await me.call("GET", "/leaderboard")) == boards[0]:
                await asyncio.sleep(0.2)
        assert board["counts"]["source"] == {"human": 181, "judge": 60} and len(rated) == 2


async def test_the_board_shows_what_the_filters_let_through(database: Path) -> None:
    seed(database)
    async with page_gateway(database, scripted(name="ant"), scripted(name="bee")) as g, tab(g) as me:
        board = await me.call("GET", "/leaderboard")
        assert [row["model"] for row in board["rows"]] == ["ant", "bee", "cat"] and board["has_examples"]
        assert board["counts"]["source"] == {"human": 180, "judge": 60}
        assert [month["month"] for month in board["months"]] == ["2026-01", "2026-02"]
        assert [(pair["model_a"], pair["probability"]) for pair in board["sampling"]] == [("ant", 1.0)]
        for query, num in (
            ("sources=human", 180),
            ("sources=human,judge", 240),
            ("category=code", board["counts"]["category"]["code"]),
            ("language=de", board["counts"]["language"]["de"]),
            ("from=2026-02-01", board["months"][1]["votes"]),
            ("to=2026-02-01", board["months"][0]["votes"]),
            ("examples=1", 360),
        ):
            found = await me.call("GET", f"/leaderboard?{query}")
            assert sum(map(sum, found["matrix"]["games"])) == 2 * num, query
        assert (await me.call("GET", "/leaderboard?language=fr"))["error"]
        for query in ("sources=cat", "from=yesterday"):
            with pytest.raises(Refused, match="400"):
                await me.call("GET", f"/leaderboard?{query}")


async def test_an_operator_finds_an_outlier_and_excludes_it_in_the_open(database: Path) -> None:
    seed(database)
    async with page_gateway(database, scripted(name="ant"), scripted(name="bee")) as g, tab(g) as me:
        first, *_ = (await me.call("GET", "/arena/operator"))["voters"]
        before = await me.call("GET", "/leaderboard")
        body: dict[str, Any] = {"kind": "voter", "id": first["id"], "reason": "always votes left"}
        await me.call("POST", "/arena/operator/exclusions", body)
        after = await me.call("GET", "/leaderboard")
        assert after["excluded"] == {"voter excluded: always votes left": first["votes"]}
        assert after["counts"]["vote"]["counted"] == before["counts"]["vote"]["counted"] - first["votes"]
        assert [(one["id"], one["reason"]) for one in after["exclusions"]] == [(first["id"], "always votes left")]
        await me.call("POST", "/arena/operator/exclusions", {**body, "lifted": True})
        again = await me.call("GET", "/leaderboard")
        assert again["excluded"] == {} and again["rows"] == before["rows"] and again["exclusions"][0]["lifted_at"]
        for kind in ("voter", "battle"):
            with pytest.raises(Refused, match="404"):
                await me.call("POST", "/arena/operator/exclusions", {"kind": kind, "id": "nobody", "reason": "test"})


async def test_a_cell_opens_its_battles_with_texts_by_consent(database: Path) -> None:
    async with page_gateway(database, scripted(name="ant"), scripted(name="bee")) as g, tab(g) as me:
        for publish in (True, False):
            battle = await begun(me, publish=publish)
            await played(me, battle, "Tell me")
            await voted(me, battle)
        open_battle = await begun(me)
        await played(me, open_battle)
        found = await me.call("GET", "/arena/battles?model_a=bee&model_b=ant")
        assert found["total"] == 2 and [row["prompts"] for row in found["battles"]] == [None, ["Tell me"]]
        assert found["battles"][1]["answers_a"] == ["You said: Tell me"]
        operator = await me.call("GET", "/arena/operator")
        assert operator["battles"] == {"voted": 2, "votable": 1} and operator["flagged"] == []
        assert operator["sampling"][0]["battles"] == 2
        assert (await shown(me, open_battle))["token"]
