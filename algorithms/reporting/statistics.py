"""Order statistics of episode returns, for summary.json and the tables; intervals of means over trials.

Axis: n episodes, or n trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Statistics(NamedTuple):
    """Returns of one controller, in the environment's units; the keys of a phase in summary.json."""

    episodes: int
    median: float
    q25: float  # lower quartile
    q75: float
    iqm: float  # interquartile mean
    iqm_low: float  # its bootstrap interval
    iqm_high: float


def interquartile_mean(x: np.ndarray, axis: int = -1) -> Any:
    """The mean of the middle half.

    Args:
        x: Values [..., n]. A quarter of n, rounded down, is cut off each end.
        axis: That of n.

    Returns:
        The means [...], in the units of x.
    """
    return stats.trim_mean(x, 0.25, axis=axis)


def summarize(
    returns: np.ndarray | Sequence[float], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Statistics:
    """Median, quartiles (linear interpolation), interquartile mean and its percentile-bootstrap interval.

    The interval speaks of episodes of this one controller, not of training it again.

    Args:
        returns: Of one or more episodes [n], finite.
        resamples: How often the bootstrap draws, >= 1.
        level: Of the interval, in (0, 1).
        seed: Of the draws: the same episodes always give the same interval.

    Returns:
        The statistics, in the units of the returns.

    Raises:
        ValueError: There are no episodes, a return is not finite, or the level is out of range.
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
    q25, median, q75 = map(float, np.percentile(x, [25, 50, 75]))
    iqm = float(interquartile_mean(x))
    low, high = _bootstrap((x,), interquartile_mean, resamples, level, seed) if x.size > 1 else (iqm, iqm)
    return Statistics(x.size, median, q25, q75, iqm, low, high)


def summarize_seeds(
    returns: Sequence[np.ndarray], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Statistics:
    """As `summarize`, of a controller that was trained with several seeds.

    The bootstrap draws seeds, and of each seed drawn, episodes (two levels): the interval speaks of training again.
    Of few seeds it is too narrow: of 5 seeds it holds the true mean in 87 % of cases at a level of 95 %, of 3 in 78 %.

    Args:
        returns: Of each seed's episodes [n], one or more seeds; finite.
        resamples: How often the bootstrap draws, >= 1.
        level: Of the interval, in (0, 1).
        seed: Of the draws.

    Returns:
        The statistics of all episodes together, in the units of the returns.

    Raises:
        ValueError: As `summarize`.
    """
    runs = [np.asarray(run, dtype=np.float64) for run in returns if len(run)]
    pooled = summarize(np.concatenate(runs) if runs else np.empty(0), resamples=resamples, level=level, seed=seed)
    if len(runs) < 2:
        return pooled
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = (runs[i] for i in rng.integers(len(runs), size=len(runs)))
        means.append(interquartile_mean(np.concatenate([run[rng.integers(len(run), size=len(run))] for run in drawn])))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return pooled._replace(iqm_low=float(low), iqm_high=float(high))


def mean_interval(x: np.ndarray | Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """A mean over trials and its interval, by Student's t.

    Args:
        x: A value a trial [n], n >= 1.
        level: Of the interval, in (0, 1).

    Returns:
        mean, low, high. A single trial tells no interval: low and high are NaN.
    """
    values = np.asarray(x, dtype=np.float64)
    mean, n = float(values.mean()), values.size
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * stats.sem(values)) if n > 1 else math.nan
    return mean, mean - half, mean + half


class Difference(NamedTuple):
    """One method against another, seed by seed."""

    seeds: int  # that both have
    mean: float  # over the seeds, of the difference of their mean returns
    low: float  # its interval by Student's t; NaN of one seed
    high: float
    won: float  # share of episodes with the higher return, a tie counting half; mean over the seeds
    won_low: float  # its interval by drawing seeds; NaN of one seed
    won_high: float
    verdict: str  # better, worse, not told apart; one seed


def paired_difference(
    x: Mapping[int, np.ndarray], y: Mapping[int, np.ndarray], *, level: float = 0.95
) -> Difference | None:
    """Compare two methods by the seeds that both were trained with.

    Episode i of a seed begins in the same state for both, so episodes pair too.

    Args:
        x: Seed -> returns of episodes [n] of one method.
        y: The same of the other.
        level: Of the interval, in (0, 1).

    Returns:
        The difference x - y, in the units of the returns; None where no seed has both.
    """
    seeds = [seed for seed in x if seed in y and len(x[seed]) and len(y[seed])]
    if not seeds:
        return None
    mean, low, high = mean_interval([float(np.mean(x[seed]) - np.mean(y[seed])) for seed in seeds], level)
    shares = np.array([_pairs_won(x[seed], y[seed]) for seed in seeds])
    won_low, won_high = (math.nan, math.nan) if len(seeds) == 1 else _share_interval(shares, level)
    verdict = "one seed" if len(seeds) == 1 else verdict_of(low, high)
    return Difference(len(seeds), mean, low, high, float(shares.mean()), won_low, won_high, verdict)


def verdict_of(low: float, high: float) -> str:
    """What the interval of a difference says.

    Args:
        low: Its lower end; NaN of a difference without one.
        high: Its upper end.

    Returns:
        better or worse where the interval leaves out 0; else not told apart.
    """
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def _share_interval(shares: np.ndarray, level: float) -> tuple[float, float]:
    """Of a mean of shares, a seed each: the bootstrap draws seeds."""
    if np.ptp(shares) == 0.0:
        return float(shares[0]), float(shares[0])
    return _bootstrap((shares,), np.mean, 2000, level, 0)


def _pairs_won(a: np.ndarray, b: np.ndarray) -> float:
    """Episode by episode; where the numbers of episodes differ, over all pairs."""
    if len(a) != len(b):
        return float(_share_won(np.asarray(a, float), np.asarray(b, float)))
    return float(np.mean((a > b) + 0.5 * (a == b)))


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
    """P(X > Y) of independent runs, a tie counting half (Agarwal et al. 2021, section 4.3).

    Args:
        x: Scores of one method, a run each [n], finite.
        y: Scores of the other [m], finite.
        resamples: How often the bootstrap draws runs, >= 1.
        level: Of the interval, in (0, 1).
        seed: Of the draws.

    Returns:
        The probability and its percentile-bootstrap interval; NaN for the interval where a side has one run.

    Raises:
        ValueError: A side has no runs, or a score is not finite.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or b.ndim != 1 or not a.size or not b.size or not np.isfinite(np.concatenate([a, b])).all():
        raise ValueError(
            f"a comparison needs two lists of finite scores, got shapes {a.shape} and {b.shape}; train both methods"
        )
    several = a.size > 1 and b.size > 1
    low, high = _bootstrap((a, b), _share_won, resamples, level, seed) if several else (math.nan, math.nan)
    return Improvement(float(_share_won(a, b)), low, high)


def _share_won(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    """Mann and Whitney's U over the number of pairs. Its p-value is not used: the asymptotic one costs the least."""
    return stats.mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic / (a.shape[axis] * b.shape[axis])


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Any, resamples: int, level: float, seed: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    found: Any = stats.bootstrap(
        samples, statistic, n_resamples=resamples, confidence_level=level, method="percentile", rng=rng
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
