"""The trained policy as TrainedAgent takes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.models.squashed_gaussian import squashed_mean, squashed_sample


class _LatentPolicy(ABC):
    """Actions from latents; the state is the action before, which nothing depends on.

    Args:
        model: Its encoder is used, obs [B, O] -> latents [B, Z]; set to evaluation mode.
        network: Latents [B, Z] -> what the actions are drawn by; set to evaluation mode.
    """

    def __init__(self, model: LatentDynamics, network: nn.Module):
        self.model, self.network = model.eval(), network.eval()

    @abstractmethod
    def _no_action(self, batch_size: int) -> Tensor:
        """What stands for the action before the first."""

    @abstractmethod
    def _choose(self, output: Tensor, rng: np.random.Generator | None) -> Tensor:
        """Actions by the network's output [B, ...]."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The state before the first observations: no action yet, which is 0."""
        return {"action": self._no_action(batch_size)}

    @torch.no_grad()
    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """Decide for B environments.

        Args:
            state: Of the step before; it is not read.
            obs: [B, O] in the environment's units.
            rng: Draws the actions; None: the most probable ones are taken, of a squashed Gaussian those of its mean.

        Returns:
            Actions, [B] int64 in [0, A) or [B, A] in [-1, 1], and the next state.
        """
        action = self._choose(self.network(self.model.encode(obs)), rng)
        return action.numpy(), {"action": action}

    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """The actions without rng, in which no seed has a part."""
        return self.act(state, obs)


class DiscretePolicy(_LatentPolicy):
    """Discrete actions; the network gives logits [B, A]."""

    def _no_action(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, dtype=torch.int64)

    def _choose(self, output: Tensor, rng: np.random.Generator | None) -> Tensor:
        logits = output.double()
        if rng is None:
            return logits.argmax(-1)
        cumulative = logits.softmax(-1).cumsum(-1)[:, :-1]
        return (cumulative <= torch.from_numpy(rng.random((len(logits), 1)))).sum(-1)


class SquashedGaussianPolicy(_LatentPolicy):
    """Actions that are vectors [B, A]; the network gives means and log-deviations [B, 2 A].

    Args:
        model: As in `_LatentPolicy`.
        network: Latents [B, Z] -> [B, 2 A].
        action_size: A.
    """

    def __init__(self, model: LatentDynamics, network: nn.Module, action_size: int):
        super().__init__(model, network)
        self.action_size = action_size

    def _no_action(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.action_size)

    def _choose(self, output: Tensor, rng: np.random.Generator | None) -> Tensor:
        if rng is None:
            return squashed_mean(output)
        eps = rng.standard_normal((len(output), self.action_size), dtype=np.float32)
        return squashed_sample(output, torch.from_numpy(eps))[0]
