"""The state of a task in MuJoCo, copied and put back: what a planner in the true simulator needs.

Copied are MuJoCo's integration state (time, qpos, qvel, act, the warm start of the solver, controls, mocap bodies), and
the plain attributes (numbers, flags, arrays) of every Python object around it, such as a step counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
MOST_ENTRIES = 10_000  # of an array: pictures and logs are no state


class SimulatorState(NamedTuple):
    """physics: MuJoCo's numbers, float64. attributes: those of each object around it, in the order of `_layers`."""

    physics: np.ndarray
    attributes: list[dict[str, Any]]


def state_of(env: gymnasium.Env, name: str) -> SimulatorState:
    """Copy the state of a task, dm_control's or Gymnasium's.

    Args:
        env: That runs in MuJoCo.
        name: Of the task, for the message.

    Returns:
        A copy that later steps leave alone.

    Raises:
        ValueError: The task does not run in MuJoCo.
    """
    import mujoco

    found = _mujoco(env)
    if found is None:
        raise ValueError(
            f"simulator_planner plans in copies of MuJoCo's state, and {name!r} has none; choose a task of dm_control "
            f"or of Gymnasium's MuJoCo, or take the phase out"
        )
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    physics = np.empty(mujoco.mj_stateSize(found[0], kind))
    mujoco.mj_getState(*found, physics, kind)
    return SimulatorState(physics, [_plain(layer) for layer in _layers(env)])


def restore_state(env: gymnasium.Env, state: SimulatorState) -> None:
    """Put a state back that `state_of` copied from the same task in the same episode.

    Args:
        env: The same.
        state: Stays as it is.
    """
    import mujoco

    model, data = _mujoco(env)  # type: ignore[misc]  # it had a state
    mujoco.mj_setState(model, data, state.physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_step1(
        model, data
    )  # positions and velocities of bodies; dm_control's next step begins with its second half
    for layer, attributes in zip(_layers(env), state.attributes, strict=True):
        for key, value in attributes.items():
            layer.__dict__[key] = value.copy() if isinstance(value, np.ndarray) else value


def _mujoco(env: gymnasium.Env) -> tuple[Any, Any] | None:
    """MuJoCo's model and data of a task."""
    import mujoco

    for layer in _layers(env):
        physics = getattr(layer, "physics", None)  # dm_control's environments
        model, data = (
            (getattr(physics, "model", None), getattr(physics, "data", None))
            if physics
            else (layer.__dict__.get("model"), layer.__dict__.get("data"))
        )
        model, data = getattr(model, "ptr", model), getattr(data, "ptr", data)
        if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData):
            return model, data
    return None


def _layers(env: Any) -> Iterator[Any]:
    """The environment, what it wraps down to the task, dm_control's environment in it, and the task of that."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen and hasattr(env, "__dict__"):
        seen.add(id(env))
        yield env
        env = next((env.__dict__[key] for key in ("env", "_env", "_task") if env.__dict__.get(key) is not None), None)


def _plain(layer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in vars(layer).items():
        if isinstance(value, PLAIN):
            found[key] = value
        elif isinstance(value, np.ndarray) and value.dtype != object and value.size <= MOST_ENTRIES:
            found[key] = value.copy()
    return found
