"""What the agent has seen: every transition of every task, for the refit after each.

Axes: M rows, an episode of T transitions taking T + 1 of them; B slices of L transitions, O observation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parsecrl.algorithms.models import TransitionSequence
from parsecrl.algorithms.offline_data.episodes import OfflineEpisode

COLUMNS = ("obs", "action", "state", "reward", "terminated")


class Experience:
    """Episodes below each other. action[i] leads from obs[i] to obs[i + 1], -1 in an episode's last row.

    Args:
        obs_size: O.
    """

    def __init__(self, obs_size: int):
        self.obs = torch.empty(0, obs_size)  # [M, O]
        self.action = torch.empty(0, dtype=torch.int64)  # [M]
        self.state = torch.empty(0, dtype=torch.int64)  # [M] the world's number of where one was, -1 if it tells none
        self.reward = torch.empty(0)  # [M] reward[i] came with obs[i + 1], 0 in an episode's last row
        self.terminated = torch.empty(0, dtype=torch.bool)  # [M] whether the world ended the episode there

    def add(self, obs: Tensor, action: Tensor, state: Tensor, reward: Tensor, terminated: bool) -> None:
        """Append an episode.

        Args:
            obs: [T + 1, O], environment units.
            action: [T] int64.
            state: [T + 1] int64, the world's numbers of where one was.
            reward: [T].
            terminated: Whether the world ended it; a time limit does not.
        """
        self.obs = torch.cat([self.obs, obs])
        self.action = torch.cat([self.action, action, torch.tensor([-1])])
        self.state = torch.cat([self.state, state])
        self.reward = torch.cat([self.reward, reward, torch.zeros(1)])
        ended = torch.zeros(len(obs), dtype=torch.bool)
        ended[-1] = terminated
        self.terminated = torch.cat([self.terminated, ended])

    def episodes(self) -> list[OfflineEpisode]:
        """All episodes as a dataset holds them, without seeds."""
        found, begin = [], 0
        for end in torch.where(self.action < 0)[0].tolist():  # an episode's last row
            terminated = bool(self.terminated[end])
            obs, action, reward = self.obs[begin : end + 1], self.action[begin:end], self.reward[begin:end]
            arrays = obs.numpy(), action.numpy(), reward.numpy()
            found.append(OfflineEpisode(*arrays, terminated, not terminated))
            begin = end + 1
        return found

    @property
    def num_transitions(self) -> int:
        """Transitions of all episodes."""
        return int((self.action >= 0).sum())

    def starts(self, length: int) -> Tensor:
        """Where slices can begin.

        Args:
            length: L, transitions of a slice.

        Returns:
            Rows at which L transitions of one episode begin, int64.
        """
        ends = torch.where(self.action < 0)[0]  # [episodes]
        rows = torch.arange(len(self.action))
        remaining = ends[torch.searchsorted(ends, rows)] - rows  # [M] transitions from here to the episode's end
        return rows[remaining >= length]

    def sample(self, num_slices: int, length: int, generator: torch.Generator) -> TransitionSequence:
        """Draw slices uniformly and with replacement from all there are.

        Args:
            num_slices: B.
            length: L, transitions of a slice, all of one episode.
            generator: Of the draws, on the CPU.

        Returns:
            obs [B, L + 1, O] and action [B, L].

        Raises:
            ValueError: No episode has that many transitions.
        """
        starts = self.starts(length)
        if len(starts) == 0:
            raise ValueError(f"slices of {length} transitions need an episode as long; lower slice_length")
        first = starts[torch.randint(len(starts), (num_slices,), generator=generator)]
        rows = first.unsqueeze(1) + torch.arange(length + 1)  # [B, L + 1]
        return TransitionSequence(self.obs[rows], self.action[rows[:, :-1]])

    def tensors(self) -> dict[str, Tensor]:
        """All columns by name, for a checkpoint."""
        return {name: getattr(self, name) for name in COLUMNS}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the columns of a checkpoint in place of what is here.

        Args:
            tensors: What `tensors` returned.
        """
        for name in COLUMNS:
            setattr(self, name, tensors[name])
