"""Votes of the Compare screen: kept with the names, checked, and never rated."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.engines.scripted import Reply
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store
from chaku.web.side_by_side import REASON, REASON_BLIND
from gateways import page_gateway, scripted
from tabs import Refused, Tab, tab

NAMES = ("zebrafish-7b", "quokka-3b", "axolotl-1b")


async def answer_of(me: Tab, model: str) -> dict[str, str]:
    chat = await me.chat(model=model)
    _, answer = await me.ask(chat, "Hello", model=model)
    return {"chat": chat, "message": answer["id"]}


async def test_a_vote_keeps_a_game_for_each_pair_it_decides_and_none_is_rated(database: Path) -> None:
    engines = [scripted(Reply(text=f"{name[0]} says: {{prompt}}"), name=name) for name in NAMES]
    async with page_gateway(database, *engines) as g, tab(g) as me:
        answers = [await answer_of(me, name) for name in NAMES]
        best = {"answers": answers, "choice": "best", "best": 1, "is_blind": False}
        assert await me.call("POST", "/compare/votes", best) == {"kept": 2}
        tie = {"answers": answers[:2], "choice": "tie", "is_blind": True}
        assert await me.call("POST", "/compare/votes", tie) == {"kept": 1}
        board = await me.call("GET", "/leaderboard")
        assert (board["rows"], board["excluded"]) == ([], {REASON: 2, REASON_BLIND: 1})
        same = {**tie, "answers": [answers[0], answers[0]]}
        wrong = [same, {**best, "best": 3}, {**best, "best": None}, {**tie, "best": 0}, {**tie, "answers": answers[:1]}]
        for body in wrong:
            with pytest.raises(Refused) as refused:
                await me.call("POST", "/compare/votes", body)
            assert refused.value.status == 400, body
    with open_store(f"sqlite:///{database}") as store:
        games = ComparisonBook(store).games()
    found = {(game.model_a, game.model_b, game.outcome, game.counted) for game in games}
    first, second, third = NAMES
    assert found == {(first, second, "b", False), (second, third, "a", False), (first, second, "tie", False)}
    assert {(game.voter, game.consent, game.turn) for game in games} == {("local", True, 1)}


async def test_another_vote_about_the_same_answers_replaces_the_first_and_can_be_taken_back(database: Path) -> None:
    engines = [scripted(Reply(text=f"{name[0]} says: {{prompt}}"), name=name) for name in NAMES]

    def kept() -> set[tuple[str, str, str]]:
        with open_store(f"sqlite:///{database}") as store:
            return {(game.model_a, game.model_b, str(game.outcome)) for game in ComparisonBook(store).games()}

    async with page_gateway(database, *engines) as g, tab(g) as me:
        answers = [await answer_of(me, name) for name in NAMES]
        others = [await answer_of(me, name) for name in NAMES[:2]]
        vote = {"answers": answers, "choice": "best", "best": 0, "is_blind": False}
        first, second, third = NAMES
        for _ in range(2):
            await me.call("POST", "/compare/votes", vote)
            assert kept() == {(first, second, "a"), (first, third, "a")}
        await me.call("POST", "/compare/votes", {**vote, "answers": answers[::-1], "is_blind": True})
        assert kept() == {(third, second, "a"), (third, first, "a")}
        await me.call("POST", "/compare/votes", {"answers": others, "choice": "tie", "is_blind": False})
        assert kept() == {(third, second, "a"), (third, first, "a"), (first, second, "tie")}
        none = {"answers": answers, "choice": "none", "is_blind": False}
        assert await me.call("POST", "/compare/votes", none) == {"kept": 0}
        assert kept() == {(first, second, "tie")}
