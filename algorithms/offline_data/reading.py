"""A dataset of either format, checked against the task that is to be learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsecrl.algorithms.offline_data.episodes import Dataset, DatasetError

EPISODES = ("start", "goal", "episode_steps", "max_episode_steps")  # of a world: its episodes, not its transitions


def read_dataset(path: str | Path) -> Dataset:
    """Read a dataset of episodes.

    Args:
        path: A folder of Minari's, or a file or folder of Parquet in RLlib's columns.

    Returns:
        The episodes.

    Raises:
        DatasetError: There is none, or it is damaged.
    """
    from parsecrl.algorithms.offline_data.minari_files import METADATA, read_minari
    from parsecrl.algorithms.offline_data.parquet_files import read_parquet

    place = Path(path).expanduser()
    for folder in (place, place / "data"):  # `minari download` puts the files into data
        if (folder / METADATA).is_file():
            return read_minari(folder)
    if place.is_file() or (place.is_dir() and any(place.rglob("*.parquet"))):
        return read_parquet(place)
    raise DatasetError(
        f"{place} holds no dataset; give a folder of Minari's with {METADATA}, or Parquet in RLlib's columns"
    )


def check_sizes(path: Any, dataset: Dataset, obs_size: int, action_size: int) -> None:
    """See that a dataset is of a task's sizes.

    Args:
        path: Of the dataset, for the message.
        dataset: As it was read.
        obs_size: O of the task.
        action_size: A of the task.

    Raises:
        DatasetError: An episode has others.
    """
    for episode in dataset.episodes:
        if episode.action.ndim == 1:
            raise DatasetError(
                f"offline_data {path} holds discrete actions, the task has continuous ones; give a dataset of the task "
                f"in env.id"
            )
        got = episode.obs.shape[1], episode.action.shape[1]
        if got != (obs_size, action_size):
            raise DatasetError(
                f"offline_data {path} holds {got[0]} observations and {got[1]} actions, the task has {obs_size} and "
                f"{action_size}; give a dataset of the task in env.id"
            )


def check_task(path: Any, dataset: Dataset, env: Mapping[str, Any]) -> None:
    """See that a dataset is of a task, as far as it says: the id and the action repeat.

    Args:
        path: Of the dataset, for the message.
        dataset: As it was read.
        env: The task: id, action_repeat.

    Raises:
        DatasetError: It is of another; a foreign dataset has a decision for each simulator step.
    """
    stated = dataset.about.get("env", {})
    own, found = ({"id": e.get("id"), "action_repeat": e.get("action_repeat", 1)} for e in (env, stated))
    if not stated:
        found["id"] = own["id"]
    if own != found:
        raise DatasetError(
            f"offline_data {path} is of env {found}, the phase's task is {own}; give a dataset of the same task"
        )


def check_world(path: Any, dataset: Dataset, world: Mapping[str, Any], obs_size: int, num_actions: int) -> None:
    """See that a dataset is of a world with discrete actions, as far as it says.

    Args:
        path: Of the dataset, for the message.
        dataset: As it was read.
        world: The group that the phase states.
        obs_size: O of the world.
        num_actions: Of the world.

    Raises:
        DatasetError: It is of another world, or its episodes are of other sizes.
    """
    own, found = _layout(world), _layout(dataset.about.get("world"))
    differing = [key for key in found if found[key] != own.get(key)] if found else []
    if differing:
        wanted = ", ".join(f"world.{key}: {found[key]}" for key in differing)
        raise DatasetError(f"offline_data {path} is of another world than the phase's; set {wanted}")
    for episode in dataset.episodes:
        if episode.action.ndim != 1 or episode.obs.shape[1] != obs_size or episode.action.max() >= num_actions:
            discrete = episode.action.ndim == 1
            actions = f"discrete actions up to {episode.action.max()}" if discrete else "continuous actions"
            raise DatasetError(
                f"offline_data {path} holds {episode.obs.shape[1]} observations and {actions}, the world has "
                f"{obs_size} and discrete ones up to {num_actions - 1}; give a dataset of the world in world.id"
            )


def check_lengths(path: Any, dataset: Dataset, length: int) -> None:
    """See that an episode of a dataset can hold a training slice.

    Args:
        path: Of the dataset, for the message.
        dataset: As it was read.
        length: Decisions of a slice.

    Raises:
        DatasetError: None is that long.
    """
    longest = max(len(episode.reward) for episode in dataset.episodes)
    if longest < length:
        raise DatasetError(
            f"offline_data {path} must have an episode of {length} decisions, as many as a slice, the longest has "
            f"{longest}; set slice_length lower, or give longer episodes"
        )


def _layout(world: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a world's transitions and observations depend on."""
    return {key: value for key, value in (world or {}).items() if key not in EPISODES}
