import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.models.cartpole import CartpoleConstants, cartpole
from parsecrl.algorithms.models.known_dynamics import KnownDynamics
from parsecrl.algorithms.models.pendulum import pendulum

SYSTEMS = {"cartpole": cartpole, "pendulum": pendulum}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states_and_actions(system: KnownDynamics, B: int, N: int, H: int) -> tuple[Tensor, Tensor]:
    states = system.sample_states(B, seeded(0)).double()
    angle = slice(2, 4) if system.name == "cartpole" else slice(0, 2)
    states[:, angle] /= states[:, angle].norm(dim=-1, keepdim=True)  # float32's rounding is no angle
    return states, 2 * torch.rand(B, N, H, system.action_size, generator=seeded(1), dtype=torch.float64) - 1


# -- the equations, integrated independently


def cartpole_acceleration(th: float, w: float, force: float) -> tuple[float, float]:
    """(ddx, ddth) from the two Lagrange equations of a cart with a uniform rod, solved as a linear system."""
    g, cart, pole, half = 9.8, 1.0, 0.1, 0.5
    # (M + m) ddx + m l cos ddth = F + m l w^2 sin;   m l cos ddx + (4/3) m l^2 ddth = m g l sin
    mass = np.array([[cart + pole, pole * half * math.cos(th)], [pole * half * math.cos(th), 4 / 3 * pole * half**2]])
    forces = np.array([force + pole * half * w**2 * math.sin(th), pole * g * half * math.sin(th)])
    ddx, ddth = np.linalg.solve(mass, forces)
    return float(ddx), float(ddth)


def pendulum_acceleration(th: float, w: float, torque: float) -> tuple[float, float]:
    # a rod of 1 kg and 1 m about its end: inertia 1/3, weight at 1/2
    return 0.0, (torque + 10.0 * 0.5 * math.sin(th)) / (1 / 3)


def integrate(acceleration: Callable, start: np.ndarray, force: float, seconds: float, steps: int) -> np.ndarray:
    """Classic Runge-Kutta on (x, dx, th, dth)."""

    def slope(y: np.ndarray) -> np.ndarray:
        ddx, ddth = acceleration(y[2], y[3], force)
        return np.array([y[1], ddx, y[3], ddth])

    y, h = start, seconds / steps
    for _ in range(steps):
        a = slope(y)
        b = slope(y + h / 2 * a)
        c = slope(y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c))
    return y


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_dynamics_converge_to_the_differential_equation(name: str, monkeypatch: pytest.MonkeyPatch):
    """Half a second under a constant force: the error falls with the step as a first-order method's, to little."""
    errors = []
    for steps in (10, 100, 1000):
        dt = 0.5 / steps
        if name == "cartpole":
            system, acceleration, force = cartpole(CartpoleConstants(dt=dt)), cartpole_acceleration, 4.0
        else:
            monkeypatch.setattr("parsecrl.algorithms.models.pendulum.DT", dt)
            system, acceleration, force = pendulum(), pendulum_acceleration, 1.5
        state, _ = states_and_actions(system, 1, 1, 1)
        cart = name == "cartpole"
        x, dx = (state[0, 0].item(), state[0, 1].item()) if cart else (0.0, 0.0)
        c, s, w = (v.item() for v in state[0, -3:])
        exact = integrate(acceleration, np.array([x, dx, math.atan2(s, c), w]), force, 0.5, 2000)
        for _ in range(steps):
            state = system.transition(state, torch.tensor([[force]], dtype=torch.float64))
        got = [*(state[0, :2].tolist() if cart else [0.0, 0.0]), *state[0, -3:].tolist()]
        want = [exact[0], exact[1], math.cos(exact[2]), math.sin(exact[2]), exact[3]]
        errors.append(max(abs(a - b) for a, b in zip(got, want, strict=True)))
    assert 5 < errors[0] / errors[1] < 20
    assert 8 < errors[1] / errors[2] < 12
    assert errors[2] < 0.02


def test_cost_by_hand():
    state = torch.tensor([[2.0, 5.0, math.cos(1.0), math.sin(1.0), 3.0]])
    torch.testing.assert_close(
        cartpole().cost(state, torch.tensor([[30.0]])), torch.tensor([-math.cos(1.0) + 0.1 * 4 + 1e-5 * 900])
    )


def test_initial_states_fill_their_ranges():
    states = cartpole().sample_states(4000, seeded(0))
    angle = torch.atan2(states[:, 3], states[:, 2])
    for values, bound in ((states[:, 0], 0.5), (states[:, 1], 0.5), (angle, math.pi), (states[:, 4], 1.0)):
        assert values.abs().max() <= bound + 1e-6
        assert abs(values.mean()) < 0.05 * bound
        torch.testing.assert_close(values.std(), torch.tensor(bound / math.sqrt(3)), rtol=0.05, atol=0)


