"""Order statistics of episode returns, for summary.json and the tables; intervals of means over trials.

Axis: n episodes, or n trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Returns of one controller, in the environment's units; the keys of a phase in summary.json."""

    episodes: int
    median: float
    q25: float  # lower quartile
    q75: float
    iqm: float  # interquartile mean
    iqm_low: float  # its bootstrap interval
    iqm_high: float


def interquartile_mean(x: np.ndarray) -> np.ndarray:
    """The mean of the middle half, [..., n] -> [...]: a quarter of n, rounded down, is cut off each end."""
    n = x.shape[-1]
    cut = n // 4
    return np.sort(x, axis=-1)[..., cut : n - cut].mean(-1)


def summarize(
    returns: np.ndarray | Sequence[float], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Statistics:
    """Median, quartiles (linear interpolation), interquartile mean and its percentile-bootstrap interval.

    The interval speaks of episodes of this one controller, not of training it again. The draws come from `seed`, so
    that the same episodes always give the same interval.
    Raises ValueError for no episodes, a return that is not finite, and a level outside (0, 1).
    """
    x = np.asarray(returns, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(
            f"statistics need a list of one episode return or more, got shape {x.shape}; evaluate some episodes"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"episode returns must be finite, got {x[~np.isfinite(x)][0]}; look for a diverging environment"
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}; 0.95 is usual")
    q25, median, q75 = np.percentile(x, [25, 50, 75])
    draws = x[np.random.default_rng(seed).integers(0, x.size, (resamples, x.size))]  # [resamples, n]
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(interquartile_mean(draws), [tail, 100.0 - tail])
    return Statistics(
        int(x.size), float(median), float(q25), float(q75), float(interquartile_mean(x)), float(low), float(high)
    )


def mean_interval(x: np.ndarray | Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) over n trials, by Student's t; a single trial tells no interval: low and high are NaN."""
    from scipy.stats import t as student

    values = np.asarray(x, dtype=np.float64)
    mean, n = float(values.mean()), values.size
    half = float(student.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return mean, mean - half, mean + half


class Improvement(NamedTuple):
    """How probable it is that a run of one method scores higher than a run of another."""

    probability: float
    low: float  # its bootstrap interval
    high: float


def probability_of_improvement(
    x: np.ndarray | Sequence[float],
    y: np.ndarray | Sequence[float],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Improvement:
    """P(X > Y) for scores x [n] and y [m] of independent runs, a tie counting half (Agarwal et al. 2021).

    The interval is the percentile bootstrap's over runs, drawn from `seed`; NaN where a side has one run.
    Raises ValueError for a side without runs and for scores that are not finite.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or b.ndim != 1 or not a.size or not b.size or not np.isfinite(np.concatenate([a, b])).all():
        raise ValueError(
            f"a comparison needs two lists of finite scores, got shapes {a.shape} and {b.shape}; train both methods"
        )
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)  # [n, m]
    probability = float(wins.mean())
    if a.size == 1 or b.size == 1:
        return Improvement(probability, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, a.size, (resamples, a.size)), rng.integers(0, b.size, (resamples, b.size))
    drawn = [wins[np.ix_(i, j)].mean() for i, j in zip(rows, columns, strict=True)]
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Improvement(probability, float(low), float(high))
