"""Playing one episode, step by step, and all that came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class PlayedEpisode(NamedTuple):
    """An episode of T steps; action t is taken after observation t, and reward t comes with observation t + 1."""

    observations: list[np.ndarray]  # T + 1
    actions: list[Any]  # T numbers or vectors
    rewards: list[float]  # T
    infos: list[dict[str, Any]]  # T + 1
    terminated: bool
    truncated: bool


def play_episode(
    env: gymnasium.Env, seed: int, act: Callable[[np.ndarray, Mapping[str, Any]], Any], max_steps: int | None = None
) -> PlayedEpisode:
    """Play until the world ends the episode, which every world does behind the border.

    Args:
        env: Of parsecrl/World-v0 or parsecrl/Control-v0.
        seed: Of its reset.
        act: An action for an observation and the info that came with it, asked once a step.
        max_steps: Stop after so many steps; the episode is then neither terminated nor truncated.

    Returns:
        The episode.
    """
    obs, info = env.reset(seed=seed)
    played = PlayedEpisode([obs], [], [], [info], False, False)
    while len(played.actions) != max_steps:
        action = act(obs, info)
        obs, reward, terminated, truncated, info = env.step(action)
        played.observations.append(obs)
        played.actions.append(action)
        played.rewards.append(float(reward))
        played.infos.append(info)
        if terminated or truncated:
            return played._replace(terminated=terminated, truncated=truncated)
    return played
