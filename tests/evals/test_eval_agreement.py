"""Agreement of judges and people: MT-bench's published numbers, and cases by hand."""

from __future__ import annotations

import pytest

from chaku.arena.battle_files import read_battles
from chaku.comparison import Comparison
from chaku.evals.agreement import among_people, with_people
from shared_data import shared


def game(
    outcome: str, *, voter: str | None = None, pair: tuple[str, str] = ("x", "y"), prompt: str = "q1"
) -> Comparison:
    source = "human" if voter else "judge"
    return Comparison(
        source=source, model_a=pair[0], model_b=pair[1], outcome=outcome, voter=voter, prompt_id=prompt, judge=None
    )


@pytest.mark.parametrize(
    ("turn", "judge", "judge_decided", "people", "people_decided"),
    [
        (1, (886, 1343), (727, 859), (454, 721), (388, 479)),
        (2, (871, 1325), (731, 864), (471, 707), (388, 474)),
    ],
)
def test_mt_benchs_published_agreements_come_out(
    turn: int,
    judge: tuple[int, int],
    judge_decided: tuple[int, int],
    people: tuple[int, int],
    people_decided: tuple[int, int],
) -> None:
    folder = shared("mt_bench")
    votes = [game for game in read_battles([folder / "human.jsonl"]).comparisons if game.turn == turn]
    experts = [game for game in votes if (game.voter or "").startswith("expert")]
    verdicts = [game for game in read_battles([folder / "gpt4_pair.jsonl"]).comparisons if game.turn == turn]
    found = [
        with_people(verdicts, experts),
        with_people(verdicts, experts, ties=False),
        among_people(experts),
        among_people(experts, ties=False),
    ]
    assert [(one.agreed, one.compared) for one in found] == [judge, judge_decided, people, people_decided]
    assert [round(100 * one.share) for one in found] == ([66, 85, 63, 81] if turn == 1 else [66, 85, 67, 82])
    for one in found:
        assert one.rate is not None
        assert one.kappa is not None
        assert one.rate.low < one.share < one.rate.high
        assert one.kappa.value < one.share
        assert 70 <= one.rate.num_clusters <= 80


def test_vicuna_80s_human_labels_name_the_winner() -> None:
    games = read_battles([shared("vicuna80") / "human/gpt35_vicuna-13b.jsonl"]).comparisons
    assert len(games) == 80
    assert {game.outcome for game in games} == {"a", "b", "tie"}


def test_a_judge_that_contradicts_itself_says_tie() -> None:
    both_orders = [game("a"), game("a", pair=("y", "x"))]  # first both times: once for x, once for y
    assert with_people(both_orders, [game("tie", voter="p1")]).agreed == 1
    assert with_people(both_orders, [game("tie", voter="p1")], ties=False).compared == 0


def test_a_person_who_votes_twice_counts_once() -> None:
    votes = [game("a", voter="p1"), game("b", voter="p1"), game("a", voter="p2")]
    found = among_people(votes)
    assert (found.agreed, found.compared) == (1, 1)


def test_sides_mean_nothing() -> None:
    assert with_people([game("a")], [game("b", voter="p1", pair=("y", "x"))]).agreed == 1


def test_without_common_cases_nothing_is_told() -> None:
    found = with_people([game("a")], [game("a", voter="p1", prompt="q2")])
    assert (found.compared, found.rate, found.kappa) == (0, None, None)
