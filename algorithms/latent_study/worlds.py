"""The world that a spec's group names, and a grid world as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NAMESPACE = "parsecrl.envs:"  # imports the package that registers them
WORLD = f"{NAMESPACE}parsecrl/World-v0"


@dataclass(frozen=True)
class World:
    """What is true of a world; S cells, O observation, A actions, E pairs of neighbours."""

    observations: np.ndarray  # [S, O] float32, what is seen in each cell
    transitions: np.ndarray  # [S, A] int64, the cell that an action leads to
    distances: np.ndarray  # [S, S] int64, moves of a shortest path, -1 where there is none
    cells: np.ndarray  # [S, 2] row and column
    neighbours: np.ndarray  # [E, 2] int64, each pair of cells one move apart once
    wraps: bool  # whether it is a torus


def make_vector_world(group: Mapping[str, Any], layout_seed: int, continuous: bool = False) -> gymnasium.Env:
    """Make the world of a spec's group, one for latent dynamics.

    Args:
        group: Its `id`, `kwargs` and `max_episode_steps`; other keys are arguments too.
        layout_seed: Of the cells' vectors, where the group sets none.
        continuous: Whether actions may be vectors too.

    Returns:
        The world, with float32 vectors for observations, and actions from 0 or in [-1, 1].

    Raises:
        ValueError: It cannot be made, has pictures for observations, or actions that do not suit.
    """
    made = gymnasium.make(WORLD, **world_arguments(group, layout_seed, continuous))
    check_spaces(made.observation_space, made.action_space, continuous)
    return made


def check_spaces(obs: spaces.Space, action: spaces.Space, continuous: bool = False) -> None:
    """Check that a world is one for latent dynamics.

    Args:
        obs: Of observations.
        action: Of actions.
        continuous: Whether actions may be vectors too.

    Raises:
        ValueError: Observations are no vectors, or actions do not suit.
    """
    suits = isinstance(action, spaces.Discrete) or (
        continuous and isinstance(action, spaces.Box) and len(action.shape) == 1
    )
    if not isinstance(obs, spaces.Box) or len(obs.shape) != 1 or not suits:
        wanted = "actions that are discrete or vectors" if continuous else "discrete actions"
        raise ValueError(
            f"a world must have vectors for observations and {wanted}, got {obs} and {action}; choose another world.id"
        )


def make_pixel_world(group: Mapping[str, Any]) -> gymnasium.Env:
    """Make the world of a spec's group, one of pixels.

    Args:
        group: As in `make_vector_world`.

    Returns:
        The world, with square RGB pictures for observations and actions from 0.

    Raises:
        ValueError: It cannot be made, or has other observations or actions.
    """
    made = gymnasium.make(WORLD, **world_arguments(group))
    shape = made.observation_space.shape or ()
    if not (len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3):
        made.close()
        raise ValueError(
            f"a world of pixels has uint8 pictures [S, S, 3] and discrete actions, got {made.observation_space} "
            f"from {group['id']!r}; choose parsecrl/HealthGathering-v0 or parsecrl/GoalsMaze-v0"
        )
    return made


def world_arguments(
    group: Mapping[str, Any], layout_seed: int | None = None, continuous: bool = False
) -> dict[str, Any]:
    """Turn a spec's group into the arguments of `WORLD`, as gymnasium.make and RLlib's env_config take them.

    Args:
        group: As in `make_vector_world`.
        layout_seed: As in `make_vector_world`; None of worlds that have none.
        continuous: As in `make_vector_world`.

    Returns:
        The keyword arguments.
    """
    options = {key: value for key, value in group.items() if key not in {"id", "kwargs", "max_episode_steps"}}
    options |= group.get("kwargs") or {}
    id = str(group.get("id", ""))
    if id.startswith("parsecrl/"):
        id = NAMESPACE + id
        if layout_seed is not None and options.get("layout_seed") is None:
            options["layout_seed"] = layout_seed
    limit = group.get("max_episode_steps")
    made = {"env_id": id, "kwargs": options} | ({} if limit is None else {"env_max_episode_steps": limit})
    return made | ({"continuous": True} if continuous else {})


def action_size(action: spaces.Space) -> int:
    """The number of discrete actions, or the entries of one that is a vector.

    Args:
        action: Discrete, or a Box of one axis.

    Returns:
        A.
    """
    if isinstance(action, spaces.Discrete):
        return int(action.n)
    assert isinstance(action, spaces.Box)
    return action.shape[0]


def space_sizes(env: gymnasium.Env) -> tuple[int, int]:
    """Sizes of a world with vectors for observations.

    Args:
        env: The world.

    Returns:
        The length of an observation, and the number of actions or the length of one.
    """
    obs = env.observation_space
    assert isinstance(obs, spaces.Box)
    return obs.shape[0], action_size(env.action_space)


def world_of(env: gymnasium.Env) -> World | None:
    """The tables of a grid world.

    Args:
        env: Any environment.

    Returns:
        Its tables, or None of one that is no grid world.
    """
    world: Any = env.unwrapped
    topology: Any = getattr(world, "topology", None)
    if topology is None:
        return None
    t = topology
    return World(world.observations, t.transitions, t.distances, t.cells, t.neighbours, t.wraps)


def check_slices(env: gymnasium.Env, length: int, key: str) -> None:
    """Check that an episode can hold a training slice. Of an environment that tells no limit nothing can be said.

    Args:
        env: The environment.
        length: Transitions of a slice.
        key: Of the setting that asks for them, for the message.

    Raises:
        ValueError: No episode is that long.
    """
    limits = getattr(env.unwrapped, "episode_steps", None), env.get_wrapper_attr("max_episode_steps")
    steps = min((limit for limit in limits if limit is not None), default=length)
    if length > steps:
        raise ValueError(
            f"{key} must be at most the length of an episode, {steps}, got {length}; lower it, or lengthen the episodes"
        )
