"""How many candidates a search tries: one rule for solvers, reports and estimates. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kept_elites(kept_fraction: float, num_elites: int) -> int:
    """How many elites are kept.

    Args:
        kept_fraction: In [0, 1].
        num_elites: k.

    Returns:
        The nearest whole number.

    Raises:
        ValueError: The fraction is out of range.
    """
    if not 0.0 <= kept_fraction <= 1.0:
        raise ValueError(f"kept_fraction must lie in [0, 1], got {kept_fraction}; 0 keeps none")
    return round(kept_fraction * num_elites)


def num_drawn(num_samples: int, num_elites: int, decay: float, iteration: int) -> int:
    """How many candidates an iteration draws (iCEM, Pinneri et al. 2020, section 3.2).

    Args:
        num_samples: N, of the first.
        num_elites: k.
        decay: 1 or more.
        iteration: From 0.

    Returns:
        N / decay^iteration, rounded down, in [min(2 k, N), N].
    """
    return min(num_samples, max(int(num_samples / decay**iteration), 2 * num_elites))


def trajectories(controller: Mapping[str, Any]) -> int:
    """How many candidates a controller's model rolls out for a decision.

    Args:
        controller: The spec's group with all its keys: num_samples, num_elites, num_iterations, and those of iCEM.

    Returns:
        The number.

    Raises:
        KeyError: It has no search of the project's own.
    """
    sizes = controller["num_samples"], controller["num_elites"], controller.get("decay", 1.0)
    drawn = sum(num_drawn(*sizes, t) for t in range(controller["num_iterations"]))
    shifts = controller.get("kind") == "icem" and controller["warm_start"]
    shifted = kept_elites(controller["kept_fraction"], controller["num_elites"]) if shifts else 0
    return drawn + shifted + bool(controller.get("return_best"))
