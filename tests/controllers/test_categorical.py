"""Planning in latents: deduplication changes nothing, and the true dynamics give shortest paths."""

import gymnasium
import pytest
import torch
from torch import Tensor

import parsecrl.envs  # noqa: F401  registers the worlds
from parsecrl.algorithms.controllers import CategoricalController
from parsecrl.algorithms.models import (
    BetaVAE,
    DistinctGoalCost,
    EncoderOnly,
    GoalCost,
    LatentDynamics,
    ParsimoniousDynamics,
    RecurrentDynamics,
    StateSpaceModel,
    TrueDynamics,
)

SIZES = {"latent_size": 9, "hidden_size": 32}
MODELS = {
    "rotation": lambda: ParsimoniousDynamics(6, 5, "rotation", **SIZES),
    "translation": lambda: ParsimoniousDynamics(6, 5, "translation", **SIZES),
    "affine": lambda: ParsimoniousDynamics(6, 5, "affine", **SIZES),
    "period": lambda: ParsimoniousDynamics(6, 5, "translation", period=2.0, **SIZES),
    "vae": lambda: BetaVAE(6, 5, **SIZES),
    "rnn": lambda: RecurrentDynamics(6, 5, memory_size=16, **SIZES),
    "ssm": lambda: StateSpaceModel(6, 5, **SIZES),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(kind: str) -> LatentDynamics:
    torch.manual_seed(0)
    model = MODELS[kind]()
    if isinstance(model, ParsimoniousDynamics):  # as after training: many codes, and moves that matter
        with torch.no_grad():
            model.posterior_net[-1].weight.mul_(20)
            model.decoder[-1].weight.mul_(5)
    return model


def problems(model: LatentDynamics, B: int = 2) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        obs = torch.randn(2 * B, 6, generator=seeded(1))
        return model.begin(obs[:B]), model.encode(obs[B:])


@pytest.mark.parametrize("kind", MODELS)
def test_a_cost_is_the_sum_of_rewards_along_the_rollout(kind: str):
    model = make(kind)
    state, goal = problems(model)
    actions = torch.randint(5, (2, 6, 4), generator=seeded(2))
    costs = GoalCost(model, state, goal)(actions)
    for b in range(2):
        for n in range(6):
            current, total = state[b : b + 1], 0.0
            for action in actions[b, n]:
                current = model.predict(current, action[None])
                total += torch.exp(-model.distance(model.latent(current), goal[b : b + 1])).item()
            assert costs[b, n].item() == pytest.approx(-total, rel=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_plain_and_deduplicated_evaluation_give_the_same_plan(kind: str):
    model = make(kind)
    state, goal = problems(model)
    plans = []
    for deduplicate in (False, True):
        controller = CategoricalController(5, 6, 60, 12, 3, deduplicate)
        plans.append(controller.plan(model, state, goal, seeded(3), keep_history=True))
    plain, distinct = plans
    assert torch.equal(plain.actions, distinct.actions)
    torch.testing.assert_close(plain.logits, distinct.logits)
    for a, b in zip(plain.history, distinct.history, strict=True):
        assert torch.equal(a.actions, b.actions)
        torch.testing.assert_close(a.costs, b.costs)
    # what was evaluated, counted by brute force
    asked = torch.cat([step.actions for step in distinct.history], 1)  # [B, T N, H]
    prefixes = {(b, tuple(row[:h])) for b in range(2) for row in asked[b].tolist() for h in range(1, 7)}
    assert plain.num_asked == plain.num_evaluated == distinct.num_asked == asked.numel() == 2 * 60 * 6 * 3
    assert distinct.num_evaluated == len(prefixes) < distinct.num_asked
    if isinstance(model, ParsimoniousDynamics):
        parents = {(b, prefix): state[b : b + 1] for b, prefix in ((0, ()), (1, ()))}
        codes = set()
        for b, prefix in sorted(prefixes, key=lambda node: len(node[1])):
            before, action = parents[b, prefix[:-1]], torch.tensor(prefix[-1:])
            with torch.no_grad():
                codes.add((*model.codes(before, action).flatten().tolist(), prefix[-1]))
                parents[b, prefix] = model.predict(before, action)
        assert distinct.num_transformations == len(codes)
        assert len(codes) > 5
        assert plain.num_transformations == plain.num_asked


def test_a_search_remembers_prefixes_of_earlier_iterations():
    model = make("affine")
    state, goal = problems(model)
    cost = DistinctGoalCost(model, state, goal)
    actions = torch.randint(5, (2, 30, 5), generator=seeded(2))
    first = cost(actions)
    evaluated = cost.num_evaluated
    assert torch.equal(cost(actions), first)
    assert torch.equal(cost(actions.flip(1)), first.flip(1))
    assert cost.num_evaluated == evaluated
    assert cost.num_asked == 3 * actions.numel()


def test_the_true_dynamics_reach_the_goal_by_a_shortest_path_on_the_empty_grid():
    env = gymnasium.make("parsecrl/Gridworld-v0", start=(2, 1), goal=(5, 6)).unwrapped
    tables = env.observations, env.topology.transitions, env.topology.distances
    model = TrueDynamics(*(torch.from_numpy(table) for table in tables))
    controller, generator = CategoricalController(5), seeded(0)
    obs, info = env.reset()
    goal = model.encode(torch.from_numpy(info["goal_observation"])[None])
    state, rewards = model.begin(torch.from_numpy(obs)[None]), []
    for _ in range(11):
        plan = controller.plan(model, state, goal, generator)
        action = plan.actions[:, 0]
        obs, reward, *_ = env.step(int(action))
        state = model.observe(state, action, torch.from_numpy(obs)[None])
        rewards.append(reward)
    assert rewards == [-1.0] * 8 + [1.0] * 3  # 3 rows and 5 columns apart, and then it stays
    assert plan.num_evaluated < 0.7 * plan.num_asked


def test_what_cannot_be_planned_is_refused():
    model = make("affine")
    state, goal = problems(model)
    with pytest.raises(ValueError, match="planning needs a model that predicts, got EncoderOnly"):
        GoalCost(EncoderOnly(6, 5, **SIZES), state, goal)
    with pytest.raises(ValueError, match=r"states must be \[B, 9\] and goals \[B or 1, 9\], got \(2, 9\) and \(9,\)"):
        GoalCost(model, state, goal[0])
    with pytest.raises(ValueError, match=r"\[1, num_samples\), got 9 with num_samples=9"):
        CategoricalController(5, num_samples=9, num_elites=9).plan(model, state, goal)
