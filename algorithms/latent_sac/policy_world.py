"""The environment of a trial."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

from parsecrl.algorithms.latent_study import make_env


def make_world(world: dict[str, Any], layout_seed: int) -> gymnasium.Env:
    """Make the environment of a phase's group `world`.

    Args:
        world: As `make_env` takes it.
        layout_seed: Of the cells' vectors, where the group sets none.

    Returns:
        The environment.

    Raises:
        ValueError: Observations are no vectors, actions are not discrete, or the environment refuses an argument.
    """
    try:
        env = make_env(world, layout_seed)
    except TypeError as error:  # an argument that this environment does not have
        raise ValueError(f"{world['id']} cannot be made from these keys: {error}; leave out what it lacks") from error
    obs, action = env.observation_space, env.action_space
    if not isinstance(obs, spaces.Box) or len(obs.shape) != 1 or not isinstance(action, spaces.Discrete):
        raise ValueError(
            f"a world must have vectors for observations and discrete actions, got {obs} and {action} from "
            f"{world['id']!r}; choose another world.id"
        )
    return env
