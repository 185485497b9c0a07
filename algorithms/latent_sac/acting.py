"""The trained policy as TrainedAgent takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.models.squashed_gaussian import squashed_mean, squashed_sample


class DiscretePolicy:
    """Actions from latents; the state is the action before, which nothing depends on.

    Args:
        model: Its encoder is used, obs [B, O] -> latents [B, Z]; set to evaluation mode.
        network: Latents [B, Z] -> logits [B, A]; set to evaluation mode.
    """

    def __init__(self, model: LatentDynamics, network: nn.Module):
        self.model, self.network = model.eval(), network.eval()

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The state before the first observations: no action yet, which is 0."""
        return {"action": torch.zeros(batch_size, dtype=torch.int64)}

    @torch.no_grad()
    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """Decide for B environments.

        Args:
            state: Of the step before; it is not read.
            obs: [B, O] in the environment's units.
            rng: Draws the actions; None: the most probable ones are taken.

        Returns:
            Actions [B] int64 in [0, A), and the next state.
        """
        logits = self.network(self.model.encode(obs)).double()  # [B, A]
        action = logits.argmax(-1)
        if rng is not None:
            cumulative = logits.softmax(-1).cumsum(-1)[:, :-1]
            action = (cumulative <= torch.from_numpy(rng.random((len(obs), 1)))).sum(-1)
        return action.numpy(), {"action": action}

    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """The most probable actions, in which no seed has a part."""
        return self.act(state, obs)


class SquashedGaussianPolicy:
    """Actions that are vectors from latents; the state is the action before, which nothing depends on.

    Args:
        model: As in `DiscretePolicy`.
        network: Latents [B, Z] -> means and log-deviations [B, 2 A]; set to evaluation mode.
        action_size: A.
    """

    def __init__(self, model: LatentDynamics, network: nn.Module, action_size: int):
        self.model, self.network, self.action_size = model.eval(), network.eval(), action_size

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The state before the first observations: no action yet, which is 0."""
        return {"action": torch.zeros(batch_size, self.action_size)}

    @torch.no_grad()
    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """Decide for B environments.

        Args:
            state: Of the step before; it is not read.
            obs: [B, O] in the environment's units.
            rng: Draws the actions; None: those of the Gaussian's mean are taken.

        Returns:
            Actions [B, A] in [-1, 1], and the next state.
        """
        raw = self.network(self.model.encode(obs))
        action = squashed_mean(raw)
        if rng is not None:
            eps = rng.standard_normal((len(obs), self.action_size), dtype=np.float32)
            action = squashed_sample(raw, torch.from_numpy(eps))[0]
        return action.numpy(), {"action": action}

    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """The actions of the Gaussian's mean, in which no seed has a part."""
        return self.act(state, obs)
