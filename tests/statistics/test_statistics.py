"""The statistics agree with statsmodels and scipy to 1e-6."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from chaku.errors import UsageError
from chaku.statistics.adjusted import length_adjusted, prediction_powered
from chaku.statistics.agreement import binomial_p, kappa, share
from chaku.statistics.distributions import beta_cdf, t_power, t_reach, t_two_sided
from chaku.statistics.means import detectable_effect, holm, mean, needed_clusters, permutation_p

FEW = settings(max_examples=20)
CLOSE = {"rel": 1e-6, "abs": 1e-9}


@FEW
@given(st.floats(0, 1), st.floats(0.3, 400), st.floats(0.3, 400))
def test_incomplete_beta_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(scipy.stats.beta.cdf(x, a, b), **CLOSE)


@FEW
@given(st.floats(-30, 30), st.integers(1, 3000))
def test_students_t_is_scipys(t: float, df: int) -> None:
    assert t_two_sided(t, df) == pytest.approx(2 * scipy.stats.t.sf(abs(t), df), **CLOSE)
    assert t_reach(0.95, df) == pytest.approx(scipy.stats.t.ppf(0.975, df), **CLOSE)


@FEW
@given(st.floats(0, 8), st.integers(1, 2000))
def test_power_is_that_of_the_noncentral_t(noncentrality: float, df: int) -> None:
    limit = scipy.stats.t.ppf(0.975, df)
    wanted = 1 - (scipy.stats.nct.cdf(limit, df, noncentrality) - scipy.stats.nct.cdf(-limit, df, noncentrality))
    assert t_power(noncentrality, df) == pytest.approx(wanted, rel=1e-6, abs=1e-7)


@FEW
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_clustered_mean_is_that_of_statsmodels(num_clusters: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(num_clusters), random.integers(0, num_clusters, 20)])
    values = random.normal(0.3, 1, len(clusters)) + random.normal(0, 1, num_clusters)[clusters]
    ours = mean(values, clusters.tolist())
    theirs = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    assert ours.error == pytest.approx(theirs.bse[0], **CLOSE)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.conf_int()[0]), **CLOSE)
    assert ours.p == pytest.approx(theirs.pvalues[0], **CLOSE)


def test_mean_without_clusters_is_the_paired_t_test() -> None:
    values = np.random.default_rng(5).normal(0.4, 1, 30)
    ours, theirs = mean(values), scipy.stats.ttest_1samp(values, 0)
    assert ours.p == pytest.approx(theirs.pvalue, **CLOSE)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()), **CLOSE)


@FEW
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]), min_size=2, max_size=9))
def test_small_permutation_test_is_exact(values: list[float]) -> None:
    wanted = scipy.stats.permutation_test(
        (np.array(values),), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert permutation_p(values) == pytest.approx(wanted.pvalue, **CLOSE)


def test_large_permutation_test_is_near_the_t_test_and_repeatable() -> None:
    values = np.random.default_rng(2).normal(0.25, 1, 80)
    assert permutation_p(values) == permutation_p(values) == pytest.approx(mean(values).p, abs=0.01)


def test_signs_flip_by_whole_clusters() -> None:
    assert permutation_p([1.0] * 20, [1, 2] * 10) == 0.5  # two clusters: of four sign patterns two are as large


@FEW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], **CLOSE)


@FEW
@given(st.integers(1, 400).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num))))
def test_shares_and_binomial_test_are_exact(case: tuple[int, int]) -> None:
    count, num = case
    ours = share(count, num)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(count, num, method="beta"), **CLOSE)
    assert binomial_p(count, num) == pytest.approx(scipy.stats.binomtest(count, num).pvalue, **CLOSE)


@FEW
@given(st.integers(0, 10_000))
def test_kappa_is_that_of_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(0, 3, 40)
    second = np.where(random.random(40) < 0.6, first, random.integers(0, 3, 40))
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    theirs = cohens_kappa(table)
    ours = kappa(first.tolist(), second.tolist())
    assert ours.value == pytest.approx(theirs.kappa, **CLOSE)
    assert ours.error == pytest.approx(theirs.std_kappa * math.sqrt(40 / 39), **CLOSE)


def test_kappa_of_one_single_label_is_not_a_number() -> None:
    assert math.isnan(kappa(["a", "a"], ["a", "a"]).value)


@pytest.mark.parametrize("num", [3, 10, 80])
def test_detectable_effect_and_needed_size_are_those_of_statsmodels(num: int) -> None:
    spread = 1.95
    effect = detectable_effect(spread / math.sqrt(num), num)
    assert effect / spread == pytest.approx(TTestPower().solve_power(nobs=num, alpha=0.05, power=0.8), rel=1e-6)
    wanted = TTestPower().solve_power(effect_size=0.3 / spread, alpha=0.05, power=0.8)
    assert needed_clusters(0.3, spread / math.sqrt(num), num) == math.ceil(wanted)


def test_no_number_of_questions_detects_an_effect_of_nothing() -> None:
    assert needed_clusters(0.0, 1.0, 10) is None
    assert needed_clusters(0.5, 0.0, 10) == 2


@FEW
@given(st.integers(0, 10_000))
def test_length_adjusted_win_rate_is_the_regression_of_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    clusters = np.arange(200) // 2
    lengths = random.normal(100, 300, 200)
    wins = (random.random(200) < 1 / (1 + np.exp(-0.3 - 0.8 * np.tanh(lengths / 300)))).astype(float)
    ours = length_adjusted(wins, lengths, clusters.tolist())
    design = sm.add_constant(np.tanh(lengths / lengths.std()))
    theirs = sm.GLM(wins, design, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, tol=1e-12
    )
    rate = 1 / (1 + math.exp(-theirs.params[0]))
    assert ours.value == pytest.approx(rate, **CLOSE)
    assert ours.error == pytest.approx(theirs.bse[0] * rate * (1 - rate), **CLOSE)


def test_a_judge_that_only_counts_words_wins_half_at_equal_lengths() -> None:
    random = np.random.default_rng(1)
    lengths = random.normal(300, 300, 2000)  # one side is longer nearly everywhere, and wins by that alone
    wins = random.random(2000) < 1 / (1 + np.exp(-2 * np.tanh(lengths / lengths.std())))
    assert wins.mean() > 0.65
    assert length_adjusted(wins, lengths).value == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("lengths", [[5.0] * 6, [10.0, 10.0, 10.0, -10.0, -10.0, -10.0]])
def test_length_that_decides_everything_is_refused(lengths: list[float]) -> None:
    with pytest.raises(UsageError, match=r"adjust|adjusted"):
        length_adjusted([1, 1, 1, 0, 0, 0], lengths)


def test_a_useless_judge_does_not_move_the_human_mean() -> None:
    random = np.random.default_rng(3)
    human, noise = random.normal(size=50), np.full(50, 0.5)
    assert prediction_powered(human, noise, np.full(500, 0.5)).value == pytest.approx(human.mean())


def test_a_perfect_judge_gives_the_mean_over_all_items() -> None:
    random = np.random.default_rng(3)
    human, elsewhere = random.normal(size=50), random.normal(size=5000)
    ours = prediction_powered(human, human, elsewhere)
    assert ours.error < mean(human).error / 5
    assert ours.value == pytest.approx(np.concatenate([human, elsewhere]).mean(), abs=0.01)


def _covers(draw, truth: float, rounds: int = 2000) -> float:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(7)
    found = [draw(random) for _ in range(rounds)]
    return sum(each.low <= truth <= each.high for each in found) / rounds


def test_clustered_intervals_cover_the_truth_19_times_of_20() -> None:
    clusters = np.repeat(np.arange(20), 4)

    def draw(random: np.random.Generator):  # type: ignore[no-untyped-def]
        return mean(1 + random.normal(size=20)[clusters] + random.normal(0, 0.5, 80), clusters.tolist())

    assert 0.935 <= _covers(draw, 1.0) <= 0.965


def test_intervals_that_ignore_the_clusters_would_not() -> None:
    clusters = np.repeat(np.arange(20), 4)

    def draw(random: np.random.Generator):  # type: ignore[no-untyped-def]
        return mean(1 + random.normal(size=20)[clusters] + random.normal(0, 0.5, 80))

    assert _covers(draw, 1.0) < 0.8


def test_corrected_intervals_of_a_biased_judge_cover_the_human_mean() -> None:
    def draw(random: np.random.Generator):  # type: ignore[no-untyped-def]
        human = random.normal(0.2, 1, 430)
        judge = 0.7 * human + 0.6 + random.normal(0, 0.5, 430)
        return prediction_powered(human[:30], judge[:30], judge[30:])

    assert 0.93 <= _covers(draw, 0.2) <= 0.97


def test_permutation_test_raises_no_more_false_alarms_than_it_says() -> None:
    random = np.random.default_rng(11)
    alarms = [permutation_p(random.standard_t(3, 10)) < 0.05 for _ in range(600)]
    assert 0.025 <= np.mean(alarms) <= 0.075


def test_two_rows_of_one_question_give_no_error() -> None:
    with pytest.raises(UsageError, match="at least two independent"):
        mean([1.0, 2.0], ["q1", "q1"])
