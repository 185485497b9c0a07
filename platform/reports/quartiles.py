"""Order statistics of evaluation returns. Axis: n episodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Returns of one controller, in the environment's units; low and high bound the interquartile mean (95 %)."""

    episodes: int
    median: float
    q25: float
    q75: float
    iqm: float
    iqm_low: float
    iqm_high: float


def interquartile_mean(x: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: n // 4 values are cut off each end. [..., n] -> [...]."""
    n = x.shape[-1]
    cut = n // 4
    return np.sort(x, axis=-1)[..., cut : n - cut].mean(-1)


def summarize(returns: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Statistics | None:
    """Quartiles and the interquartile mean with its 95 % percentile-bootstrap interval; None for no episodes.

    The draws are seeded, so that the same episodes always print the same interval.
    """
    x = np.asarray(returns, dtype=float)
    x = x[np.isfinite(x)]
    if x.size == 0:
        return None
    draws = x[np.random.default_rng(seed).integers(0, x.size, (resamples, x.size))]  # [resamples, n]
    q25, median, q75 = np.percentile(x, [25, 50, 75])
    low, high = np.percentile(interquartile_mean(draws), [2.5, 97.5])
    return Statistics(
        int(x.size), float(median), float(q25), float(q75), float(interquartile_mean(x)), float(low), float(high)
    )
