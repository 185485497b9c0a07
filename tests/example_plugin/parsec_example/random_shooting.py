"""Random shooting: the best of many action sequences drawn at random (Richards 2005, section 5.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers import Plan, Score, predicted_cost
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.solvers import Iteration


class RandomShooting(nn.Module):
    """Tries action sequences around the last plan and takes the best, several times.

    Axes: B beliefs, N candidates, n = H * A variables, H horizon, A action.

    Args:
        horizon: H.
        action_size: A.
        belief_size: Unused: this controller learns nothing.
        num_samples: N, candidates of a round.
        num_rounds: How often the best so far is shot around.
        noise_std: Of the candidates around it, > 0.
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
        num_rounds: int = 2,
        noise_std: float = 0.7,
    ):
        super().__init__()
        self.horizon, self.action_size, self.noise_std = horizon, action_size, noise_std
        self.score = Score()
        self.plan_size = horizon * action_size
        self.trajectories = num_samples * num_rounds
        self.noise_shape = (num_rounds, num_samples, self.plan_size)

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
        best = h.new_zeros(B, self.plan_size) if warm_start is None else warm_start  # [B, n]
        history: list[Iteration] = []
        for t in range(self.noise_shape[0]):
            shape = (B, *self.noise_shape[1:])
            eps = torch.randn(shape, generator=generator, device=h.device) if noise is None else noise[t]
            u = (best[:, None] + self.noise_std * eps).clamp(-1, 1)  # [B, N, n]
            J = predicted_cost(model, belief, self.decode(u, belief), self.score)  # [B, N]
            w = nn.functional.one_hot(J.argmin(1), u.shape[1]).to(u.dtype)  # [B, N]
            best = (w[..., None] * u).sum(1)
            history.append(Iteration(u, J, w, best, torch.full_like(best, self.noise_std)))
        return Plan(self.decode(best, belief), best, history if keep_history else None, h.new_zeros(B))

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        return x.unflatten(-1, (self.horizon, self.action_size))

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        return torch.cat([plan.mean[:, self.action_size :], 0 * plan.mean[:, : self.action_size]], 1)
