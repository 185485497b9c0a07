"""iCEM and MPPI as controllers: their memory from decision to decision, their counts, and how good their plans are."""

import pytest
import torch

from parsecrl.algorithms.controllers import (
    FullSpaceController,
    ICEMController,
    MPPIController,
    PlanningAgent,
    make_controller,
)
from parsecrl.algorithms.models import RSSM, Belief
from parsecrl.algorithms.models.pendulum import pendulum
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.algorithms.registry.search_sizes import trajectories

H, A, OBS = 5, 2, 4
SIZES = {"deterministic_size": 12, "stochastic_size": 3, "hidden_size": 12}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model() -> RSSM:
    torch.manual_seed(0)
    return RSSM(OBS, A, **SIZES)


def beliefs(B: int) -> Belief:
    return Belief(torch.randn(B, 12, generator=seeded(0)).tanh(), torch.randn(B, 3, generator=seeded(1)))


def counting(model: RSSM) -> list[int]:
    """The candidates a belief of each call of the model's rollout, from now on."""
    counts, before = [], model.predict_rewards

    def counted(belief: Belief, actions: torch.Tensor) -> torch.Tensor:
        counts.append(actions.shape[1])
        return before(belief, actions)

    model.predict_rewards = counted
    return counts


def test_a_shift_moves_the_mean_and_the_kept_elites_on():
    controller, model, belief = ICEMController(H, A, 30, 10), small_model(), beliefs(3)
    plan = controller.plan(model, belief, generator=seeded(2))
    assert plan.carried.shape == (3, 1 + 3, H * A)
    shifted = controller.shift(plan, belief)
    assert shifted.shape == (3, controller.warm_start_size) == (3, 4 * H * A)
    before, after = plan.carried.unflatten(2, (H, A)), shifted.view(3, 4, H, A)
    assert torch.equal(after[:, :, :-1], before[:, :, 1:])
    assert torch.equal(after[:, :, -1], before[:, :, -1])
    cost = controller.cost(model, belief, plan.carried[:, 1:])
    assert (cost.diff(dim=1) >= -1e-4).all()  # the best first


def test_the_next_plan_tries_what_was_moved_on():
    controller, model, belief = ICEMController(H, A, 30, 10), small_model(), beliefs(3)
    warm = controller.shift(controller.plan(model, belief, generator=seeded(2)), belief)
    plan = controller.plan(model, belief, warm, generator=seeded(3), keep_history=True)
    samples = plan.history[0].samples  # those drawn around the mean, then those that were kept
    torch.testing.assert_close(samples[:, 30:], warm.view(3, 4, -1)[:, 1:].clamp(-1, 1))
    assert (samples[:, :30].mean(1) - warm[:, : H * A]).abs().mean() < 0.15


def test_an_answer_is_the_best_of_all_that_was_tried():
    model, belief = small_model(), beliefs(3)
    plan = ICEMController(H, A, 30, 10).plan(model, belief, generator=seeded(2), keep_history=True)
    costs = torch.cat([iteration.costs for iteration in plan.history], 1)
    answer = ICEMController(H, A, 30, 10).cost(model, belief, plan.mean[:, None])[:, 0]
    torch.testing.assert_close(answer, costs.amin(1), rtol=1e-4, atol=1e-4)
    mean = ICEMController(H, A, 30, 10, return_best=False).plan(model, belief, generator=seeded(2))
    torch.testing.assert_close(mean.mean, mean.carried[:, 0])


@pytest.mark.parametrize(
    "controller",
    [
        {"kind": "icem"},
        {"kind": "icem", "num_samples": 64, "decay": 2.0, "kept_fraction": 0.5},
        {"kind": "icem", "warm_start": False, "return_best": False},
        {"kind": "mppi"},
        {"kind": "full", "num_samples": 50, "num_elites": 5},
        {"kind": "embedded", "decay": 1.5, "kept_fraction": 1.0},
    ],
)
def test_what_is_counted_is_what_the_model_rolls_out(controller):
    model, group = small_model(), PlanetSettings(controller=controller).controller.plain()
    made = make_controller(model, group, {"hidden_size": 8})
    counts = counting(model)
    warm = torch.zeros(1, made.warm_start_size) if made.warm_start else None
    with torch.no_grad():
        made.plan(model, Belief(torch.zeros(1, 12), torch.zeros(1, 3)), warm, generator=seeded(0))
    assert sum(counts) == made.trajectories == trajectories(group)


@pytest.mark.parametrize("kind", ["icem", "mppi"])
@pytest.mark.parametrize("warm_start", [True, False])
def test_an_agent_carries_the_memory_from_decision_to_decision(kind, warm_start):
    torch.manual_seed(0)
    group = {"kind": kind, "horizon": H, "num_samples": 30, "num_elites": 10, "warm_start": warm_start}
    agent = PlanningAgent(OBS, A, SIZES, group)
    state = agent.initial_state(2)
    for i in range(3):
        before = state["plan"]
        action, state = agent.act(state, torch.randn(2, OBS, generator=seeded(i)), seeded(i))
        assert action.shape == (2, A)
        assert action.abs().max() <= 1
        assert state["plan"].shape == before.shape
        assert not torch.equal(state["plan"], before)


def test_noise_of_icem_is_smooth_over_a_plan():
    controller, model, belief = ICEMController(20, A, 500, 10, init_std=0.2), small_model(), beliefs(1)
    u = controller.plan(model, belief, generator=seeded(0), keep_history=True).history[0].samples.view(500, 20, A)
    change = u.diff(dim=1).square().mean() / (2 * u.var())
    assert change < 0.3  # of white noise: 1


# How good plans are, at equal evaluations, in a model whose dynamics are known


@pytest.mark.learn
def test_with_a_memory_and_smooth_noise_a_pendulum_swings_up_at_less_cost():
    """Closed loop, 60 decisions of 60 evaluations each, against CEM and random search."""
    system, horizon = pendulum(), 15

    def cost(controller) -> float:
        generator = seeded(0)
        state, warm, total = system.sample_states(16, generator), None, 0.0
        for _ in range(60):
            belief = system.belief(state)
            if controller is None:
                u = 2 * torch.rand(16, 60, horizon, 1, generator=generator) - 1
                best = system.predict_rewards(belief, u).sum(-1).argmax(1)
                action = u[torch.arange(16), best, 0]
            else:
                plan = controller.plan(system, belief, warm, generator=generator)
                warm, action = controller.shift(plan, belief), plan.actions[:, 0]
            total += system.cost(state, system.scale(action)).mean().item()
            state = system.transition(state, system.scale(action))
        return total

    searches = {
        "cem": FullSpaceController(horizon, 1, 20, 4, 3, warm_start=True),
        "icem": ICEMController(horizon, 1, 24, 4, 3, init_std=1.0),
        "mppi": MPPIController(horizon, 1, 20, 6, 3),
    }
    assert all(abs(c.trajectories - 60) <= 1 for c in searches.values())
    costs = {name: cost(c) for name, c in searches.items()}
    random = cost(None)
    assert costs["icem"] < costs["cem"] < random
    assert costs["mppi"] < random


def test_temperature_has_a_range_and_kinds_are_known():
    with pytest.raises(ValueError, match="above 0 with selection: softmax"):
        PlanetSettings.checked({"controller": {"kind": "embedded", "selection": "softmax", "temperature": 0.0}})
    with pytest.raises(ValueError, match="kept_fraction"):
        ICEMController(H, A, kept_fraction=1.5)
    with pytest.raises(ValueError, match="temperature must be positive"):
        MPPIController(H, A, temperature=0.0).plan(small_model(), beliefs(1), generator=seeded(0))
