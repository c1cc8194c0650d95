"""Ratings: against published numbers, independent implementations, simulation, and what must hold for any games."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import UsageError
from chaku.rank.fit import SCALE, Ratings, fit
from chaku.rank.games import Games
from rank.games_made import play


def wikipedia() -> Games:
    """The worked example of the article on the Bradley-Terry model: who beat whom, how often."""
    wins = {"A": {"B": 2, "D": 1}, "B": {"A": 3, "C": 5}, "C": {"B": 3, "D": 1}, "D": {"A": 4, "C": 3}}
    return Games.of((a, b, 1.0) for a, row in wins.items() for b, num in row.items() for _ in range(num))


def test_the_worked_example_of_wikipedia_comes_out() -> None:
    strengths = np.exp(fit(wikipedia()).strengths)
    assert strengths == pytest.approx([0.640, 1.043, 0.660, 2.270], abs=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_evalica_finds_the_same_ratings(seed: int) -> None:
    evalica = pytest.importorskip("evalica")
    games = play(np.random.default_rng(seed).normal(0, 1, 12), 2000, seed)
    winner = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    result = evalica.bradley_terry(
        [games.names[i] for i in games.first],
        [games.names[i] for i in games.second],
        [winner[score] for score in games.score],
        tolerance=1e-14,
        limit=100_000,
    )
    theirs = np.log(np.array([result.scores[name] for name in games.names]))
    assert fit(games).strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)


@pytest.mark.parametrize("num_clusters", [None, 60])
def test_statsmodels_finds_the_same_ratings_and_errors(num_clusters: int | None) -> None:
    api = pytest.importorskip("statsmodels.api")
    games = play(np.array([0.0, 0.5, 1.0, -0.7, 0.2]), 1500, 1, num_clusters=num_clusters, cluster_effect=0.5)
    design = np.zeros((len(games), 5))
    design[range(len(games)), games.first] += 1
    design[range(len(games)), games.second] -= 1
    kind: dict[str, object] = {"cov_type": "HC0"}
    if games.cluster is not None:
        kind = {"cov_type": "cluster", "cov_kwds": {"groups": games.cluster, "use_correction": False}}
    theirs = api.GLM(games.score, design[:, 1:], family=api.families.Binomial()).fit(tol=1e-14, **kind)
    ours = fit(games).anchored("m0")
    factor = 1.0 if num_clusters is None else num_clusters / (num_clusters - 1)
    assert ours.strengths[1:] == pytest.approx(theirs.params, abs=1e-6)
    assert ours.covariance[1:, 1:] == pytest.approx(theirs.cov_params() * factor, abs=1e-6)


@pytest.mark.parametrize(("num_clusters", "effect"), [(None, 0.0), (50, 1.0)])
def test_95_percent_intervals_hold_the_truth_95_times_in_100(num_clusters: int | None, effect: float) -> None:
    truth = np.array([0.6, 0.3, 0.0, -0.3, -0.6])
    inside, ranks, total = 0, 0, 400
    for seed in range(total):
        games = play(truth, 1000, seed, ties=0.0, num_clusters=num_clusters, cluster_effect=effect)
        ratings = fit(games)
        target = truth if not effect else truth * 0.73  # over all shifts: fitted to 2 million games of 200,000 clusters
        low, high = ratings.intervals()
        points = SCALE * (target - target.mean()) + 1000
        inside += int(((low <= points) & (points <= high)).sum())
        best, worst = ratings.rank_intervals()
        true_ranks = np.arange(1, 6)
        ranks += int(((best <= true_ranks) & (true_ranks <= worst)).sum())
    assert inside / (5 * total) == pytest.approx(0.95, abs=0.015)
    assert ranks / (5 * total) >= 0.95


GAMES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0])).filter(
        lambda game: game[0] != game[1]
    ),
    min_size=8,
    max_size=60,
)


def rated(rows: list[tuple[str, str, float]]) -> Ratings:
    return fit(Games.of(rows), prior=1.0)


@given(GAMES)
def test_turning_games_round_changes_nothing(rows: list[tuple[str, str, float]]) -> None:
    turned = rated([(b, a, 1 - score) for a, b, score in rows])
    assert turned.ratings == pytest.approx(rated(rows).ratings, abs=1e-6)
    assert turned.covariance == pytest.approx(rated(rows).covariance, abs=1e-8)


@given(GAMES, st.permutations("abcd"))
def test_names_mean_nothing(rows: list[tuple[str, str, float]], other: list[str]) -> None:
    new = dict(zip("abcd", other, strict=True))
    before, after = rated(rows), rated([(new[a], new[b], score) for a, b, score in rows])
    for place, name in enumerate(before.names):
        assert after.ratings[after.names.index(new[name])] == pytest.approx(before.ratings[place], abs=1e-6)


@given(GAMES)
def test_every_game_twice_gives_the_same_ratings_and_errors_smaller_by_the_root_of_two(
    rows: list[tuple[str, str, float]],
) -> None:
    try:
        ratings = fit(Games.of(rows))
    except UsageError:
        return
    twice = fit(Games.of(rows * 2))
    assert twice.ratings == pytest.approx(ratings.ratings, abs=1e-4)
    assert twice.errors == pytest.approx(ratings.errors / np.sqrt(2), rel=1e-4, abs=1e-6)


def test_ties_alone_make_all_equal() -> None:
    ratings = fit(Games.of([("a", "b", 0.5), ("b", "c", 0.5)]))
    assert ratings.ratings == pytest.approx([1000, 1000, 1000])


def test_grades_between_win_and_loss_count_as_their_mean() -> None:
    graded = fit(Games.of([("a", "b", 0.25), ("a", "b", 0.75), ("a", "b", 0.8)]))
    assert graded.strengths[0] - graded.strengths[1] == pytest.approx(np.log(0.6 / 0.4))


def test_players_whom_the_games_don_t_connect_are_named() -> None:
    rows = [("a", "b", 1.0), ("b", "a", 1.0), ("c", "a", 0.0), ("d", "e", 0.5)]
    with pytest.raises(UsageError, match="c lost every game") as caught:
        fit(Games.of(rows))
    assert "d, e never played the others" in caught.value.message and "prior" in str(caught.value.fix)
    ratings = fit(Games.of(rows), prior=1.0)
    assert "prior of 1 tied games" in ratings.method
    assert ratings.ratings[2] == min(ratings.ratings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no games"), ([("a", "a", 1.0)], "against itself"), ([("a", "b", 1.5)], "between 0 and 1")],
)
def test_what_is_no_game_is_refused(rows: list[tuple[str, str, float]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(Games.of(rows))


def test_an_anchor_has_its_rating_and_no_error() -> None:
    ratings = fit(wikipedia()).anchored("A", 800)
    assert (ratings.ratings[0], ratings.errors[0]) == pytest.approx((800, 0))
    free = fit(wikipedia())
    assert ratings.ratings[3] - ratings.ratings[1] == pytest.approx(free.ratings[3] - free.ratings[1])
    with pytest.raises(UsageError, match="X has no rating"):
        free.anchored("X")


def test_win_probabilities_follow_from_the_ratings() -> None:
    chance, error = fit(play(np.array([0.0, 1.0]), 4000, 0, ties=0)).win_probabilities()
    assert chance[1, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    assert error[1, 0] == pytest.approx(np.sqrt(chance[1, 0] * chance[0, 1] / 4000), rel=1e-3)
    assert np.diag(chance) == pytest.approx(0.5) and np.diag(error) == pytest.approx(0)
