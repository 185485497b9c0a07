"""Statistics: closed forms, laws, and an interval that covers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsecrl.algorithms.reporting.statistics import interquartile_mean, summarize

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
    assert min(returns) - slack <= s.iqm_low <= s.iqm_high <= max(returns) + slack
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
