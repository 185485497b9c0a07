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
    """Make the environment of a spec's group; see `env_arguments`.

    Raises ValueError where Gymnasium does not know the id, or the environment refuses an argument.
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
    """Raise ValueError unless observations are vectors and actions discrete, as latent dynamics need."""
    if not isinstance(obs, spaces.Box) or len(obs.shape) != 1 or not isinstance(action, spaces.Discrete):
        raise ValueError(
            f"a world must have vectors for observations and discrete actions, got {obs} and {action}; "
            f"choose another world.id"
        )


def env_arguments(env: dict[str, Any], layout_seed: int) -> tuple[str, dict[str, Any]]:
    """What gymnasium.make, or RLlib's `environment`, takes for a spec's group: `id`, and the other keys as arguments.

    layout_seed: of the cells' vectors, where the group sets none.
    """
    options = {key: tuple(value) if key in TUPLES and value is not None else value for key, value in env.items()}
    id = str(options.pop("id"))
    if id.startswith("parsecrl/"):
        id = NAMESPACE + id
        if options.get("layout_seed") is None:
            options["layout_seed"] = layout_seed
    return id, options


def space_sizes(env: gymnasium.Env) -> tuple[int, int]:
    """The length of an observation and the number of actions of a world with vectors and discrete actions."""
    obs, action = env.observation_space, env.action_space
    assert isinstance(obs, spaces.Box)
    assert isinstance(action, spaces.Discrete)
    return obs.shape[0], int(action.n)


def world_of(env: gymnasium.Env) -> World | None:
    """The tables of a grid world; None of any other environment."""
    world: Any = env.unwrapped
    topology = getattr(world, "topology", None)
    if topology is None:
        return None
    return World(world.observations, topology.transitions, topology.distances, topology.cells, topology.neighbours)


def check_slices(env: gymnasium.Env, length: int, key: str) -> None:
    """Raise ValueError where no episode can hold a slice of `length` transitions, which the setting `key` asks for.

    Of an environment that tells no limit nothing can be said.
    """
    spec = env.unwrapped.spec
    steps = getattr(env.unwrapped, "episode_steps", None) or (spec.max_episode_steps if spec else None)
    if steps is not None and length > steps:
        raise ValueError(
            f"{key} must be at most the length of an episode, {steps}, got {length}; lower it, or lengthen the episodes"
        )