# -- the rollout


@pytest.mark.parametrize("name", SYSTEMS)
def test_rewards_are_the_pair_of_functions_stepped_by_hand(name: str):
    system = SYSTEMS[name]()
    states, actions = states_and_actions(system, 2, 3, 5)
    rewards = system.predict_rewards(system.belief(states), actions)
    assert rewards.shape == (2, 3, 5)
    low, high = system.low[0], system.high[0]
    for b in range(2):
        for n in range(3):
            state = states[b : b + 1]
            for t in range(5):
                u = low + (actions[b, n, t : t + 1] + 1) / 2 * (high - low)
                torch.testing.assert_close(rewards[b, n, t], -system.cost(state, u)[0])
                state = system.transition(state, u)


def test_fused_rollout_gives_the_same_numbers_and_gradients():
    fused = cartpole()
    plain = dataclasses.replace(fused, fused_costs=None)
    states, actions = states_and_actions(fused, 4, 6, 20)
    weight = torch.randn(4, 6, 20, generator=seeded(2), dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        results = []
        for system in (fused, plain):
            u = actions.to(dtype, copy=True).requires_grad_()
            rewards = system.predict_rewards(system.belief(states.to(dtype)), u)
            results.append((rewards.detach(), *torch.autograd.grad(rewards, u, weight.to(dtype))))
        for a, b in zip(*results, strict=True):
            assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_adjoint_is_the_finite_difference():
    system = cartpole()
    states, actions = states_and_actions(system, 2, 1, 6)
    belief = system.belief(states)
    assert torch.autograd.gradcheck(
        lambda u: system.predict_rewards(belief, u), (actions.requires_grad_(),), atol=1e-6, rtol=1e-5
    )


def test_gradient_in_the_state_and_in_the_constants():
    length = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    system = cartpole(CartpoleConstants(half_length=length))
    states, actions = states_and_actions(system, 1, 2, 5)
    states.requires_grad_()

    def total(states: Tensor, length: Tensor) -> Tensor:
        model = cartpole(CartpoleConstants(half_length=length))
        return model.predict_rewards(model.belief(states), actions).sum()

    assert torch.autograd.gradcheck(total, (states, length))


# -- what users give


def with_functions(**functions: Callable) -> KnownDynamics:
    return dataclasses.replace(pendulum(), name="mine", **functions)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"transition": lambda s, a: s[..., :2]}, r"mine: transition must .* shape \(4, 3\), got shape \(4, 2\)"),
        ({"cost": lambda s, a: s}, r"mine: cost must .* shape \(4,\), got shape \(4, 3\)"),
        ({"cost": lambda s, a: 1.0}, r"mine: cost must .* shape \(4,\), got float"),
        ({"cost": lambda s, a: s[..., 0] * math.nan}, r"mine: cost must .* shape \(4,\), got NaN"),
        ({"transition": lambda s, a: s / 0}, r"mine: transition must .* shape \(4, 3\), got NaN or infinity"),
        ({"sample_states": lambda n, g: torch.zeros(n, 2)}, r"sample_states must .* \(4, 3\), got shape \(4, 2\)"),
        ({"low": (2.0,)}, r"mine: each lower bound"),
        ({"high": (2.0, 3.0)}, r"mine: low and high must have one number for each of the 1 actions"),
        ({"state_size": 0}, r"mine: state_size must be an integer of 1 or more, got 0"),
    ],
)
def test_bad_functions_are_named_with_the_shape_that_they_should_have(functions: dict, message: str):
    with pytest.raises(ValueError, match=message):
        with_functions(**functions)


def test_a_function_that_goes_bad_later_is_named_with_its_step():
    calls = []

    def cost(state: Tensor, action: Tensor) -> Tensor:
        calls.append(1)
        return state[..., 0] * (math.nan if len(calls) > 5 else 1.0)

    system = with_functions(cost=cost)
    states, actions = states_and_actions(system, 2, 1, 8)
    calls.clear()
    with pytest.raises(ValueError, match=r"mine: cost must .* shape \(2,\), got NaN or infinity in step 6 of 8"):
        system.check_rollout(states, actions[:, 0])


def test_a_shape_that_depends_on_the_number_of_axes():
    system = with_functions(cost=lambda s, a: s[:, 0])
    states, actions = states_and_actions(system, 2, 5, 4)
    with pytest.raises(ValueError, match=r"cost must return one cost for each state.* \(2, 5\), got shape \(2, 3\)"):
        system.predict_rewards(system.belief(states), actions)


def test_states_of_another_size():
    with pytest.raises(ValueError, match=r"\[B, 5\], got \(2, 4\)"):
        cartpole().belief(torch.zeros(2, 4))
