"""Tasks that go wrong in the third step of an episode, around tasks that do not."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tests.envs.case_worlds import Chain


class Faulty(gymnasium.Wrapper):
    """A task that fails in an episode.

    Args:
        base: Id of the task.
        fault: raises, nan_observation, nan_reward or exits.
        episode: In which one, from 1.
    """

    def __init__(self, base: str, fault: str, episode: int = 2):
        super().__init__(gymnasium.make(base, disable_env_checker=True))
        self.fault, self.episode, self.episodes, self.time = fault, episode, 0, 0

    def reset(self, **options: Any) -> Any:
        self.episodes, self.time = self.episodes + 1, 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.time += 1
        if self.time == 3 and self.episodes == self.episode:
            if self.fault == "raises":
                raise RuntimeError("simulator lost its licence")
            if self.fault == "exits":
                raise SystemExit(3)
            if self.fault == "nan_observation":
                obs = np.full_like(obs, np.nan)
            if self.fault == "nan_reward":
                reward = float("nan")
        return obs, reward, terminated, truncated, info


class Pictures(Chain):
    """Chain as pictures; an action moves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def step(self, action: int) -> Any:
        return super().step(1)

    def _obs(self) -> np.ndarray:
        return np.full((8, 8, 3), 10 * self.cell, np.uint8)


def make_faulty(base: str, fault: str, episode: int = 2) -> Faulty:
    """`Faulty`: Gymnasium takes no wrapper for an entry point."""
    return Faulty(base, fault, episode)


gymnasium.register("Faulty-v0", entry_point=make_faulty)
gymnasium.register("Pictures-v0", entry_point=Pictures)
