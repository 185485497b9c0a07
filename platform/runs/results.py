"""Keys of a trial's results, and how far these say that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from parsecrl.algorithms.registry.algorithm import StopCondition

FAILURE = "failure"  # result key: why a trial that came to its end did so in vain
PARAMETERS = "parameters"  # result key: searched values by dotted key, where they change while a trial runs
ERROR_FILE = "error.txt"  # of Tune's, in a trial's folder: the traceback of every failure, the last one below


def fraction_done(
    conditions: Mapping[str, float], known: Mapping[str, StopCondition], result: Mapping[str, Any]
) -> float:
    """How much of the first stop condition to be met is behind a trial.

    Args:
        conditions: Goals by the key of `stop`, one or more.
        known: Where results count each.
        result: Of the trial.

    Returns:
        0 or more; 1 or more at the trial's end.
    """
    return max(finite(result.get(known[key].result_key), 0.0) / goal for key, goal in conditions.items())


def finite(value: Any, default: float) -> float:
    """A value as a number.

    Args:
        value: Of a result.
        default: In place of what is no number, or not finite.

    Returns:
        The number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default
