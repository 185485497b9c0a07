"""Replay: RLlib's episode buffer, saved as plain arrays, so that a phase can begin with another's data safely."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from parsecrl.algorithms.checkpoints.files import Folder, local_file
from parsecrl.algorithms.offline_data.episodes import DatasetError, OfflineEpisode
from parsecrl.algorithms.offline_data.reading import check_task, read_dataset

REPLAY_FILE = "replay.npz"


def bare_episode(episode: SingleAgentEpisode) -> SingleAgentEpisode:
    """Drop model outputs and infos, which no update reads.

    Args:
        episode: An episode or a chunk of one.

    Returns:
        The same episode without them.
    """
    return SingleAgentEpisode(
        id_=episode.id_,
        observations=list(np.asarray(episode.get_observations(), dtype=np.float32)),
        actions=list(np.asarray(episode.get_actions(), dtype=np.float32)),
        rewards=list(np.asarray(episode.get_rewards(), dtype=np.float32)),
        terminated=episode.is_terminated,
        truncated=episode.is_truncated,
        t_started=episode.t_started,
        len_lookback_buffer=0,
    )


def save_replay(buffer: EpisodeReplayBuffer, folder: str | Path) -> None:
    """Write all episodes as plain arrays.

    They are obs [sum(T + 1), O], action [sum T, A], reward [sum T]; length, terminated and truncated [E].

    Args:
        buffer: With E episodes of T steps each.
        folder: Where REPLAY_FILE is written.
    """
    episodes = list(buffer.episodes)
    arrays: dict[str, Any] = {
        "length": np.array([len(e) for e in episodes], dtype=np.int64),
        "terminated": np.array([e.is_terminated for e in episodes], dtype=bool),
        "truncated": np.array([e.is_truncated for e in episodes], dtype=bool),
    }
    if episodes:
        arrays["obs"] = np.concatenate([np.asarray(e.get_observations(), dtype=np.float32) for e in episodes])
        arrays["action"] = np.concatenate([np.asarray(e.get_actions(), dtype=np.float32) for e in episodes])
        arrays["reward"] = np.concatenate([np.asarray(e.get_rewards(), dtype=np.float32) for e in episodes])
    file = Path(folder) / REPLAY_FILE
    temporary = file.with_name("tmp_" + REPLAY_FILE)
    np.savez(temporary, **arrays)
    os.replace(temporary, file)


def load_replay(folder: Folder) -> list[SingleAgentEpisode]:
    """Read the episodes that `save_replay` wrote. An unfinished one stays as it was cut.

    Args:
        folder: A path, or a folder elsewhere.

    Returns:
        The episodes.

    Raises:
        ValueError: There is no REPLAY_FILE.
    """
    with local_file(folder, REPLAY_FILE) as file:
        if not file.is_file():
            raise ValueError(
                f"{folder} holds no {REPLAY_FILE}; set keep_replay: false to start with an empty replay buffer"
            )
        return _read_episodes(file)


def _read_episodes(file: Path) -> list[SingleAgentEpisode]:
    episodes: list[SingleAgentEpisode] = []
    with np.load(file, allow_pickle=False) as arrays:
        lengths = arrays["length"]
        if not len(lengths):
            return episodes
        obs, action, reward = arrays["obs"], arrays["action"], arrays["reward"]
        terminated, truncated = arrays["terminated"], arrays["truncated"]  # each access reads the file
        ends = np.cumsum(lengths)
        for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            start = end - length
            episodes.append(
                SingleAgentEpisode(
                    observations=list(obs[start + i : end + i + 1]),
                    actions=list(action[start:end]),
                    rewards=list(reward[start:end]),
                    terminated=bool(terminated[i]),
                    truncated=bool(truncated[i]),
                    len_lookback_buffer=0,
                )
            )
    return episodes


def episodes_of_dataset(path: str, task: Mapping[str, Any], capacity: int) -> list[SingleAgentEpisode]:
    """The episodes of a dataset for the replay.

    Args:
        path: As `read_dataset` takes it.
        task: id and action_repeat of the task that is to be learned.
        capacity: Decisions that the replay holds.

    Returns:
        The episodes.

    Raises:
        DatasetError: The dataset is damaged, of another task, or larger than the replay.
    """
    dataset = read_dataset(path)
    check_task(path, dataset, task)
    if dataset.num_decisions > capacity:
        raise DatasetError(
            f"replay_capacity must hold the dataset, got {capacity:,} with {dataset.num_decisions:,} decisions in "
            f"{path}; raise replay_capacity"
        )
    return [
        SingleAgentEpisode(
            observations=list(episode.obs),
            actions=list(episode.action),
            rewards=list(episode.reward),
            terminated=episode.terminated,
            truncated=episode.truncated,
            len_lookback_buffer=0,
        )
        for episode in dataset.episodes
    ]


def dataset_episodes(folder: Folder) -> list[OfflineEpisode]:
    """The episodes of a checkpoint's replay as a dataset holds them.

    Args:
        folder: As `load_replay` takes it.

    Returns:
        Those with a decision; the replay does not know their seeds.

    Raises:
        ValueError: As `load_replay`.
    """
    return [
        OfflineEpisode(
            np.asarray(episode.get_observations(), np.float32),
            np.asarray(episode.get_actions(), np.float32),
            np.asarray(episode.get_rewards(), np.float32),
            episode.is_terminated,
            episode.is_truncated,
        )
        for episode in load_replay(folder)
        if len(episode)
    ]


def beginnings(
    buffer: EpisodeReplayBuffer, count: int, horizon: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How episodes began that are drawn uniformly.

    Args:
        buffer: With one episode or more.
        count: B.
        horizon: H.
        rng: Of the draws.

    Returns:
        First observations [B, O] and first H actions [B, H, A], NaN behind the end of a shorter episode.
    """
    drawn = [buffer.episodes[i] for i in rng.integers(len(buffer.episodes), size=count)]
    obs = np.stack([np.asarray(episode.get_observations(0), dtype=np.float32) for episode in drawn])
    taken = [np.asarray(episode.get_actions(slice(0, horizon)), dtype=np.float32) for episode in drawn]
    actions = np.full((count, horizon, taken[0].shape[-1]), np.nan, np.float32)
    for row, own in zip(actions, taken, strict=True):
        row[: len(own)] = own
    return obs, actions
