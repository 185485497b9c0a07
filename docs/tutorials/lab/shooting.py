"""Random shooting: the best of many action sequences that are drawn around the last plan."""

import torch
from torch import nn

from parsecrl.algorithms.controllers import Plan, Score, predicted_cost
from parsecrl.algorithms.solvers import Iteration


class Shooting(nn.Module):
    """Axes: B beliefs, N candidates, n = H * A variables, H horizon, A action.

    Args:
        horizon: H.
        action_size: A.
        belief_size: Unused: this controller learns nothing.
        num_samples: N.
        noise_std: Of the candidates around the last plan, > 0.
    """

    decoder = None  # nothing is trained
    differentiable_in = ()  # no gradient passes the plan
    warm_start = True

    def __init__(self, horizon, action_size, belief_size, num_samples=64, noise_std=0.7):
        super().__init__()
        self.horizon, self.action_size, self.noise_std = horizon, action_size, noise_std
        self.plan_size = horizon * action_size
        self.trajectories = num_samples
        self.noise_shape = (1, num_samples, self.plan_size)
        self.score = Score()  # what counts in a plan; the spec's cost is set after construction

    @torch.no_grad()
    def plan(
        self, model, belief, warm_start=None, generator=None, noise=None, keep_history=False, checkpoint=False
    ) -> Plan:
        B = len(belief.h)
        start = belief.h.new_zeros(B, self.plan_size) if warm_start is None else warm_start  # [B, n]
        if noise is None:
            noise = torch.randn(B, *self.noise_shape[1:], generator=generator, device=start.device)[None]
        u = (start[:, None] + self.noise_std * noise[0]).clamp(-1, 1)  # [B, N, n]
        J = predicted_cost(model, belief, self.decode(u, belief), self.score)  # [B, N]
        weight = nn.functional.one_hot(J.argmin(1), u.shape[1]).to(u.dtype)  # [B, N]
        best = (weight[..., None] * u).sum(1)  # [B, n]
        history = [Iteration(u, J, weight, best, torch.full_like(best, self.noise_std))] if keep_history else None
        return Plan(self.decode(best, belief), best, history, start.new_zeros(B))

    def decode(self, x, belief):
        return x.unflatten(-1, (self.horizon, self.action_size))

    def shift(self, plan, belief):
        """The plan moved on by a decision."""
        return torch.cat([plan.mean[:, self.action_size :], 0 * plan.mean[:, : self.action_size]], 1)
