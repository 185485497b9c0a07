"""Playing the episodes of a random policy in a world of pixels: one at a time, by their numbers.

The data depend on the settings alone: an episode's world and its actions are seeded by (seed, split, number), whoever
plays it and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from parsecrl.algorithms.latent_study.worlds import make_pixel_world
from parsecrl.algorithms.offline_data.picture_files import Episode
from parsecrl.algorithms.training.episodes import play_episode
from parsecrl.algorithms.training.seeding import derive_seed

ATTEMPTS = 100  # to draw a held-out episode that lasts
TRIES = 3  # of a worker whose process, or whose world's process, ends


class Task(NamedTuple):
    """An episode to collect: at most `steps` steps, or exactly as many if it must last."""

    split: str
    number: int
    steps: int
    must_last: bool


class Collected(NamedTuple):
    """An episode that was collected."""

    episode: Episode
    attempts: int  # episodes that were played for it; more than 1 only where it must last


class NoEpisodeLasts(ValueError):
    """The settings ask for longer episodes than the world has."""


class Collector:
    """One worker: a world, and episodes from it by their number.

    Args:
        env_config: As `make_pixel_world` takes it: id of the world, and its arguments.
        seed: Of all episodes.
    """

    def __init__(self, env_config: Mapping[str, Any], seed: int):
        self.env_config, self.seed = env_config, seed
        self.env = make_pixel_world(env_config)

    def collect(self, task: Task) -> Collected:
        """Play the task's episode. Raises NoEpisodeLasts where none lasts that must."""
        for attempt in range(ATTEMPTS):
            episode = self._play_safely(task, attempt)
            if not task.must_last or (len(episode.actions) == task.steps and not episode.terminated):
                return Collected(episode, attempt + 1)
        raise NoEpisodeLasts(
            f"held-out sequences need episodes that last, got none of {task.steps} steps in {ATTEMPTS} of "
            f"{self.env_config['id']}; lower data.held_out_steps or world.frame_skip"
        )

    def close(self) -> None:
        """Close the world."""
        self.env.close()

    def _play_safely(self, task: Task, attempt: int) -> Episode:
        for left in reversed(range(TRIES)):
            try:
                return self._play(task, attempt)
            except RuntimeError as error:
                if not left or not getattr(error, "is_passing", False):  # as where the world's own process ended
                    raise
                self.env.close()
                self.env = make_pixel_world(self.env_config)
        raise AssertionError

    def _play(self, task: Task, attempt: int) -> Episode:
        index = (task.number, attempt)
        seed = derive_seed(self.seed, f"{task.split} world", *index)
        rng = np.random.default_rng(derive_seed(self.seed, f"{task.split} actions", *index))
        actions = rng.integers(self.env.action_space.n, size=task.steps)  # type: ignore[attr-defined]  # discrete
        coming = iter(actions)
        played = play_episode(self.env, seed, lambda obs, info: next(coming), task.steps)
        rewards = np.array(played.rewards)
        return Episode(np.stack(played.observations), actions[: len(rewards)], rewards, played.terminated, seed)
