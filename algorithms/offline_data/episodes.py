"""Episodes of a dataset as plain arrays.

Axes: T decisions of an episode, O observation, A action.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

SETTINGS = "parsecrl"  # the project's key in a dataset's metadata


class DatasetError(ValueError):
    """A dataset that cannot be used: one sentence that names its file and the remedy."""


class OfflineEpisode(NamedTuple):
    """T decisions; action[t] was taken after obs[t], brought reward[t] and led to obs[t + 1]."""

    obs: NDArray[np.float32]  # [T + 1, O] environment units
    action: NDArray[Any]  # [T, A] float32 in [-1, 1], or [T] int64 from 0 of a discrete task
    reward: NDArray[np.float32]  # [T] environment units, summed over the action repeat
    terminated: bool  # by the task; else cut, by a limit or by who stored the episode
    truncated: bool  # by a limit of its steps
    seed: int | None = None  # of the task's reset, where it is known


class Dataset(NamedTuple):
    """Episodes, and what their dataset says of itself."""

    episodes: list[OfflineEpisode]
    about: dict[str, Any]  # under the key `SETTINGS`: env {id, action_repeat, ...}, or world; empty of foreign datasets

    @property
    def num_decisions(self) -> int:
        """Sum of T."""
        return sum(len(episode.reward) for episode in self.episodes)


def checked_episode(episode: OfflineEpisode, where: str) -> OfflineEpisode:
    """See that an episode's arrays fit together, are finite, and its actions lie in [-1, 1] or count from 0.

    Args:
        episode: As it was read.
        where: The file and the episode, for the message.

    Returns:
        The episode.

    Raises:
        DatasetError: It cannot be learned from.
    """
    T = len(episode.reward)
    axes = 1 if episode.action.dtype.kind == "i" else 2
    shapes = [episode.obs.ndim, episode.action.ndim, len(episode.obs), len(episode.action)]
    if T < 1 or shapes != [2, axes, T + 1, T]:
        raise DatasetError(
            f"{where} must have T + 1 observations, T actions and T rewards, T at least 1, got {len(episode.obs)}, "
            f"{len(episode.action)} and {T}; remove the episode"
        )
    for name, value in (("observations", episode.obs), ("actions", episode.action), ("rewards", episode.reward)):
        if not np.isfinite(value).all():
            raise DatasetError(f"{where} has {name} that are not finite in float32; remove the episode")
    if axes == 1 and episode.action.min(initial=0) < 0:
        raise DatasetError(f"{where} has an action below 0; number discrete actions from 0")
    if axes == 2 and np.abs(episode.action).max(initial=0.0) > 1.0:
        raise DatasetError(
            f"{where} has an action outside [-1, 1]; give a dataset whose action space states its bounds, or scale the "
            f"actions"
        )
    return episode


def checked_about(about: Any, where: Any) -> dict[str, Any]:
    """See that what a dataset says of itself can be read.

    Args:
        about: Under the key `SETTINGS`.
        where: The dataset, for the message.

    Returns:
        The same.

    Raises:
        DatasetError: It, its env or its world is no table.
    """
    groups = [about.get(key) or {} for key in ("env", "world")] if isinstance(about, dict) else [about]
    if not all(isinstance(group, dict) for group in groups):
        raise DatasetError(f"{where} must have tables under {SETTINGS} in its metadata, got {about!r}; export it again")
    return about


def vectors_of(space: spaces.Space, values: Any, count: int) -> NDArray[np.float32]:
    """Observations as vectors, in the order of `gymnasium.spaces.flatten`.

    Args:
        space: Of the observations; Box, Discrete, MultiBinary, and Dict and Tuple of these.
        values: `count` of them, stacked as Minari stacks them: in each leaf of the space.
        count: How many.

    Returns:
        [count, O].

    Raises:
        DatasetError: The space is of another kind.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return np.concatenate([vectors_of(part, values[key], count) for key, part in parts], 1)
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(values, np.int64).reshape(count) - int(space.start)]
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        with np.errstate(over="ignore"):  # what is not finite is told by `checked_episode`
            return np.asarray(values).reshape(count, -1).astype(np.float32)
    raise DatasetError(f"observations must be of Box, Discrete, MultiBinary, or a Dict or Tuple of these, got {space}")


def taken_actions(space: spaces.Space, values: Any, count: int) -> NDArray[Any]:
    """Actions of a Discrete space, numbered from 0, or of a bounded Box, brought to [-1, 1].

    Args:
        space: Of the actions.
        values: [count, ...].
        count: How many.

    Returns:
        [count] int64, or [count, A] float32.

    Raises:
        DatasetError: The space is neither.
    """
    if isinstance(space, spaces.Discrete):
        return np.asarray(values, np.int64).reshape(count) - int(space.start)
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        raise DatasetError(f"actions must be of a bounded Box or Discrete, got {space}; give another dataset")
    taken = np.asarray(values, np.float64).reshape(count, -1)
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    if (low == -1).all() and (high == 1).all():  # to the bit
        return taken.astype(np.float32)
    return np.clip((2 * taken - high - low) / (high - low), -1, 1).astype(np.float32)
