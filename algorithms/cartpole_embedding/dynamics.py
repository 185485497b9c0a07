"""The dynamics that a spec can name."""

from __future__ import annotations

from collections.abc import Callable

from parsecrl.algorithms.models.cartpole import cartpole
from parsecrl.algorithms.models.known_dynamics import KnownDynamics
from parsecrl.algorithms.models.pendulum import pendulum
from parsecrl.algorithms.registry.user_functions import own_function

DYNAMICS: dict[str, Callable[[], KnownDynamics]] = {"cartpole": cartpole, "pendulum": pendulum}


def make_dynamics(name: str) -> KnownDynamics:
    """Make the dynamics that a spec names.

    Args:
        name: Of `DYNAMICS`, or module:function for a function without arguments that returns `KnownDynamics`.

    Returns:
        The dynamics.

    Raises:
        ValueError: There is none of the name, or the function returns something else.
    """
    made = (DYNAMICS.get(name) or own_function(name, "dynamics", DYNAMICS))()
    if not isinstance(made, KnownDynamics):
        raise ValueError(f"dynamics {name!r} must return KnownDynamics, got {type(made).__name__}")
    return made
