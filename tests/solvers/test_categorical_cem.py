import math

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.solvers import CategoricalNoise, categorical_cem, gumbel_noise

WANTED = torch.tensor([2, 0, 1, 1])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def misses(actions: Tensor) -> Tensor:
    """How many actions are not the wanted ones: [B, N, 4] -> [B, N]."""
    return (actions != WANTED).sum(-1).float()


def start(B: int = 2) -> Tensor:
    return torch.zeros(B, 4, 3)


# -- by hand


def test_an_iteration_is_algorithm_3_by_hand():
    mu, noise = torch.randn(2, 4, 3, generator=seeded(1)), gumbel_noise(2, start(), 9, seeded(0))
    solution = categorical_cem(misses, mu, 9, 3, 2, 0.5, noise=noise, keep_history=True)
    for b in range(2):
        current = mu[b]
        for t in range(2):
            w = [current + 0.5 * noise.normal[t, b, j] for j in range(9)]
            actions = [(w[j] + noise.gumbel[t, b, j]).argmax(-1) for j in range(9)]
            costs = [misses(a).item() for a in actions]
            elites = sorted(range(9), key=lambda j: (costs[j], j))[:3]
            current = sum(w[j] for j in elites) / 3
            found = solution.history[t]
            assert torch.equal(found.actions[b], torch.stack(actions))
            assert found.costs[b].tolist() == costs
            assert found.weights[b].nonzero().flatten().tolist() == sorted(elites)
            torch.testing.assert_close(found.logits[b], current)
        torch.testing.assert_close(solution.logits[b], current)
        assert torch.equal(solution.actions[b], current.argmax(-1))
    costs = torch.stack([step.costs for step in solution.history], 1).flatten(1)
    assert torch.equal(solution.best_costs, costs.amin(1))
    assert torch.equal(misses(solution.best_actions.unsqueeze(1)).squeeze(1), solution.best_costs)


def test_actions_are_drawn_from_the_softmax():
    logits = torch.tensor([[[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]]])
    drawn = []
    categorical_cem(lambda a: drawn.append(a) or 0.0 * a.sum(-1), logits, 40000, 5, 1, 0.0, seeded(0))
    for h in range(2):
        shares = torch.bincount(drawn[0][0, :, h], minlength=3) / 40000
        torch.testing.assert_close(shares, logits[0, h].softmax(-1), atol=0.01, rtol=0)


def test_reaches_a_known_optimum():
    solution = categorical_cem(misses, start(3), 200, 40, 15, generator=seeded(0))
    assert torch.equal(solution.actions, WANTED.expand(3, -1))
    assert torch.equal(solution.best_actions, WANTED.expand(3, -1))
    assert (solution.best_costs == 0).all()
    assert solution.history is None


# -- laws


def test_problems_are_independent_and_common_noise_is_shared():
    noise = gumbel_noise(3, start(3), 20, seeded(0))
    mu = torch.randn(3, 4, 3, generator=seeded(1))
    together = categorical_cem(misses, mu, 20, 5, 3, noise=noise)
    for b in range(3):
        row = CategoricalNoise(*(draws[:, b : b + 1] for draws in noise))
        alone = categorical_cem(misses, mu[b : b + 1], 20, 5, 3, noise=row)
        assert torch.equal(alone.logits[0], together.logits[b])
    common = CategoricalNoise(*(draws[:, :1] for draws in noise))
    same = categorical_cem(misses, start(3), 20, 5, 3, noise=common)
    assert torch.equal(same.logits[0], same.logits[2])


def test_same_seed_same_answer():
    a, b, c = (categorical_cem(misses, start(), 20, 5, 3, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(a.logits, b.logits)
    assert not torch.equal(a.logits, c.logits)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_candidate_without_finite_cost_is_never_elite(bad: float):
    def cost(actions: Tensor) -> Tensor:
        return torch.where(actions[..., 0] == 2, bad, misses(actions))

    solution = categorical_cem(cost, start(), 100, 10, 5, generator=seeded(0), keep_history=True)
    for step in solution.history:
        assert (step.weights.sum(1) == 10).all()
        assert (step.weights * (step.actions[..., 0] == 2)).sum() == 0
    assert (solution.best_actions[:, 0] != 2).all()


# -- errors


def test_too_few_finite_costs_names_the_iteration():
    calls = []

    def cost(actions: Tensor) -> Tensor:
        calls.append(1)
        costs = misses(actions)
        if len(calls) == 2:
            costs[1, 4:] = math.nan
        return costs

    with pytest.raises(ValueError, match=r"iteration 1 .* only 4 of 20 candidates, fewer than num_elites=5"):
        categorical_cem(cost, start(), 20, 5, 3, generator=seeded(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_logits": torch.zeros(4, 3)}, r"init_logits must be a tensor \[B, H, A\], got shape \(4, 3\)"),
        ({"init_logits": torch.zeros(1, 4, 0)}, "init_logits must be a tensor"),
        ({"num_elites": 20}, r"\[1, num_samples\), got 20 with num_samples=20"),
        ({"num_iterations": 0}, "num_iterations must be an integer of 1 or more, got 0"),
        ({"logit_std": -1.0}, "must be finite and 0 or more, got a minimum of -1"),
        ({"noise": gumbel_noise(2, start(), 20, None)}, r"noise.normal must be torch.float32 on cpu of shape \(3, 2"),
        ({"objective": lambda a: a.float()}, r"one cost each, a tensor of shape \(2, 20\), got shape \(2, 20, 4\)"),
        ({"objective": lambda a: None}, "got NoneType; sum the cost over the horizon"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str):
    settings = {"objective": misses, "init_logits": start(), "num_samples": 20, "num_elites": 5, "num_iterations": 3}
    with pytest.raises(ValueError, match=message):
        categorical_cem(**(settings | options))
