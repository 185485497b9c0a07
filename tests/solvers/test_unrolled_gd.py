import math

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.solvers import unrolled_gd

CURVATURE = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)


def quadratic(centre: Tensor):
    """E = 1/2 sum_i c_i (y_i - centre_i)^2, one centre a problem [B, n]."""
    return lambda y: 0.5 * (CURVATURE * (y - centre.unsqueeze(1)).square()).sum(-1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_quadratic_contracts_by_its_closed_form():
    centre, init = randn(4, 3), randn(4, 3, seed=1)
    descent = unrolled_gd(quadratic(centre), init, 0.1, 7, keep_history=True)
    assert descent.history.shape == (8, 4, 3)
    for t in range(8):
        exact = centre + (1 - 0.1 * CURVATURE) ** t * (init - centre)
        torch.testing.assert_close(descent.history[t], exact)
    assert torch.equal(descent.history[-1], descent.mean)


def test_reaches_a_known_minimiser():
    centre = randn(4, 3)
    assert (unrolled_gd(quadratic(centre), torch.zeros_like(centre), 0.2, 200).mean - centre).abs().max() < 1e-8


def test_gradient_is_that_of_the_closed_form():
    centre, init = randn(2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    answer = unrolled_gd(quadratic(centre), init, 0.1, 5).mean
    by_centre, by_init = torch.autograd.grad(answer.sum(), (centre, init))
    left = (1 - 0.1 * CURVATURE) ** 5
    torch.testing.assert_close(by_init, left.expand(2, 3))
    torch.testing.assert_close(by_centre, (1 - left).expand(2, 3))


def test_gradients_of_a_curved_objective_against_finite_differences():
    def solve(theta: Tensor, init: Tensor) -> Tensor:
        return unrolled_gd(
            lambda y: (theta * y.square() + (theta * y).sin() + y.square().square()).sum(-1), init, 0.05, 4
        ).mean

    theta, init = randn(3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(solve, (theta, init))
    assert torch.autograd.gradgradcheck(solve, (theta, init))


def test_problems_never_influence_each_other():
    def bumpy(centre: Tensor):
        return lambda y: ((3 * (y - centre.unsqueeze(1))).sin() + 0.2 * y.square()).sum(-1)

    centre, init = randn(5, 3), randn(5, 3, seed=1)
    together = unrolled_gd(bumpy(centre), init, 0.1, 20).mean
    for b in range(5):
        alone = unrolled_gd(bumpy(centre[b : b + 1]), init[b : b + 1], 0.1, 20).mean
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-12, atol=1e-12)
    centre.requires_grad_()
    (g,) = torch.autograd.grad(unrolled_gd(bumpy(centre), init, 0.1, 5).mean[2].sum(), centre)
    assert (g[[0, 1, 3, 4]] == 0).all()
    assert (g[2] != 0).all()


def test_create_graph_follows_the_grad_mode():
    centre = randn(1, 3).requires_grad_()
    init = torch.zeros(1, 3, dtype=torch.float64)
    with_graph = unrolled_gd(quadratic(centre), init).mean
    assert with_graph.requires_grad
    assert not unrolled_gd(quadratic(centre), init, create_graph=False).mean.requires_grad
    with torch.no_grad():
        without = unrolled_gd(quadratic(centre), init).mean
        assert not without.requires_grad
        assert unrolled_gd(quadratic(centre), init, create_graph=True).mean.requires_grad
    assert torch.equal(with_graph, without)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"init": torch.zeros(3)}, r"init must be a tensor \[B, n\]"),
        ({"init": torch.zeros(1, 3, dtype=torch.long)}, "float32 or float64"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
        ({"num_iterations": 0}, "num_iterations must be an integer of 1 or more"),
        ({"num_iterations": True}, "num_iterations must be an integer of 1 or more"),
        ({"objective": lambda y: y.square()}, r"shape \(2, 1\), got shape \(2, 1, 3\)"),
        ({"objective": lambda y: 1.0}, r"shape \(2, 1\), got float"),
        ({"objective": lambda y: y.detach().sum(-1)}, "differentiable in its points"),
        ({"objective": lambda y: torch.ones(2, 1, requires_grad=True)}, "differentiable in its points"),
        ({"objective": lambda y: (y * math.nan).sum(-1)}, "2 of 2 descents left the finite numbers"),
        ({"objective": lambda y: -y.exp().exp().sum(-1)}, "lower learning_rate"),
    ],
)
def test_errors_name_the_rule(change: dict, rule: str):
    arguments = {"objective": lambda y: y.square().sum(-1), "init": torch.zeros(2, 3), **change}
    with pytest.raises(ValueError, match=rule):
        unrolled_gd(**arguments)
