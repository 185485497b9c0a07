import dataclasses
import math

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.cartpole_embedding.control import control
from parsecrl.algorithms.cartpole_embedding.dynamics import make_dynamics
from parsecrl.algorithms.cartpole_embedding.embedding import (
    EmbeddingLearner,
    make_expert,
    plan_costs,
    validation_states,
)
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.models.cartpole import cartpole
from parsecrl.algorithms.models.pendulum import pendulum
from parsecrl.algorithms.training.seeding import derive_seed

SMALL = EmbeddingSettings(
    controller={"num_samples": 20, "num_elites": 4, "num_iterations": 3, "horizon": 6},
    decoder={"hidden_size": 16},
    validation_states=4,
    states_per_update=3,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(settings: EmbeddingSettings, **changes) -> EmbeddingSettings:
    """With other values, of groups by `group__key`."""
    data = settings.model_dump()
    for name, value in changes.items():
        group, _, key = name.rpartition("__")
        (data[group] if group else data)[key] = value
    return EmbeddingSettings.checked(data)


def learner(settings: EmbeddingSettings = SMALL, **changes) -> EmbeddingLearner:
    return EmbeddingLearner(cartpole(), changed(settings, **changes), seed=0)


def flat(tensors) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_gradient_of_the_loss_is_the_finite_difference(temperature: float):
    """Through the search, with fixed noise, in every parameter of a decoder in float64."""
    it = learner(decoder__hidden_size=4, controller__temperature=temperature)
    it.controller.double()
    states = it.dynamics.sample_states(2, seeded(0)).double()
    noise = torch.randn(3, 2, 20, 2, generator=seeded(1), dtype=torch.float64)
    grads = flat(torch.autograd.grad(it.loss(states, noise=noise), it.parameters))
    numeric = torch.empty_like(grads)
    i, step = 0, 1e-6
    with torch.no_grad():
        for p in it.parameters:
            for j in range(p.numel()):
                values = []
                for sign in (1, -1):
                    p.view(-1)[j] += sign * step
                    values.append(it.loss(states, noise=noise).item())
                    p.view(-1)[j] -= sign * step
                numeric[i] = (values[0] - values[1]) / (2 * step)
                i += 1
    assert (grads - numeric).abs().max() <= 1e-5 * numeric.abs().max()


def test_temperature_zero_differentiates_at_the_minimum_only():
    it = learner(controller__temperature=0.0)
    states = it.dynamics.sample_states(2, seeded(0))
    noise = torch.randn(3, 2, 20, 2, generator=seeded(1))
    grads = torch.autograd.grad(it.loss(states, noise=noise), it.parameters)
    with torch.no_grad():
        z = it.plan(states, noise=noise).mean
    actions = it.controller.decode(z, it.dynamics.belief(states))
    expected = torch.autograd.grad(plan_costs(it.dynamics, states, actions).mean(), it.parameters)
    torch.testing.assert_close(flat(grads), flat(expected))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_an_update_lowers_the_cost_of_the_solution_that_it_was_computed_at(temperature: float):
    """The same z, decoded before and after `update`, on the states and draws that it made."""
    it = learner(controller__temperature=temperature, learning_rate=1e-5)
    for i in range(10):
        generator = seeded(derive_seed(it.seed, "update", i))
        states = it.dynamics.sample_states(3, generator)
        with torch.no_grad():
            plan = it.plan(states, generator)
        before = it.update()
        torch.testing.assert_close(before, plan_costs(it.dynamics, states, plan.actions).mean(), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            actions = it.controller.decode(plan.mean, it.dynamics.belief(states))
            assert plan_costs(it.dynamics, states, actions).mean() < before


def test_fast_and_general_paths_learn_the_same_numbers():
    fast = learner(SMALL)
    general = EmbeddingLearner(dataclasses.replace(cartpole(), fused_costs=None), SMALL, seed=0)
    losses = [(fast.update().item(), general.update().item()) for _ in range(5)]
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)
    torch.testing.assert_close(flat(fast.parameters), flat(general.parameters), rtol=1e-3, atol=1e-4)


def test_decoder_is_the_papers():
    it = EmbeddingLearner(cartpole(), EmbeddingSettings(), 0)
    shapes = [tuple(p.shape) for p in it.parameters if p.dim() == 2]
    assert shapes == [(256, 2), (256, 256), (256, 256), (20, 256)]
    for p in it.parameters:
        if p.dim() == 2:
            assert p.std().item() == pytest.approx(2 / math.sqrt(sum(p.shape)), rel=0.08)
        else:
            assert (p == 0).all()


def test_learning_rate_halves_when_validation_stops_improving():
    it = learner(patience=2)
    it.best_cost = -1e9
    rates = []
    for _ in range(5):
        assert not it.validate().improved
        rates.append(it.learning_rate)
    assert rates == [5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4]
    it.best_cost = math.inf
    assert it.validate().improved
    assert it.validations_since_best == 0


def test_validation_is_the_same_for_every_seed_and_draws_nothing_from_training():
    a, b = learner(), EmbeddingLearner(cartpole(), SMALL, seed=5)
    assert torch.equal(a.validation_states, b.validation_states)
    twice = [a.validate().costs for _ in range(2)]
    assert torch.equal(*twice)
    assert not torch.equal(flat(a.parameters), flat(b.parameters))
    c = learner()
    assert torch.equal(a.update(), c.update())


def test_continued_training_is_the_uninterrupted_one():
    whole, first = learner(), learner()
    for _ in range(3):
        whole.update(), first.update()
        whole.validate(), first.validate()
    second = EmbeddingLearner(cartpole(), SMALL, seed=0)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert torch.equal(whole.update(), second.update())
    assert torch.equal(flat(whole.parameters), flat(second.parameters))
    assert second.num_updates == 6


@pytest.mark.learn
@pytest.mark.parametrize("system", [cartpole, pendulum])
def test_learns_one_state_to_the_experts_cost(system):
    """Known answers: the expert's plan beats doing nothing by far, and an overfitted embedding is as good."""
    dynamics = system()
    state = validation_states(dynamics, 1)
    dynamics = dataclasses.replace(dynamics, sample_states=lambda count, generator: state.expand(count, -1))
    settings = EmbeddingSettings(
        controller={"num_samples": 40, "num_elites": 5, "num_iterations": 5},
        decoder={"hidden_size": 64},
        learning_rate=3e-3,
    )
    expert = make_expert(dynamics, changed(settings, expert__num_samples=1000, expert__num_elites=50))
    plan = expert.plan(dynamics, dynamics.belief(state), generator=seeded(0))
    best = plan_costs(dynamics, state, plan.actions).item()
    nothing = plan_costs(dynamics, state, torch.zeros_like(plan.actions)).item()
    assert best < nothing - 1
    it = EmbeddingLearner(dynamics, settings, seed=0)
    untrained = it.loss(state, seeded(0)).item()
    for _ in range(80):
        it.update()
    trained = it.loss(state, seeded(0)).item()
    assert trained < best + 0.1 * (nothing - best)
    assert trained <= untrained


def test_a_gradient_that_is_not_finite_is_explained():
    dynamics = pendulum()
    calls = []

    def cost(state: Tensor, action: Tensor) -> Tensor:
        calls.append(1)
        bad = math.nan if len(calls) > 3 else 1.0
        return state[..., 0] * bad

    broken = dataclasses.replace(dynamics, cost=cost, name="mine")
    with pytest.raises(ValueError, match=r"mine: cost must return finite floating-point numbers.* in step"):
        EmbeddingLearner(broken, SMALL, 0).update()
    calls.clear()
    with pytest.raises(ValueError, match=r"mine: cost must return finite floating-point numbers.* in step"):
        EmbeddingLearner(dataclasses.replace(dynamics, cost=cost, name="mine"), SMALL, 0).validate()
    calls.clear()
    with pytest.raises(ValueError, match="mine: cost must return finite"):
        control(dataclasses.replace(dynamics, cost=cost, name="mine"), None, torch.ones(1, 3), 9, seeded(0))
    rooted = dataclasses.replace(
        dynamics, name="rooted", cost=lambda s, a: (s[..., 0] * 0 + action_root(a)) + s[..., 0] * 0
    )
    with pytest.raises(FloatingPointError, match="rooted's costs are; lower learning_rate"):
        EmbeddingLearner(rooted, SMALL, 0).update()


def action_root(action: Tensor) -> Tensor:
    return (action[..., 0] * 0).sqrt()  # finite, with a derivative of 0 times infinity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controller__latent_size": 0}, r"controller\.latent_size must be greater than or equal to 1, got 0"),
        ({"controller__num_samples": 2.5}, r"controller\.num_samples must be a valid integer, got 2\.5"),
        ({"controller__temperature": -1.0}, r"controller\.temperature must be greater than or equal to 0"),
        ({"controller__temperature": math.nan}, r"controller\.temperature must be a finite number"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"controller__num_elites": 20}, r"controller: num_elites must lie in \[1, num_samples\)"),
        ({"expert__num_elites": 100}, r"expert: num_elites must lie in \[1, num_samples\)"),
    ],
)
def test_settings_out_of_range(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        changed(SMALL, **changes)


def test_unknown_dynamics_name_the_choices():
    with pytest.raises(ValueError, match=r"cartpole, pendulum, or module:function, got 'acrobot'"):
        make_dynamics("acrobot")
    with pytest.raises(ValueError, match=r"dynamics 'builtins:list' must return KnownDynamics, got list"):
        make_dynamics("builtins:list")
    with pytest.raises(ValueError, match=r"dynamics 'no_module_of_mine:f' cannot be imported"):
        make_dynamics("no_module_of_mine:f")
