"""Statistics: closed forms, laws, and an interval that covers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsecrl.algorithms.reporting.statistics import interquartile_mean, paired_difference, summarize, summarize_seeds

RETURNS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


def test_closed_forms():
    s = summarize([7, 1, 3, 100, 5, 2, 4, 6])  # 1 2 | 3 4 5 6 | 7 100
    assert (s.episodes, s.median, s.q25, s.q75, s.iqm) == (8, 4.5, 2.75, 6.25, 4.5)
    assert interquartile_mean(np.array([9.0, 0.0, 1.0])) == pytest.approx(10 / 3)  # a quarter of three, rounded down
    assert interquartile_mean(np.array([[4.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 8.0]])).tolist() == [1.5, 0.0]


def test_equal_returns_have_no_spread():
    assert summarize([5.0] * 6)[1:] == (5.0,) * 6
    assert summarize([5.0])[1:] == (5.0,) * 6


@settings(deadline=None, max_examples=30)
@given(RETURNS, st.randoms())
def test_order_is_kept_and_the_order_of_episodes_does_not_matter(returns, random):
    s = summarize(returns, resamples=200)
    slack = 1e-9 * (1 + max(map(abs, returns)))
    assert min(returns) - slack <= s.q25 <= s.median <= s.q75 <= max(returns) + slack
    assert min(returns) - slack <= s.iqm_low <= s.iqm_high + slack <= max(returns) + 2 * slack
    shuffled = list(returns)
    random.shuffle(shuffled)
    t = summarize(shuffled, resamples=200)
    assert (t.median, t.q25, t.q75) == (s.median, s.q25, s.q75)
    assert math.isclose(t.iqm, s.iqm, abs_tol=slack)


@settings(deadline=None, max_examples=30)
@given(RETURNS, st.floats(0.1, 10), st.floats(-100, 100))
def test_units_do_not_matter(returns, scale, shift):
    s, t = summarize(returns, resamples=100), summarize([scale * r + shift for r in returns], resamples=100)
    np.testing.assert_allclose(t[1:], [scale * x + shift for x in s[1:]], atol=1e-6)


def test_interval_is_seeded_and_narrows_with_level():
    returns = np.random.default_rng(0).normal(size=30)
    assert summarize(returns, seed=1) == summarize(returns, seed=1) != summarize(returns, seed=2)
    wide, narrow = summarize(returns, level=0.95), summarize(returns, level=0.5)
    assert wide.iqm_low < narrow.iqm_low < wide.iqm < narrow.iqm_high < wide.iqm_high


def test_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [summarize(rng.normal(size=40), resamples=400) for _ in range(300)]  # true interquartile mean: 0
    assert 0.89 <= np.mean([s.iqm_low <= 0 <= s.iqm_high for s in intervals]) <= 0.99


@pytest.mark.parametrize(
    ("returns", "options", "word"),
    [([], {}, "shape"), ([1, math.nan], {}, "nan"), ([[1.0]], {}, "shape"), ([1.0], {"level": 1.0}, "level")],
)
def test_bad_input(returns, options, word):
    with pytest.raises(ValueError, match=word):
        summarize(returns, **options)


def test_one_seed_is_summarized_as_its_episodes():
    returns = np.random.default_rng(0).normal(size=20)
    assert summarize_seeds([returns]) == summarize(returns)


def test_the_interval_over_seeds_contains_that_of_training_again():
    """Seeds that differ far more than their episodes: episodes alone would tell a far too narrow interval."""
    rng = np.random.default_rng(0)
    means = np.array([-3.0, 0.0, 1.0, 2.0, 5.0])
    runs = [mean + 0.1 * rng.standard_normal(20) for mean in means]
    s, pooled = summarize_seeds(runs), summarize(np.concatenate(runs))
    assert s[:5] == pooled[:5]  # the same episodes: median, quartiles, interquartile mean
    drawn = [np.sort(means[rng.integers(5, size=5)]) for _ in range(4000)]
    low, high = np.quantile([interquartile_mean(np.repeat(x, 20)) for x in drawn], [0.025, 0.975])
    assert s.iqm_low == pytest.approx(low, abs=0.25)
    assert s.iqm_high == pytest.approx(high, abs=0.25)
    assert s.iqm_high - s.iqm_low > 2 * (pooled.iqm_high - pooled.iqm_low)


def test_the_interval_over_seeds_covers():
    """Ten seeds: 0.90 of 200 at 0.95, measured; fewer seeds cover less, as the docstring says."""
    rng, held = np.random.default_rng(1), 0
    for trial in range(60):
        runs = [rng.normal(mean, 1.0, 10) for mean in rng.normal(size=10)]
        s = summarize_seeds(runs, resamples=200, seed=trial)
        held += s.iqm_low <= 0 <= s.iqm_high
    assert held / 60 > 0.8


def test_paired_differences_are_students():
    """Values of scipy.stats.ttest_rel(x, y) on the seeds' means (1, 4, 2) and (0, 1, 2)."""
    x = {0: np.array([0.0, 2.0]), 1: np.array([3.0, 5.0]), 2: np.array([2.0, 2.0]), 9: np.array([7.0, 7.0])}
    y = {0: np.array([0.0, 0.0]), 1: np.array([1.0, 1.0]), 2: np.array([2.0, 2.0]), 5: np.array([8.0, 8.0])}
    d = paired_difference(x, y)
    assert (d.seeds, d.verdict) == (3, "not told apart")
    assert (d.mean, d.low, d.high) == pytest.approx((4 / 3, -2.461250, 5.127917), abs=1e-5)
    assert d.won == pytest.approx((0.75 + 1.0 + 0.5) / 3)


def test_verdicts_on_paired_differences():
    better = {seed: np.array([10.0 + seed, 12.0]) for seed in range(4)}
    worse = {seed: np.array([1.0, 2.0 + 0.1 * seed]) for seed in range(4)}
    assert paired_difference(better, worse).verdict == "better"
    assert paired_difference(worse, better).verdict == "worse"
    assert paired_difference({0: better[0]}, worse).verdict == "one seed"
    assert paired_difference({7: better[0]}, worse) is None
    assert paired_difference({0: np.array([1.0, 3.0, 5.0])}, {0: np.array([2.0, 3.0])}).won == pytest.approx(3.5 / 6)
