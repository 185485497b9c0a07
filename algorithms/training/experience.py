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

    def take(self) -> dict[str, Any]:
        """The keys of a result: reward_low, reward_high, and actions_at_bounds, the share of entries there."""
        taken = {"reward_low": self.low, "reward_high": self.high} if self.low <= self.high else {}
        if self._entries:
            taken["actions_at_bounds"] = self._at_bounds / self._entries
        self._at_bounds = self._entries = 0
        return taken
