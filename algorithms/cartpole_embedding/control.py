"""Receding-horizon control of known dynamics: plan, apply the first action, plan again.

Axes: B episodes, T steps, S state, A action.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController
from parsecrl.algorithms.models.known_dynamics import KnownDynamics


class Episode(NamedTuple):
    """B episodes; actions[:, t] is taken in states[:, t] and costs costs[:, t]."""

    states: Tensor  # [B, T, S]
    actions: Tensor  # [B, T, A] in [-1, 1]
    costs: Tensor  # [B, T]


@torch.no_grad()
def control(
    dynamics: KnownDynamics,
    controller: FullSpaceController | EmbeddedController | None,
    states: Tensor,
    num_steps: int,
    generator: torch.Generator,
    warm: bool = True,
) -> Episode:
    """Plan, apply the first action, plan again.

    Args:
        dynamics: The system.
        controller: What plans; None for random actions.
        states: Where the episodes begin, [B, S].
        num_steps: T, at least 1.
        generator: Of plans and random actions.
        warm: Each search starts at the last plan, moved on by a step; else where the first did.

    Returns:
        B episodes.

    Raises:
        ValueError: A function of the dynamics returns NaN or infinity.
    """
    warm_start: Tensor | None = None
    seen, taken, paid = [], [], []
    for _ in range(num_steps):
        if controller is None:
            shape = (states.shape[0], dynamics.action_size)
            action = 2 * torch.rand(shape, generator=generator, device=states.device) - 1
        else:
            belief = dynamics.belief(states)
            plan = controller.plan(dynamics, belief, warm_start, generator)
            action = plan.actions[:, 0]
            warm_start = controller.shift(plan, belief) if warm else None
        u = dynamics.scale(action)
        seen.append(states)
        taken.append(action)
        paid.append(dynamics.cost(states, u))
        after = dynamics.transition(states, u)
        if not bool(after.isfinite().all() & paid[-1].isfinite().all()):
            dynamics.check_rollout(states, u.unsqueeze(1))
        states = after
    return Episode(torch.stack(seen, 1), torch.stack(taken, 1), torch.stack(paid, 1))
