"""The torque-limited pendulum, known and differentiable: the second example of a pair of functions.

State (cos th, sin th, dth), th = 0 upright, rad/s. Action: the torque, newton metre. A uniform rod of 1 kg and 1 m
under gravity 10, semi-implicit Euler with 0.05 s, as in the classic swing-up task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from parsecrl.algorithms.models.known_dynamics import KnownDynamics

GRAVITY, MASS, LENGTH, DT = 10.0, 1.0, 1.0, 0.05
MAX_TORQUE = 2.0


def pendulum() -> KnownDynamics:
    """Make the pendulum. Its cost per step is -cos th + 0.1 dth^2 + 0.001 u^2.

    Returns:
        The system, with torques of up to 2 N m, which cannot lift it at once: it has to swing. Initial states are
        uniform, th in [-pi, pi] and dth in [-1, 1].
    """
    return KnownDynamics(
        name="pendulum",
        transition=_transition,
        cost=_cost,
        state_size=3,
        action_size=1,
        low=(-MAX_TORQUE,),
        high=(MAX_TORQUE,),
        sample_states=_sample_states,
    )


def _transition(state: Tensor, action: Tensor) -> Tensor:
    c, s, w = state.unbind(-1)
    w = w + DT * (1.5 * GRAVITY / LENGTH * s + 3.0 / (MASS * LENGTH**2) * action[..., 0])
    turn_c, turn_s = (DT * w).cos(), (DT * w).sin()
    return torch.stack([c * turn_c - s * turn_s, s * turn_c + c * turn_s, w], -1)


def _cost(state: Tensor, action: Tensor) -> Tensor:
    return 0.1 * state[..., 2].square() + 0.001 * action[..., 0].square() - state[..., 0]


def _sample_states(count: int, generator: torch.Generator) -> Tensor:
    """Uniform: th in [-pi, pi], dth in [-1, 1]."""
    draw = 2 * torch.rand(count, 2, generator=generator, device=generator.device) - 1
    th, w = math.pi * draw[:, 0], draw[:, 1]
    return torch.stack([th.cos(), th.sin(), w], -1)
