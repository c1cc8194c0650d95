"""What is asked of ratings beyond the numbers: bootstrap, style, turned votes, online Elo."""

from __future__ import annotations

import numpy as np
import pytest

from chaku.errors import UsageError
from chaku.rank.bootstrap import bootstrap
from chaku.rank.elo import online_elo
from chaku.rank.fit import fit
from chaku.rank.flips import flips_to_lose_the_lead
from chaku.rank.games import Games
from chaku.rank.style import differences, fit_with_style
from rank.games_made import play

TRUTH = np.array([1.0, 0.4, 0.0, -0.5, -0.9])


@pytest.mark.parametrize("num_clusters", [None, 80])
def test_bootstrap_and_sandwich_agree(num_clusters: int | None) -> None:
    games = play(TRUTH, 2000, 3, num_clusters=num_clusters, cluster_effect=0.8)
    rounds = bootstrap(games, 400)
    ratings = fit(games)
    assert rounds.ratings.std(axis=0) == pytest.approx(ratings.errors, rel=0.15)
    assert rounds.ratings.mean(axis=0) == pytest.approx(ratings.ratings, abs=8)
    low, high = rounds.intervals()
    assert ((low < ratings.ratings) & (ratings.ratings < high)).all() and rounds.num_redrawn == 0


def test_a_bootstrap_with_one_seed_is_the_same_twice() -> None:
    games = play(TRUTH, 500, 1)
    assert (bootstrap(games, 10).ratings == bootstrap(games, 10).ratings).all()
    assert (bootstrap(games, 10).ratings != bootstrap(games, 10, seed=1).ratings).any()


def test_draws_without_ratings_are_counted_and_too_many_refused() -> None:
    rows = [("a", "b", 1.0)] * 30 + [("a", "b", 0.0)] * 3
    assert 0 < bootstrap(Games.of(rows), 100).num_redrawn < 20
    with pytest.raises(UsageError, match="too few games"):
        bootstrap(Games.of([*rows[:30], ("b", "a", 1.0), *[("b", "c", 1.0)] * 30, ("c", "b", 1.0)]), 100)


def test_the_effect_of_length_is_found_and_taken_out() -> None:
    random = np.random.default_rng(0)
    plain = play(TRUTH, 20_000, 0, ties=0)
    tokens = random.integers(50, 800, (len(plain), 2)).astype(float)
    length = differences(tokens[:, :1], tokens[:, 1:])
    scaled = length[:, 0] / length[:, 0].std()
    gap = TRUTH[plain.first] - TRUTH[plain.second] + 0.7 * scaled
    score = (random.random(len(plain)) < 1 / (1 + np.exp(-gap))).astype(float)
    games = Games(plain.names, plain.first, plain.second, score)
    styled = fit_with_style(games, length, ["tokens"])
    assert styled.effects[0] == pytest.approx(0.7, abs=4 * styled.errors[0])
    assert styled.ratings.strengths == pytest.approx(TRUTH - TRUTH.mean(), abs=0.1)
    assert "style control (tokens)" in styled.ratings.method
    turned = Games(plain.names, plain.second, plain.first, 1 - score)
    assert fit_with_style(turned, -length, ["tokens"]).effects == pytest.approx(styled.effects)


def test_statsmodels_finds_the_same_effect_and_errors() -> None:
    api = pytest.importorskip("statsmodels.api")
    games = play(TRUTH, 1500, 5, num_clusters=40, cluster_effect=0.4)
    extra = np.random.default_rng(1).normal(size=(len(games), 2))
    styled = fit_with_style(games, extra, ["x", "y"])
    design = np.zeros((len(games), 5))
    design[range(len(games)), games.first] += 1
    design[range(len(games)), games.second] -= 1
    design = np.hstack([design[:, 1:], extra / extra.std(axis=0)])
    theirs = api.GLM(games.score, design, family=api.families.Binomial()).fit(
        tol=1e-14, cov_type="cluster", cov_kwds={"groups": games.cluster, "use_correction": False}
    )
    assert styled.effects == pytest.approx(theirs.params[4:], abs=1e-6)
    assert styled.errors == pytest.approx(theirs.bse[4:] * np.sqrt(40 / 39), abs=1e-6)


def test_a_feature_that_never_differs_or_decides_all_is_refused() -> None:
    games = play(TRUTH, 300, 0, ties=0)
    with pytest.raises(UsageError, match="bold is the same in all games"):
        fit_with_style(games, np.zeros((300, 1)), ["bold"])
    with pytest.raises(UsageError, match="a style feature decides every game"):
        fit_with_style(games, (2 * games.score - 1)[:, None], ["oracle"])


@pytest.mark.parametrize("seed", range(5))
def test_the_turned_votes_change_the_lead_and_fewer_of_the_kind_don_t(seed: int) -> None:
    games = play(np.array([0.3, 0.25, 0.0, -0.2]), 400, seed)
    ratings = fit(games)
    flips = flips_to_lose_the_lead(games, ratings)
    assert flips is not None and flips.leader == games.names[int(np.argmax(ratings.strengths))]
    gap = ratings.ratings.max() - ratings.ratings[games.names.index(flips.rival)]
    assert 1 <= flips.num_games < 200 and (flips.num_games > 1 or gap < 15)


def test_two_players_need_half_the_lead_in_wins_turned() -> None:
    games = Games.of([("a", "b", 1.0)] * 30 + [("a", "b", 0.0)] * 20)
    flips = flips_to_lose_the_lead(games, fit(games))
    assert flips is not None and (flips.num_games, flips.rival) == (6, "b")


def test_online_elo_moves_by_k_at_most_and_keeps_the_sum() -> None:
    ratings = online_elo(Games.of([("a", "b", 1.0), ("b", "c", 0.5), ("c", "a", 0.0)]), k=4)
    assert sum(ratings.values()) == pytest.approx(3000)
    assert ratings["a"] > 1000 > ratings["b"] > 995
