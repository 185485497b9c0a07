"""An ensemble that tells where a model has seen no data: its members agree on data, and nowhere else.

Axes: K members, M rows, D deterministic state, S stochastic state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.layers import RunningNorm
from parsecrl.algorithms.models.matrix_products import Linear

UNITS = 64  # of a member's hidden layer: plans pay for the members, and a narrow one can disagree as well
STATE_MEMORY = 1e5  # rows of `RunningNorm`: what a state means changes while the model learns


class Ensemble(nn.Module):
    """K small predictors of state and reward from h, each a prior and a reward head on the model's own GRU.

    The members judge; the model's own prior and reward head predict. A member is a Gaussian of fixed variance over the
    standardised state and reward, with one hidden layer of its own (Sekar et al. 2020, "Planning to Explore", section
    3.1). Members differ by their first weights alone. No gradient of theirs reaches the model.

    Args:
        members: K, at least 2.
        deterministic_size: D.
        stochastic_size: S.
    """

    def __init__(self, members: int, deterministic_size: int, stochastic_size: int):
        super().__init__()
        self.members, self.outputs = members, stochastic_size + 1
        self.hidden = Linear(deterministic_size, members * UNITS)
        bound = 1 / math.sqrt(UNITS)
        self.weight = nn.Parameter(torch.empty(members, UNITS, self.outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, self.outputs))
        self.state_norm = RunningNorm(stochastic_size, memory=STATE_MEMORY)

    def forward(self, h: Tensor) -> Tensor:
        """Predict.

        Args:
            h: [M, D].

        Returns:
            Standardised states, then the standardised reward, [K, M, S + 1].
        """
        hidden = self.hidden(h).relu().unflatten(-1, (self.members, UNITS)).transpose(0, 1)  # [K, M, UNITS]
        return torch.baddbmm(self.bias, hidden, self.weight)

    def loss(self, h: Tensor, s: Tensor, mean: Tensor, reward: Tensor, known: Tensor) -> Tensor:
        """Squared errors, summed over the members; a reward counts as much as all of the state.

        Args:
            h: [..., D]; gets no gradient.
            s: Drawn states [..., S], whose spread is the unit.
            mean: Of the posterior they were drawn from, [..., S].
            reward: Standardised, [...].
            known: 1 where there is a reward, else 0, [...].

        Returns:
            [].
        """
        self.state_norm.update(s.detach())
        target = torch.cat([self.state_norm(mean), reward[..., None]], -1).detach().flatten(0, -2)  # [M, S + 1]
        error = (self(h.detach().flatten(0, -2)) - target).square()  # [K, M, S + 1]
        of_rewards = error[..., -1] * known.flatten()
        return error[..., :-1].sum(-1).mean(1).sum() + (self.outputs - 1) * of_rewards.mean(1).sum()

    def disagreement(self, h: Tensor) -> Tensor:
        """How far the members are from their mean, in absolute terms: on the state and on the reward, summed.

        Args:
            h: [M, D].

        Returns:
            [M], 0 or more, in standard deviations of what was seen: about 1 where members differ as much as data do.
        """
        predicted = self(h)
        deviation = (predicted - predicted.mean(0)).abs().mean(0)  # [M, S + 1]
        return deviation[:, :-1].mean(-1) + deviation[:, -1]
