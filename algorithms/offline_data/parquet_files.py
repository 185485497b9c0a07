"""Episodes in Parquet, a row a decision, in the columns of RLlib's offline data.

    eps_id, t, obs, actions, rewards, new_obs, terminateds, truncateds      RLlib's own
    seed, episode_return                                                    further ones

RLlib reads and writes these columns (`offline_data(output_write_episodes=False)`); its other form, episodes as msgpack,
is not read: unpacking may unpickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parsecrl.algorithms.offline_data.episodes import (
    SETTINGS,
    Dataset,
    DatasetError,
    OfflineEpisode,
    checked_about,
    checked_episode,
)

NEEDED = ("eps_id", "obs", "actions", "rewards", "new_obs", "terminateds", "truncateds")


def write_parquet(file: Path, episodes: Sequence[OfflineEpisode], about: Mapping[str, Any]) -> None:
    """Write one file, in place of what is there.

    Args:
        file: In an existing folder.
        episodes: One or more, of the same sizes.
        about: What the dataset says of itself, for JSON.
    """
    lengths = [len(episode.reward) for episode in episodes]
    returns = [float(np.sum(episode.reward, dtype=np.float64)) for episode in episodes]
    ends = [np.arange(T) == T - 1 for T in lengths]
    columns = {
        "eps_id": pa.array(np.repeat([f"{number:06d}" for number in range(len(episodes))], lengths)),
        "t": pa.array(np.concatenate([np.arange(T) for T in lengths])),
        "obs": _rows([episode.obs[:-1] for episode in episodes]),
        "actions": _rows([episode.action for episode in episodes]),  # numbers where they are discrete
        "rewards": pa.array(np.concatenate([episode.reward for episode in episodes])),
        "new_obs": _rows([episode.obs[1:] for episode in episodes]),
        "terminateds": pa.array(np.concatenate([end & e.terminated for end, e in zip(ends, episodes, strict=True)])),
        "truncateds": pa.array(np.concatenate([end & e.truncated for end, e in zip(ends, episodes, strict=True)])),
        "seed": pa.array([e.seed for e, T in zip(episodes, lengths, strict=True) for _ in range(T)], pa.int64()),
        "episode_return": pa.array(np.repeat(returns, lengths)),
    }
    table = pa.table(columns).replace_schema_metadata({SETTINGS: json.dumps(dict(about))})
    partial = file.with_name(f".{file.name}.partial")
    try:
        pq.write_table(table, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _rows(parts: list[np.ndarray]) -> pa.Array:
    values = np.concatenate(parts)
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def read_parquet(path: Path) -> Dataset:
    """Read a file, or all Parquet files of a folder as RLlib writes them.

    Args:
        path: Of either.

    Returns:
        The episodes; actions are taken as they are, in [-1, 1], as RLlib has them with normalised actions, or whole
        numbers of discrete ones.

    Raises:
        DatasetError: A file is damaged, or has other columns.
    """
    try:
        table = pq.read_table(path)
        missing = [name for name in NEEDED if name not in table.column_names]
        if missing:
            raise DatasetError(
                f"{path} must have the columns {', '.join(NEEDED)} of RLlib's offline data, got none of "
                f"{', '.join(missing)}; have RLlib write columns (output_write_episodes=False)"
            )
        about = checked_about(json.loads((table.schema.metadata or {}).get(SETTINGS.encode(), b"{}")), path)
        ids = np.asarray(table["eps_id"].to_pylist(), dtype=str)
        order = np.asarray(table["t"].to_pylist()) if "t" in table.column_names else np.arange(len(ids))
        obs, new_obs = (_matrix(table[name]) for name in ("obs", "new_obs"))
        action = _matrix(table["actions"])
        if pa.types.is_integer(table["actions"].type):
            action = np.asarray(table["actions"].to_pylist(), np.int64)
        reward, terminated, truncated = (
            np.asarray(table[name].to_pylist()) for name in ("rewards", "terminateds", "truncateds")
        )
        seeds = table["seed"].to_pylist() if "seed" in table.column_names else [None] * len(ids)
        _, first = np.unique(ids, return_index=True)
    except DatasetError:
        raise
    except Exception as error:  # of pyarrow, numpy or JSON
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path} cannot be read as Parquet of RLlib's columns ({reason}); export it again") from None
    episodes = []
    for start in np.sort(first):  # in the order of the file
        rows = np.flatnonzero(ids == ids[start])
        rows = rows[np.argsort(order[rows], kind="stable")]
        where = f"episode {ids[start]} of {path}"
        last = rows[-1]
        own = np.concatenate([obs[rows], new_obs[last:][:1]]), action[rows], reward[rows].astype(np.float32)
        episode = OfflineEpisode(*own, bool(terminated[last]), bool(truncated[last]), seeds[start])
        episodes.append(checked_episode(episode, where))
        if (obs[rows[1:]] != new_obs[rows[:-1]]).any():
            raise DatasetError(f"{where} has a gap: obs of a row is not new_obs of the row before; remove the episode")
        if "t" in table.column_names and (np.diff(order[rows]) != 1).any():  # where nothing moved, t alone tells
            raise DatasetError(f"{where} has a gap: t does not count its rows one by one; remove the episode")
    if not episodes:
        raise DatasetError(f"{path} holds no episode; give another dataset")
    return Dataset(episodes, about)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_pylist(), np.float32).reshape(len(column), -1)
