import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from parsecrl.algorithms.models.squashed_gaussian import LOG_STD_RANGE, squashed_mean, squashed_sample


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_actions_and_densities_are_those_of_torchs_transformed_distribution():
    raw, eps = 0.7 * randn(20, 6), randn(20, 3, seed=1)
    action, log_prob = squashed_sample(raw, eps)
    mean, log_std = raw.chunk(2, -1)
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * eps))
    expected = Independent(TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform()), 1)
    torch.testing.assert_close(log_prob, expected.log_prob(action))
    torch.testing.assert_close(squashed_mean(raw), torch.tanh(mean))


def test_the_density_integrates_to_one():
    raw = torch.tensor([[0.4, math.log(0.6)]], dtype=torch.float64)
    eps = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    action, log_prob = squashed_sample(raw.expand(len(eps), 2), eps)
    assert torch.trapezoid(log_prob.exp(), action[:, 0]).item() == pytest.approx(1.0, abs=1e-5)


def test_gradients_are_right_and_finite_where_tanh_saturates():
    raw, eps = randn(4, 4).requires_grad_(), randn(4, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: squashed_sample(x, eps), raw)
    far = torch.tensor([[80.0, LOG_STD_RANGE[1] + 5], [-80.0, LOG_STD_RANGE[0] - 5]]).requires_grad_()
    action, log_prob = squashed_sample(far, torch.ones(2, 1))
    (gradient,) = torch.autograd.grad(log_prob.sum(), far)
    assert action.tolist() == [[1.0], [-1.0]]
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient[:, 1] == 0).all()  # clamped
