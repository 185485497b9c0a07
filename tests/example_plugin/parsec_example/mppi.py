"""Model predictive path integral control (Williams et al. 2017, "Information theoretic MPC", algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers import Plan, Score, predicted_cost
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.solvers import Iteration


class MPPI(nn.Module):
    """Plans by the mean of noisy action sequences, weighted by exp(-cost / temperature).

    Axes: B beliefs, N candidates, n = H * A variables, H horizon, A action.

    Args:
        horizon: H.
        action_size: A.
        belief_size: Unused: this controller learns nothing.
        num_samples: N, candidates of an iteration.
        num_iterations: How often the mean is replaced.
        temperature: In standard deviations of a belief's costs, > 0.
        noise_std: Of the candidates around the mean, > 0.
    """

    decoder = None  # nothing is trained
    differentiable_in = ()  # no gradient passes the plan
    warm_start = True

    def __init__(
        self,
        horizon: int,
        action_size: int,
        belief_size: int,
        num_samples: int = 64,
        num_iterations: int = 2,
        temperature: float = 0.2,
        noise_std: float = 0.5,
    ):
        super().__init__()
        self.horizon, self.action_size = horizon, action_size
        self.num_samples, self.num_iterations = num_samples, num_iterations
        self.temperature, self.noise_std = temperature, noise_std
        self.score = Score()
        self.plan_size = horizon * action_size
        self.trajectories = num_samples * num_iterations
        self.noise_shape = (num_iterations, num_samples, self.plan_size)

    @torch.no_grad()
    def plan(
        self,
        model: nn.Module,
        belief: Belief,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        keep_history: bool = False,
        checkpoint: bool = False,
    ) -> Plan:
        B, h = len(belief.h), belief.h
        mean = h.new_zeros(B, self.plan_size) if warm_start is None else warm_start  # [B, n]
        history: list[Iteration] = []
        for t in range(self.num_iterations):
            shape = (B, *self.noise_shape[1:])
            eps = torch.randn(shape, generator=generator, device=h.device) if noise is None else noise[t]
            u = (mean[:, None] + self.noise_std * eps).clamp(-1, 1)  # [B, N, n]
            J = predicted_cost(model, belief, self.decode(u, belief), self.score)  # [B, N]
            w = (-(J - J.amin(1, keepdim=True)) / (self.temperature * J.std(1, keepdim=True) + 1e-8)).softmax(1)
            mean = (w[..., None] * u).sum(1)
            history.append(Iteration(u, J, w, mean, torch.full_like(mean, self.noise_std)))
        entropy = torch.special.entr(w).sum(1)
        return Plan(self.decode(mean, belief), mean, history if keep_history else None, entropy)

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        return x.unflatten(-1, (self.horizon, self.action_size))

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        return torch.cat([plan.mean[:, self.action_size :], 0 * plan.mean[:, : self.action_size]], 1)
