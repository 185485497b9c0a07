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


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_running_norm_does_not_see_units(unit, offset):
    """Down to what float32 holds of an offset: the rounding at 1e6 is a sixteenth."""
    x = torch.randn(4000, 1, generator=seeded(3), dtype=torch.float64) + offset
    norm = RunningNorm(1)
    for rows in (x * unit).float().split(100):
        norm.update(rows)
    standardised = norm((x * unit).float())
    torch.testing.assert_close(standardised.double(), (x - x.mean()) / x.std(), rtol=0, atol=0.1 if offset else 1e-3)
    torch.testing.assert_close(norm.inverse(standardised), (x * unit).float())


def test_running_norm_keeps_a_constant_and_rounding_small_and_cuts_what_is_new():
    norm = RunningNorm(3, limit=10.0)
    third, zero = 1000 / 3, 0.0
    jitter = torch.where(torch.rand(500, generator=seeded(0)) < 0.5, third, float(np.nextafter(np.float32(third), 999)))
    rows = torch.stack([torch.full((500,), third), jitter, torch.full((500,), zero)], -1)
    norm.update(rows)
    standardised = norm(rows)
    assert (standardised[:, [0, 2]] == 0).all()
    assert standardised[:, 1].abs().max() < 0.5
    assert norm(torch.tensor([third + 1, third - 1, 0.5])).tolist() == [10.0, -10.0, 0.5]


def test_running_norm_forgets_outliers_and_follows_what_is_frequent():
    g = seeded(0)
    norm = RunningNorm(1, outlier=100.0, memory=1e5)

    def update(number: int, *outliers: float) -> None:
        for _ in range(number):
            rows = torch.randn(2500, 1, generator=g)
            rows[: len(outliers), 0] = torch.tensor(outliers)
            norm.update(rows)

    update(1, 1e6)  # with the first rows there is nothing to tell it by
    assert norm.std > 1e4
    update(900)
    assert norm.std < 2
    for _ in range(10):
        update(5)
        update(1, 1e6)  # 1 of 15,000 rows
    assert norm.std < 2
    update(150, *[1e6] * 25)  # 1 of 100
    assert norm.std == pytest.approx(1e5, rel=0.2)


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
