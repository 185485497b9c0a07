"""Records that cross rooms, with their axes and alignment.

Axes: B problems or sequences, T steps, O observation, A action, D deterministic state, S stochastic state.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Belief(NamedTuple):
    """The model's state for each environment."""

    h: Tensor  # [..., D] deterministic state of the recurrent network
    s: Tensor  # [..., S] stochastic state: a sample in training, the mean when filtering and planning

    def flatten(self) -> Belief:
        """Merge all leading axes into one: [M, D] and [M, S]."""
        return Belief(self.h.flatten(0, -2), self.s.flatten(0, -2))

    def detach(self) -> Belief:
        """The same belief without its graph."""
        return Belief(self.h.detach(), self.s.detach())


class Gaussian(NamedTuple):
    """A diagonal Gaussian."""

    mean: Tensor  # [..., S]
    std: Tensor  # [..., S], positive


class Outcome(NamedTuple):
    """What action sequences lead to, in a model."""

    rewards: Tensor  # [B, N, H] environment units, each weighed by the probability that it is reached
    survival: Tensor  # [B, N] probability that the episode goes on after the last action
    last: Belief  # [B, N] the state after the last action
    disagreement: Tensor | None = None  # [B, N, H] of an ensemble, weighed likewise, in standard deviations of data


class ReplaySequence(NamedTuple):
    """B slices of T decisions; a slice may cross episodes.

    is_first marks where a piece begins: the first step of every slice, wherever in an episode, and each episode's
    beginning after it. action[:, t] is taken after obs[:, t] (the last one is repeated where an episode ends);
    reward[:, t] arrived with obs[:, t], as RLlib's episode buffers store it, so it belongs to action[:, t - 1] and is
    not used where is_first. So did terminated[:, t]: obs[:, t] is the last of an episode that ended, other than by a
    limit of its steps.
    """

    obs: Tensor  # [B, T, O] environment units
    action: Tensor  # [B, T, A] in [-1, 1]
    reward: Tensor  # [B, T] environment units, summed over the action repeat
    is_first: Tensor  # [B, T] bool
    terminated: Tensor  # [B, T] bool
