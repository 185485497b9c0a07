"""Episodes in Minari's format, written and read by Minari itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from parsecrl.algorithms.offline_data.episodes import (
    SETTINGS,
    Dataset,
    DatasetError,
    OfflineEpisode,
    checked_about,
    checked_episode,
    taken_actions,
    vectors_of,
)

METADATA = "metadata.json"


def minari() -> Any:
    """The package. Raises DatasetError where it is not installed."""
    try:
        import minari
    except ImportError:
        raise DatasetError("Minari datasets need the package minari; pip install 'parsec-rl[data]'") from None
    return minari


def write_minari(folder: Path, name: str, episodes: Sequence[OfflineEpisode], about: Mapping[str, Any]) -> None:
    """Write a dataset that `minari.MinariDataset(folder)` opens: observations as vectors, one file an episode.

    Args:
        folder: New or empty.
        name: Of the dataset, such as parsecrl/cheetah-v0.
        episodes: One or more, of the same sizes.
        about: What the dataset says of itself, for JSON; `num_actions` where they are discrete.

    Raises:
        DatasetError: Minari is not installed.
    """
    version = minari().__version__
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    obs_size, actions = episodes[0].obs.shape[1], episodes[0].action
    bounded = spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    storage = MinariStorage.new(
        folder.absolute(),  # Minari joins a relative path to itself
        spaces.Box(-np.inf, np.inf, (obs_size,), np.float32),
        spaces.Discrete(about["num_actions"]) if actions.ndim == 1 else bounded,
        data_format="arrow",
    )
    description = {"dataset_id": name, "minari_version": version, "algorithm_name": str(about.get("algorithm"))}
    storage.update_metadata({**description, SETTINGS: dict(about)})
    storage.update_episodes(_buffer(EpisodeBuffer, number, episode) for number, episode in enumerate(episodes))
    returns = [{"episode_return": float(np.sum(episode.reward, dtype=np.float64))} for episode in episodes]
    storage.update_episode_metadata(returns)


def _buffer(kind: Any, number: int, episode: OfflineEpisode) -> Any:
    last = np.arange(len(episode.reward)) == len(episode.reward) - 1
    return kind(
        id=number,
        seed=episode.seed,
        observations=episode.obs,
        actions=episode.action,
        rewards=episode.reward,
        terminations=last & episode.terminated,
        truncations=last & episode.truncated,
    )


def read_minari(folder: Path) -> Dataset:
    """Read a dataset, of this project or of others.

    Args:
        folder: With metadata.json, as Minari lays it: `data` of a dataset that `minari download` fetched.

    Returns:
        The episodes as vectors, with actions in [-1, 1] or from 0.

    Raises:
        DatasetError: Minari is not installed, the dataset is damaged, or of a task without vectors.
    """
    package = minari()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = package.MinariDataset(folder)
            about = json.loads((folder / METADATA).read_text(encoding="utf-8")).get(SETTINGS, {})
    except Exception as error:  # Minari raises many kinds, assertions too
        raise DatasetError(f"{folder} is no dataset that Minari opens ({_reason(error)}); give another one") from None
    episodes = [_read(folder, dataset, int(number)) for number in dataset.episode_indices]
    if not episodes:
        raise DatasetError(f"{folder} holds no episode; give another dataset")
    return Dataset(episodes, checked_about(about, folder))


def _read(folder: Path, dataset: Any, number: int) -> OfflineEpisode:
    where = f"episode {number} of {folder}"
    try:
        (found,) = dataset.storage.get_episodes([number])
        (more,) = dataset.storage.get_episode_metadata([number])
        T = len(found["rewards"])
        obs = vectors_of(dataset.observation_space, found["observations"], T + 1)
        action = taken_actions(dataset.action_space, found["actions"], T)
        terminated, truncated = (bool(T) and bool(found[name][-1]) for name in ("terminations", "truncations"))
        seed = more.get("seed")
        seed = None if seed is None else int(seed)
    except DatasetError as error:
        raise DatasetError(f"{folder}: {error}") from None
    except Exception as error:  # of Minari, pyarrow, h5py or JSON
        raise DatasetError(f"{where} cannot be read ({_reason(error)}); export or download it again") from None
    reward = np.asarray(found["rewards"]).astype(np.float32)
    return checked_episode(OfflineEpisode(obs, action, reward, terminated, truncated, seed), where)


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
