"""All transitions of a run, each distinct observation kept once: a grid world has few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsecrl.algorithms.offline_data.episodes import OfflineEpisode

DTYPES = {
    "obs": np.int32,  # row of the table
    "next_obs": np.int32,
    "action": np.int64,
    "reward": np.float32,
    "terminated": np.bool_,
    "left": np.int32,  # transitions of the same episode that follow this one
}


class Transitions(NamedTuple):
    """B transitions, each drawn by itself; reward came with next_obs."""

    obs: np.ndarray  # [B, O] float32
    action: np.ndarray  # [B] int64, or [B, A] float32
    reward: np.ndarray  # [B] float32
    next_obs: np.ndarray  # [B, O] float32
    terminated: np.ndarray  # [B] bool; a time limit ends an episode without terminating it
    visits: np.ndarray | None = None  # [B] int64, transitions in the replay of the same observation and action


class TransitionReplay:
    """The last `capacity` transitions. It draws with generators that are given: nothing of it is random.

    Args:
        capacity: Transitions, at least 1.
        obs_size: O.
        action_size: A of actions that are vectors; None of numbers.
    """

    def __init__(self, capacity: int, obs_size: int, action_size: int | None = None):
        self.capacity = capacity
        self._dtypes: dict[str, Any] = {**DTYPES, **({} if action_size is None else {"action": np.float32})}
        self._table = np.empty((0, obs_size), np.float32)  # distinct observations
        self._row: dict[bytes, int] = {}
        self._columns: dict[str, np.ndarray] = {name: np.empty(0, dtype) for name, dtype in self._dtypes.items()}
        if action_size is not None:
            self._columns["action"] = np.empty((0, action_size), np.float32)

    def __len__(self) -> int:
        return len(self._columns["action"])

    def add(self, obs: np.ndarray, action: np.ndarray, reward: np.ndarray, terminated: bool) -> None:
        """Append an episode of T steps.

        Args:
            obs: [T + 1, O].
            action: [T] int64, or [T, A] float32.
            reward: [T]; reward[t] came with obs[t + 1].
            terminated: Whether the world ended it; a time limit does not.
        """
        rows, T = self._rows_of(obs), len(action)
        new = {"obs": rows[:-1], "next_obs": rows[1:], "action": action, "reward": reward}
        new["terminated"] = np.arange(T) == (T - 1 if terminated else T)
        new["left"] = np.arange(T)[::-1]
        self._columns = {
            name: np.concatenate([self._columns[name], np.asarray(new[name], dtype)])[-self.capacity :]
            for name, dtype in self._dtypes.items()
        }
        if len(self._table) > 2 * (self.capacity + 1):
            self._forget_unused()

    def sample(self, count: int, rng: np.random.Generator, with_visits: bool = False) -> Transitions:
        """Draw transitions uniformly, with replacement.

        Args:
            count: B.
            rng: Of the draws.
            with_visits: Whether their visits are counted, of actions that are numbers; a pass over the replay.

        Returns:
            B transitions.
        """
        c, i = self._columns, rng.integers(len(self), size=count)
        obs, next_obs = self._table[c["obs"][i]], self._table[c["next_obs"][i]]
        visits = None
        if with_visits:
            pairs = c["obs"] * (int(c["action"].max()) + 1) + c["action"]
            visits = np.bincount(pairs)[pairs[i]]
        return Transitions(obs, c["action"][i], c["reward"][i], next_obs, c["terminated"][i], visits)

    def has_slice(self, length: int) -> bool:
        """Say whether an episode is long enough for a slice.

        Args:
            length: T, transitions of a slice.

        Returns:
            Whether `slices` can draw.
        """
        return bool((self._columns["left"] >= length - 1).any())

    def slices(self, count: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw slices, each within one episode, their starts uniform.

        Args:
            count: B.
            length: T, transitions of a slice.
            rng: Of the draws.

        Returns:
            obs [B, T + 1, O] and action [B, T] or [B, T, A].

        Raises:
            ValueError: No episode is so long.
        """
        starts = np.flatnonzero(self._columns["left"] >= length - 1)
        if not len(starts):
            raise ValueError(
                f"model.rollout_steps must be at most the length of an episode, got {length}; lower it, or lengthen "
                f"the episodes"
            )
        i = starts[rng.integers(len(starts), size=count)][:, None] + np.arange(length)  # [count, length]
        rows = np.concatenate([self._columns["obs"][i], self._columns["next_obs"][i[:, -1:]]], 1)
        return self._table[rows], self._columns["action"][i]

    def episodes(self) -> list[OfflineEpisode]:
        """All episodes as a dataset holds them, without seeds; the oldest may lack its beginning."""
        c, found, begin = self._columns, [], 0
        for end in (np.flatnonzero(c["left"] == 0) + 1).tolist():
            rows = np.concatenate([c["obs"][begin:end], c["next_obs"][end - 1 : end]])
            terminated = bool(c["terminated"][end - 1])
            action, reward = c["action"][begin:end], c["reward"][begin:end]
            found.append(OfflineEpisode(self._table[rows], action, reward, terminated, not terminated))
            begin = end
        return found

    def save(self, file: Path) -> None:
        """Write everything; the file appears whole or not at all.

        Args:
            file: Its name ends in .npz.
        """
        temporary = file.with_name("tmp_" + file.name)
        np.savez(temporary, table=self._table, **self._columns)  # type: ignore[arg-type]  # its stub knows one keyword
        os.replace(temporary, file)

    def load(self, file: Path) -> None:
        """Read what `save` wrote, in place of what is here.

        Args:
            file: What was written.
        """
        with np.load(file, allow_pickle=False) as arrays:
            self._table = arrays["table"]
            self._columns = {name: arrays[name] for name in DTYPES}
        self._row = {row.tobytes(): i for i, row in enumerate(self._table)}

    def _rows_of(self, obs: np.ndarray) -> np.ndarray:
        """[T + 1] rows of the table, which grows by what is new."""
        added = []
        rows = np.empty(len(obs), np.int32)
        for t, vector in enumerate(np.ascontiguousarray(obs, np.float32)):
            key = vector.tobytes()
            if key not in self._row:
                self._row[key] = len(self._row)
                added.append(vector)
            rows[t] = self._row[key]
        if added:
            self._table = np.concatenate([self._table, np.stack(added)])
        return rows

    def _forget_unused(self) -> None:
        c = self._columns
        used, rows = np.unique(np.concatenate([c["obs"], c["next_obs"]]), return_inverse=True)
        c["obs"], c["next_obs"] = (part.astype(np.int32) for part in np.split(rows, 2))
        self._table = self._table[used]
        self._row = {row.tobytes(): i for i, row in enumerate(self._table)}
