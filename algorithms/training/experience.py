"""What a trial has seen of rewards and of its own actions, for those who judge whether it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Experience:
    """Extremes of all rewards since the trial began or went on; actions since the last result."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._at_bounds = self._entries = 0
        self._achieved: list[float] = []  # rewards of a decision over the horizon, of each episode that ended

    def add(self, rewards: Sequence[float] | np.ndarray, actions: np.ndarray | None = None) -> None:
        """Take in what was gathered.

        Args:
            rewards: [T], environment units, of decisions.
            actions: [T, A] in [-1, 1], where they are continuous.
        """
        if len(rewards):
            self.low, self.high = min(self.low, float(np.min(rewards))), max(self.high, float(np.max(rewards)))
        if actions is not None:
            self._at_bounds += int((np.abs(actions) > 0.99).sum())
            self._entries += actions.size

    def end(self, rewards: Sequence[float] | np.ndarray, terminated: bool, horizon: int) -> None:
        """Take in a whole episode that plans decided.

        From each decision the rewards of the next `horizon` ones are summed, as the plan made there predicts them.
        Where the task ended the episode none follow; where a limit cut it, what follows is not known.

        Args:
            rewards: [T], environment units.
            terminated: Whether the task ended it.
            horizon: Of the plans, decisions.
        """
        total = np.concatenate([[0.0], np.cumsum(rewards, dtype=float)])
        starts = np.arange(len(rewards) if terminated else len(rewards) - horizon + 1)
        if starts.size:
            sums = total[np.minimum(starts + horizon, len(rewards))] - total[starts]
            self._achieved.append(float(sums.mean()) / horizon)

    def take(self) -> dict[str, Any]:
        """The keys of a result: reward_low, reward_high, and those that are known of two more.

        actions_at_bounds: the share of entries there. achieved_reward: of a decision, over the horizon of plans.
        """
        taken = {"reward_low": self.low, "reward_high": self.high} if self.low <= self.high else {}
        if self._entries:
            taken["actions_at_bounds"] = self._at_bounds / self._entries
        if self._achieved:
            taken["achieved_reward"] = float(np.mean(self._achieved))
        self._at_bounds = self._entries = 0
        self._achieved.clear()
        return taken
