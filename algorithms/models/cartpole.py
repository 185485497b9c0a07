"""The cartpole (Barto, Sutton and Anderson 1983) with a continuous force, known and differentiable.

State (x, dx, cos th, sin th, dth): metres, m/s, th = 0 upright, rad/s. Action: the force on the cart, newton.
Constants as in the differentiable cartpole of Amos et al. 2018, explicit Euler with 0.05 s.

Axes: R rows (states times candidates), H horizon.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from parsecrl.algorithms.models.known_dynamics import KnownDynamics

MAX_FORCE = 100.0
POSITION_COST, FORCE_COST = 0.1, 1e-5


class CartpoleConstants(NamedTuple):
    """Constants of the system in SI units: floats, or tensors where a gradient in them is wanted."""

    gravity: float | Tensor = 9.8
    cart_mass: float | Tensor = 1.0
    pole_mass: float | Tensor = 0.1
    half_length: float | Tensor = 0.5
    dt: float = 0.05


STANDARD = CartpoleConstants()


def cartpole(constants: CartpoleConstants = STANDARD) -> KnownDynamics:
    """Make the cartpole. Its cost per step is -(cos th - 0.1 x^2 - 1e-5 u^2).

    Args:
        constants: Gravity in m/s^2, masses in kg, half the pole's length in m, time step in s. The rollout is fused
            where none of them is a tensor.

    Returns:
        The system, with actions of up to 100 N and initial states x, dx in [-0.5, 0.5], th in [-pi, pi], dth in [-1,
        1].
    """
    numbers = None if any(isinstance(value, Tensor) for value in constants) else tuple(map(float, constants))
    return KnownDynamics(
        name="cartpole",
        transition=lambda state, action: _transition(state, action, constants),
        cost=_cost,
        state_size=5,
        action_size=1,
        low=(-MAX_FORCE,),
        high=(MAX_FORCE,),
        sample_states=_sample_states,
        fused_costs=None if numbers is None else lambda state, u: _RollOut.apply(state, u[..., 0], numbers),
    )


def _transition(state: Tensor, action: Tensor, constants: CartpoleConstants) -> Tensor:
    g, cart, pole, length, dt = constants
    x, dx, c, s, w = state.unbind(-1)
    total = cart + pole
    push = (action[..., 0] + pole * length * w.square() * s) / total
    dw = (g * s - c * push) / (length * (4.0 / 3.0 - pole * c.square() / total))
    ddx = push - pole * length * dw * c / total
    # The angle moves by dt * w: a rotation of (c, s), which needs no arc tangent.
    turn_c, turn_s = (dt * w).cos(), (dt * w).sin()
    return torch.stack([x + dt * dx, dx + dt * ddx, c * turn_c - s * turn_s, s * turn_c + c * turn_s, w + dt * dw], -1)


def _cost(state: Tensor, action: Tensor) -> Tensor:
    return POSITION_COST * state[..., 0].square() + FORCE_COST * action[..., 0].square() - state[..., 2]


def _sample_states(count: int, generator: torch.Generator) -> Tensor:
    """Uniform: x and dx in [-0.5, 0.5], th in [-pi, pi], dth in [-1, 1]."""
    draw = 2 * torch.rand(count, 4, generator=generator, device=generator.device) - 1
    x, dx, th, w = (draw * draw.new_tensor([0.5, 0.5, math.pi, 1.0])).unbind(-1)
    return torch.stack([x, dx, th.cos(), th.sin(), w], -1)


class _RollOut(torch.autograd.Function):
    """The rollout and its adjoint by hand: state [R, 5], force [R, H] -> costs [R, H]; gradient in the force.

    Only the angle has to be stepped: the cart is its double sum. The adjoint takes all partial derivatives at once, so
    that it steps through two linear recursions only. Autograd on the pair of functions does the same in about ten
    times as many calls, and calls are what a rollout of a hundred candidates takes its time for. An update takes 2.8
    times as long with the pair, 1.5 times with autograd on this forward pass (AVX2; tests/benchmarks, -k kernels).
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, force: Tensor, constants: tuple[float, ...]) -> Tensor:
        g, cart, pole, length, dt = constants
        total = cart + pole
        k = pole * length / total
        u = force.t().contiguous()  # [H, R]
        # Numerator and denominator of dw over k. Whole rows of a constant: a number would be made a tensor each time.
        push_k = u / (k * total)
        th, w = torch.atan2(state[:, 3], state[:, 2]), state[:, 4].contiguous()
        gravity, inertia = torch.full_like(w, g / k), torch.full_like(w, length * 4.0 / (3.0 * k))
        rows: list[tuple[Tensor, ...]] = []
        for push in push_k.unbind(0):
            c, s = th.cos(), th.sin()
            push.addcmul_(w * w, s)
            torque = (s * gravity).addcmul_(c, push, value=-1.0)
            dw = torque.div_(torch.addcmul(inertia, c, c, value=-1.0))
            rows.append((w, c, s, dw))
            th, w = torch.add(th, w, alpha=dt), torch.add(w, dw, alpha=dt)
        w, c, s, dw = (torch.stack(column) for column in zip(*rows, strict=True))  # [H, R]
        ddx = torch.addcmul(push_k, dw, c, value=-1.0).mul_(k)
        dx = state[:, 1] + dt * _sum_before(ddx)
        x = state[:, 0] + dt * _sum_before(dx)
        costs = (POSITION_COST * x.square()).addcmul_(u, u, value=FORCE_COST).sub_(c)
        ctx.save_for_backward(u, w, c, s, push_k, dw, x)
        ctx.constants = constants
        return costs.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        """a_y is the loss's derivative in y, and y_z is dy/dz; all but a row of the recursion are [H, R]."""
        u, w, c, s, push_k, dw, x = ctx.saved_tensors
        g, cart, pole, length, dt = ctx.constants
        total = cart + pole
        k = pole * length / total
        weight = grads[0].t()
        over_inertia = torch.reciprocal(length * 4.0 / (3.0 * k) - c * c)
        ws = w * s
        # push_k_th = w^2 c and push_k_w = 2 w s, then the quotient rule for dw, then ddx = k (push_k - dw c)
        push_th = w * w * c
        dw_th = (c * (g / k - push_th)).addcmul_(s, push_k).addcmul_(dw * c, s, value=-2.0).mul_(over_inertia)
        c_over_inertia = c * over_inertia
        dw_w = c_over_inertia * ws  # times -2
        ddx_th = torch.addcmul(push_th, dw_th, c, value=-1.0).addcmul_(dw, s)
        ddx_w = torch.addcmul(ws, c, dw_w)  # times 2
        ddx_u = 1.0 + c * c_over_inertia

        # x_{t+1} = x_t + dt dx_t and dx_{t+1} = dx_t + dt ddx_t: sums over what comes later.
        a_ddx = _sum_after(_sum_after(weight * x)).mul_(2 * POSITION_COST * dt * dt * k)  # of ddx / k
        # a_w_t = in_w_t + keep_t a_w_{t+1} + a_dth_{t+1} and a_dth_t = in_th_t + turn_t a_w_{t+1} + a_dth_{t+1}, with
        # a_dth = dt a_th, so that no step needs a number.
        in_th = (weight * s).addcmul_(a_ddx, ddx_th).mul_(dt)
        in_w = (a_ddx * ddx_w).mul_(2.0)
        keep, turn = 1.0 - (2.0 * dt) * dw_w, dw_th.mul_(dt * dt)
        a_w, a_dth = torch.zeros_like(w[0]), torch.zeros_like(w[0])
        nexts = []
        for columns in reversed(list(zip(*(t.unbind(0) for t in (in_w, keep, in_th, turn)), strict=True))):
            in_w_t, keep_t, in_th_t, turn_t = columns
            nexts.append(a_w)
            a_w, a_dth = in_w_t.addcmul_(a_w, keep_t).add_(a_dth), in_th_t.addcmul_(a_w, turn_t).add_(a_dth)
        a_w_next = torch.stack(nexts[::-1])  # of w_{t+1}
        a_u = (a_ddx * ddx_u).addcmul_(a_w_next, c_over_inertia, value=-dt).mul_(1.0 / (k * total))
        return None, a_u.addcmul_(weight, u, value=2 * FORCE_COST).t(), None


def _sum_before(rows: Tensor) -> Tensor:
    """[H, R] -> at t, the sum of rows 0 to t - 1."""
    return torch.cumsum(rows, 0) - rows


def _sum_after(rows: Tensor) -> Tensor:
    """[H, R] -> at t, the sum of rows t + 1 on."""
    return rows.sum(0) - torch.cumsum(rows, 0)
