import math

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.solvers import dcem
from parsecrl.algorithms.solvers.candidate_pruning import most_influential
from parsecrl.algorithms.solvers.lml import lml_projection

THETA = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl(theta: Tensor):
    return lambda x: (x - theta).square().sum(-1) + 0.3 * torch.sin(4 * x * theta).sum(-1)


def solve(theta: Tensor, keep_fraction: float, objective=None, **options):
    settings = {"num_samples": 24, "num_elites": 4, "num_iterations": 4, "noise": randn(4, 2, 24, 3)} | options
    start = torch.zeros(2, 3, dtype=torch.float64)
    return dcem(objective or bowl(theta), start, 1.0, keep_fraction=keep_fraction, **settings)  # type: ignore[arg-type]


def gradient(keep_fraction: float, **options) -> Tensor:
    theta = THETA.clone().requires_grad_()
    solution = solve(theta, keep_fraction, **options)
    weights = torch.arange(1, 7, dtype=torch.float64).reshape(2, 3)
    return torch.autograd.grad((solution.mean * weights).sum() + solution.std.sum(), theta)[0]


@pytest.mark.parametrize("normalize", [False, True])
def test_influence_is_the_length_of_the_jacobians_columns(normalize: bool):
    """By brute force: the mean's derivative in every cost, in standard deviations of the samples."""
    x, costs = randn(1, 12, 3), randn(1, 12, seed=1)

    def refit(costs: Tensor) -> Tensor:
        scores = -(costs - costs.mean()) / costs.std(correction=0) if normalize else -costs
        return (lml_projection(scores, 3).unsqueeze(-1) * x).sum(1)[0] / x.std(1)[0]

    columns = torch.autograd.functional.jacobian(refit, costs)[:, 0].norm(dim=0)  # [12]
    scores = -(costs - costs.mean()) / costs.std(correction=0) if normalize else -costs
    for kept in (1, 4, 11):
        found = most_influential(x, scores, lml_projection(scores, 3), kept, normalize)
        assert set(found[0].tolist()) == set(columns.topk(kept).indices.tolist())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_answer_does_not_depend_on_what_is_kept(checkpoint: bool):
    exact = solve(THETA.clone().requires_grad_(), 1.0)
    for fraction in (0.9, 0.3, 0.01):
        dropped = solve(THETA.clone().requires_grad_(), fraction, checkpoint=checkpoint)
        assert torch.equal(exact.mean, dropped.mean)
        assert torch.equal(exact.std, dropped.std)


def test_gradient_is_that_of_costs_that_are_constant_but_for_the_kept():
    theta = THETA.clone().requires_grad_()
    noise = randn(1, 1, 12, 3)
    options = {"num_samples": 12, "num_elites": 3, "num_iterations": 1, "noise": noise}
    x = noise[0].expand(2, -1, -1)
    costs = bowl(theta)(x)
    normalized = (costs - costs.mean(1, keepdim=True)) / costs.std(1, correction=0, keepdim=True)
    kept = most_influential(x, -normalized.detach(), lml_projection(-normalized.detach(), 3), 5, True)
    mask = torch.zeros(2, 12, dtype=torch.bool).scatter(1, kept, True)

    def by_hand(z: Tensor) -> Tensor:
        c = bowl(theta)(z)
        return torch.where(mask, c, c.detach())

    (expected,) = torch.autograd.grad(solve(theta, 1.0, by_hand, **options).mean.sum(), theta)
    (got,) = torch.autograd.grad(solve(theta, 5 / 12, **options).mean.sum(), theta)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_more_kept_is_nearer_to_the_exact_gradient(normalize: bool, checkpoint: bool):
    options = {"normalize": normalize, "checkpoint": checkpoint, "temperature": 0.5}
    exact = gradient(1.0, **options)
    cosines = [torch.cosine_similarity(gradient(f, **options), exact, dim=0).item() for f in (0.999, 0.7, 0.1)]
    assert cosines[0] == pytest.approx(1, abs=1e-9)  # rounded up to all 24
    assert cosines[1] > 0.97
    assert cosines[1] > cosines[2] > 0.3


def test_only_the_kept_are_evaluated_with_a_graph():
    sizes, theta = [], THETA.clone().requires_grad_()

    def cost(x: Tensor) -> Tensor:
        sizes.append((x.shape[1], torch.is_grad_enabled()))
        return bowl(theta)(x)

    solve(THETA, 0.25, cost, num_iterations=2, noise=randn(2, 2, 24, 3))
    assert sizes == [(24, False), (6, True)] * 2
    sizes.clear()
    with torch.no_grad():
        solve(THETA, 0.25, cost, num_iterations=2, noise=randn(2, 2, 24, 3))
    assert sizes == [(24, False)] * 2


def test_a_candidate_without_finite_cost_adds_no_gradient():
    theta = THETA.clone().requires_grad_()

    def cost(x: Tensor) -> Tensor:
        return torch.sqrt(x[..., 0] * theta[0] + 0.5) + (x - theta).square().sum(-1)  # NaN, with an infinite slope

    for fraction in (0.9, 0.2):
        solution = solve(theta, fraction, cost)
        (grad,) = torch.autograd.grad(solution.mean.sum(), theta)
        assert grad.isfinite().all()
        assert (grad != 0).all()


@pytest.mark.parametrize("keep_fraction", [0.0, -0.1, 1.1, math.nan, True])
def test_fraction_out_of_range(keep_fraction: float):
    with pytest.raises(ValueError, match=r"keep_fraction must lie in \(0, 1\]"):
        solve(THETA, keep_fraction)
