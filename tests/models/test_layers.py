import numpy as np
import pytest
import torch

from parsecrl.algorithms.models.layers import RunningNorm, mlp


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_running_norm_is_the_identity_before_its_first_update():
    x = torch.randn(5, 3, generator=seeded(0))
    assert torch.equal(RunningNorm(3)(x), x)


def test_running_norm_equals_numpy_over_batches_of_unequal_size():
    norm = RunningNorm(3)
    scale, shift = torch.tensor([1.0, 20.0, 0.3]), torch.tensor([0.0, -50.0, 4.0])
    batches = [
        torch.randn(*shape, 3, generator=seeded(i)) * scale + shift + i
        for i, shape in enumerate([(1,), (50, 7), (11,)])
    ]
    for batch in batches:
        norm.update(batch)
    rows = np.concatenate([batch.reshape(-1, 3).numpy() for batch in batches]).astype(np.float64)
    assert float(norm.count) == len(rows)
    np.testing.assert_allclose(norm.mean.numpy(), rows.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm.var.numpy(), rows.var(0), rtol=1e-4)
    standardised = norm(torch.cat([batch.reshape(-1, 3) for batch in batches]))
    np.testing.assert_allclose(standardised.mean(0).numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(0, unbiased=False).numpy(), 1, rtol=1e-3)


def test_running_norm_of_a_constant_is_finite():
    norm = RunningNorm(2)
    norm.update(torch.full((10, 2), 3.0))
    assert norm(torch.full((1, 2), 3.0)).abs().max() == 0
    assert norm(torch.full((1, 2), 3.1)).isfinite().all()


def test_running_norm_ignores_an_empty_batch():
    norm = RunningNorm(2)
    norm.update(torch.zeros(0, 2))
    norm.update(torch.randn(9, 2, generator=seeded(1)))
    before = norm.mean.clone()
    norm.update(torch.zeros(0, 2))
    assert torch.equal(norm.mean, before)
    assert norm.var.isfinite().all()


def test_running_norm_travels_with_the_weights():
    norm, other = RunningNorm(2), RunningNorm(2)
    norm.update(torch.randn(9, 2, generator=seeded(1)))
    other.load_state_dict(norm.state_dict())
    x = torch.randn(4, 2, generator=seeded(2))
    assert torch.equal(norm(x), other(x))


@pytest.mark.parametrize("sizes", [[3, 5], [3, 5, 5, 2]])
def test_mlp_ends_without_an_activation(sizes):
    layers = list(mlp(sizes))
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == sizes[1:]
    assert isinstance(layers[-1], torch.nn.Linear)
    assert len(layers) == 2 * len(linear) - 1
