"""A dataset of either format, checked against the task that is to be learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsecrl.algorithms.offline_data.episodes import Dataset, DatasetError


def read_dataset(path: str | Path) -> Dataset:
    """Read a dataset of control episodes.

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
