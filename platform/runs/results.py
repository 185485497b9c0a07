"""Keys of a trial's results, and how far these say that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RESULT_KEYS = {
    "env_steps": "env_steps",
    "num_updates": "num_updates",
    "ppo_steps": "ppo_steps",
    "episodes": "episodes",
    "tasks": "tasks",
    "time_s": "time_total_s",
}


def fraction_done(conditions: Mapping[str, float], result: Mapping[str, Any]) -> float:
    """How much of the first stop condition to be met is behind the trial; 1 or more at its end."""
    return max(finite(result.get(RESULT_KEYS[key]), 0.0) / goal for key, goal in conditions.items())


def finite(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default
