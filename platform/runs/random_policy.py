"""What the random policy returns in a phase's task: the measure of whether anything was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parsecrl.algorithms.reporting.diagnostics import RANDOM_EPISODES, RANDOM_MEAN, RANDOM_STD, Returns

CHECKS = "checks before the run"  # in the run's state: warnings, and random returns by phase


def random_policy(
    states: Mapping[str, Mapping[str, Any]], phase: str, acting: Sequence[str], evaluated: np.ndarray
) -> Returns | None:
    """The random policy's returns of the most episodes that are known.

    Args:
        states: All that the run folder records, by the name of a phase or of what was made of it.
        phase: Whose task it is.
        acting: The phases that act in the spec's one environment; the seed episodes of each tell of it.
        evaluated: The evaluation's returns of the random policy there, [n].

    Returns:
        Mean and spread; None where fewer than two episodes are known.
    """
    found = [_of(states.get(CHECKS, {}).get("random_returns", {}).get(phase, {}), ("mean", "std", "episodes"))]
    if phase in acting:
        found.append(Returns.of(evaluated))
        for name in acting:
            metrics = states.get(name, {}).get("checkpoint_metrics", {})
            found.append(_of(metrics, (RANDOM_MEAN, RANDOM_STD, RANDOM_EPISODES)))
    return max((returns for returns in found if returns is not None), key=lambda r: r.episodes, default=None)


def _of(numbers: Mapping[str, float], keys: Sequence[str]) -> Returns | None:
    known = [numbers[key] for key in keys if numbers.get(key) is not None]
    return Returns(*known) if len(known) == len(keys) and known[2] > 1 else None
