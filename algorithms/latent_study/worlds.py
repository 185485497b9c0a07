"""A grid world as tables, and the environment that a spec's `env` group names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NAMESPACE = "parsecrl.envs:"  # imports the package that registers them
TUPLES = ("start", "goal")  # cells, which a spec has as lists


@dataclass(frozen=True)
class World:
    """What is true of a world; S cells, O observation, A actions, E pairs of neighbours."""

    observations: np.ndarray  # [S, O] float32, what is seen in each cell
    transitions: np.ndarray  # [S, A] int64, the cell that an action leads to
    distances: np.ndarray  # [S, S] int64, moves of a shortest path, -1 where there is none
    cells: np.ndarray  # [S, 2] row and column
    neighbours: np.ndarray  # [E, 2] int64, each pair of cells one move apart once


def make_env(env: dict[str, Any], layout_seed: int) -> gymnasium.Env:
    """The environment of a spec's group: its `id`, and the other keys as arguments.

    layout_seed: of the cells' vectors, where the group sets none. Raises ValueError as the environment does, and on an
    id that Gymnasium does not know.
    """
    id, options = env_arguments(env, layout_seed)
    try:
        return gymnasium.make(id, disable_env_checker=True, **options)
    except gymnasium.error.Error as error:
        raise ValueError(
            f"env.id must be an environment that Gymnasium knows, got {env['id']!r} ({error}); "
            f"choose parsecrl/Gridworld-v0, parsecrl/FourRooms-v0 or parsecrl/Torus-v0"
        ) from error


def env_arguments(env: dict[str, Any], layout_seed: int) -> tuple[str, dict[str, Any]]:
    """(id, keyword arguments) for gymnasium.make, or RLlib's `environment`."""
    options = {key: tuple(value) if key in TUPLES and value is not None else value for key, value in env.items()}
    id = str(options.pop("id"))
    if id.startswith("parsecrl/"):
        id = NAMESPACE + id
        if options.get("layout_seed") is None:
            options["layout_seed"] = layout_seed
    return id, options


def space_sizes(env: gymnasium.Env) -> tuple[int, int]:
    """(length of an observation, number of actions) of a world with vectors for observations and discrete actions."""
    obs, action = env.observation_space, env.action_space
    assert isinstance(obs, spaces.Box)
    assert isinstance(action, spaces.Discrete)
    return obs.shape[0], int(action.n)


def world_of(env: gymnasium.Env) -> World | None:
    """The tables of an environment of cells; None of any other one."""
    world: Any = env.unwrapped
    topology = getattr(world, "topology", None)
    if topology is None:
        return None
    return World(world.observations, topology.transitions, topology.distances, topology.cells, topology.neighbours)


def check_slices(env: gymnasium.Env, length: int, key: str) -> None:
    """Raises ValueError where no episode of the environment can hold a training slice of `length` transitions.

    key: of the setting that asks for them. Of an environment that tells no limit nothing can be said.
    """
    spec = env.unwrapped.spec
    steps = getattr(env.unwrapped, "episode_steps", None) or (spec.max_episode_steps if spec else None)
    if steps is not None and length > steps:
        raise ValueError(
            f"{key} must be at most the length of an episode, {steps}, got {length}; lower it, or lengthen the episodes"
        )
