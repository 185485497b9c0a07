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
    """Make the environment of a spec's group.

    Args:
        env: Its `id`, and the other keys as arguments.
        layout_seed: Of the cells' vectors, where the group sets none.

    Returns:
        The environment.

    Raises:
        ValueError: Gymnasium does not know the id, or the environment refuses an argument.
    """
    id, options = env_arguments(env, layout_seed)
    try:
        made = gymnasium.make(id, disable_env_checker=True, **options)
    except TypeError as error:
        raise ValueError(f"{env['id']!r} takes no such arguments ({error}); leave them out") from None
    except gymnasium.error.Error as error:
        raise ValueError(
            f"env.id must be an environment that Gymnasium knows, got {env['id']!r} ({error}); "
            f"choose parsecrl/Gridworld-v0, parsecrl/FourRooms-v0 or parsecrl/Torus-v0"
        ) from error
    check_spaces(made.observation_space, made.action_space)
    return made


def check_spaces(obs: spaces.Space, action: spaces.Space) -> None:
    """Check that a world is one for latent dynamics.

    Args:
        obs: Of observations.
        action: Of actions.

    Raises:
        ValueError: Observations are no vectors, or actions are not discrete.
    """
    if not isinstance(obs, spaces.Box) or len(obs.shape) != 1 or not isinstance(action, spaces.Discrete):
        raise ValueError(
            f"a world must have vectors for observations and discrete actions, got {obs} and {action}; "
            f"choose another world.id"
        )


def env_arguments(env: dict[str, Any], layout_seed: int) -> tuple[str, dict[str, Any]]:
    """Turn a spec's group into what gymnasium.make, or RLlib's `environment`, takes.

    Args:
        env: Its `id`, and the other keys as arguments.
        layout_seed: Of the cells' vectors, where the group sets none.

    Returns:
        The id and the keyword arguments.
    """
    options = {key: tuple(value) if key in TUPLES and value is not None else value for key, value in env.items()}
    id = str(options.pop("id"))
    if id.startswith("parsecrl/"):
        id = NAMESPACE + id
        if options.get("layout_seed") is None:
            options["layout_seed"] = layout_seed
    return id, options


def space_sizes(env: gymnasium.Env) -> tuple[int, int]:
    """Sizes of a world with vectors for observations and discrete actions.

    Args:
        env: The world.

    Returns:
        The length of an observation and the number of actions.
    """
    obs, action = env.observation_space, env.action_space
    assert isinstance(obs, spaces.Box)
    assert isinstance(action, spaces.Discrete)
    return obs.shape[0], int(action.n)


def world_of(env: gymnasium.Env) -> World | None:
    """The tables of a grid world.

    Args:
        env: Any environment.

    Returns:
        Its tables, or None of one that is no grid world.
    """
    world: Any = env.unwrapped
    topology = getattr(world, "topology", None)
    if topology is None:
        return None
    return World(world.observations, topology.transitions, topology.distances, topology.cells, topology.neighbours)


def check_slices(env: gymnasium.Env, length: int, key: str) -> None:
    """Check that an episode can hold a training slice. Of an environment that tells no limit nothing can be said.

    Args:
        env: The environment.
        length: Transitions of a slice.
        key: Of the setting that asks for them, for the message.

    Raises:
        ValueError: No episode is that long.
    """
    spec = env.unwrapped.spec
    steps = getattr(env.unwrapped, "episode_steps", None) or (spec.max_episode_steps if spec else None)
    if steps is not None and length > steps:
        raise ValueError(
            f"{key} must be at most the length of an episode, {steps}, got {length}; lower it, or lengthen the episodes"
        )
