import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parsecrl.algorithms.solvers import lml_projection

MASS = {torch.float32: 1e-6, torch.float64: 1e-12}  # largest residual allowed, times k


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def residual(y: Tensor, k: int) -> float:
    return ((y.double().sum(-1) - k).abs().max() / k).item()


def by_bisection(x: Tensor, k: int, temperature: float) -> Tensor:
    """The defining equation solved the slow way, in float64 and in the middle of a plain bracket."""
    s = x.double() / temperature
    lo, hi = -s.amax(-1, keepdim=True) - 60, -s.amin(-1, keepdim=True) + 60
    for _ in range(200):
        nu = (lo + hi) / 2
        short = torch.sigmoid(s + nu).sum(-1, keepdim=True) < k
        lo, hi = torch.where(short, nu, lo), torch.where(short, hi, nu)
    return torch.sigmoid(s + (lo + hi) / 2)


def hostile_rows(n: int) -> Tensor:
    """Rows [R, n] of scale 1: spread, clustered, tied, and with one score far from the rest."""
    x = randn(4, n, seed=1)
    one = torch.zeros(1, n, dtype=torch.float64)
    one[0, n // 2] = 1.0
    line = torch.linspace(-1, 1, n, dtype=torch.float64)[None]
    rows = [x, x.exp(), -x.exp(), x**3, (2 * x).round(), (x > 0).double(), x + 6.0 * (x > 0), one, -one, 0 * one, line]
    return torch.cat(rows)


# -- closed forms


def test_equal_scores_share_the_mass_equally():
    for scale in (-1e6, 0.0, 3e-6, 1e6):
        y = lml_projection(torch.full((2, 7), scale), 3, 1e-3)
        torch.testing.assert_close(y, torch.full((2, 7), 3 / 7), rtol=2e-7, atol=0)


def test_one_of_two_is_a_sigmoid_of_the_difference():
    x = randn(50, 2) * 3
    y = lml_projection(x, 1, 0.7)
    torch.testing.assert_close(y[:, 0], torch.sigmoid((x[:, 0] - x[:, 1]) / 1.4), rtol=1e-12, atol=1e-15)


def test_two_levels():
    # a scores at +d and b at 0: the threshold z solves a / (1 + z exp(-d)) + b / (1 + z) = k, a quadratic in z
    a, b, k, d = 4, 6, 5, 1.3
    q = math.exp(-d)
    A, B, C = k * q, k * (1 + q) - a - b * q, k - a - b
    z = (-B + math.sqrt(B * B - 4 * A * C)) / (2 * A)
    expected = [1 / (1 + z * q)] * a + [1 / (1 + z)] * b
    y = lml_projection(torch.tensor([d] * a + [0.0] * b, dtype=torch.float64), k)
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_k_equal_to_n_takes_all():
    x = randn(3, 5).requires_grad_()
    y = lml_projection(x, 5)
    assert (y == 1).all()
    y.sum().backward()
    assert (x.grad == 0).all()


# -- brute force


def test_matches_a_bisection():
    x = hostile_rows(23)
    for k in (1, 2, 11, 22):
        for temperature in (0.05, 0.3, 1.0, 10.0):
            torch.testing.assert_close(
                lml_projection(x, k, temperature), by_bisection(x, k, temperature), rtol=1e-9, atol=1e-12
            )


def test_matches_the_convex_program():
    """Eq. 4 minimised by Newton's method on its optimality conditions, no sigmoid in sight."""
    x, k, temperature = randn(6, seed=3), 2, 0.8
    y = torch.full((6,), k / 6, dtype=torch.float64)
    kkt = torch.zeros(7, 7, dtype=torch.float64)
    kkt[6, :6] = kkt[:6, 6] = 1.0
    for _ in range(60):
        kkt[:6, :6] = torch.diag(temperature / (y * (1 - y)))
        slope = -x + temperature * (y / (1 - y)).log()
        step = torch.linalg.solve(kkt, torch.cat([-slope, (k - y.sum())[None]]))[:6]
        size = 1.0
        while not ((y + size * step > 0) & (y + size * step < 1)).all():
            size /= 2
        y = y + size * step
    torch.testing.assert_close(lml_projection(x, k, temperature), y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 10, 100, 3000])
def test_mass_at_every_scale(dtype: torch.dtype, n: int):
    x = hostile_rows(n)
    for k in {1, max(1, n // 10), n // 2, n - 1}:
        for scale in (1e-6, 1e-3, 1.0, 30.0, 1e6):
            for temperature in (1e-3, 1.0, 1e3):
                y = lml_projection((x * scale).to(dtype), k, temperature)
                assert residual(y, k) <= MASS[dtype], (k, scale, temperature)
                assert ((y >= 0) & (y <= 1)).all()


def test_float32_agrees_with_float64():
    x = hostile_rows(100)
    for offset in (0.0, 1e4):
        single = (x + offset).float()
        torch.testing.assert_close(
            lml_projection(single, 10, 0.5), lml_projection(single.double(), 10, 0.5).float(), rtol=1e-5, atol=1e-6
        )


# -- laws


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, int, float]:
    n = draw(st.integers(2, 40))
    scale = 10.0 ** draw(st.integers(-6, 6))
    x = torch.randn(3, n, generator=seeded(draw(st.integers(0, 2**31))), dtype=torch.float64)
    if draw(st.booleans()):
        x = (2 * x).round() / 2  # ties
    return x * scale, draw(st.integers(1, n)), 10.0 ** draw(st.floats(-3, 3))


laws = settings(max_examples=60, deadline=None, derandomize=True)


@laws
@given(problems())
def test_mass_is_k_and_order_is_kept(problem: tuple[Tensor, int, float]):
    x, k, temperature = problem
    for dtype in MASS:
        y = lml_projection(x.to(dtype), k, temperature)
        assert residual(y, k) <= MASS[dtype]
        assert ((y >= 0) & (y <= 1)).all()
        along = y.gather(-1, x.to(dtype).argsort(-1))
        assert (along.diff() >= -1e-6).all()


@laws
@given(problems(), st.floats(-5, 5), st.integers(0, 1000))
def test_shift_permutation_and_reflection(problem: tuple[Tensor, int, float], shift: float, seed: int):
    x, k, temperature = problem
    y = lml_projection(x, k, temperature)
    close = {"rtol": 1e-6, "atol": 1e-9}
    size = x.abs().max().clamp(max=1e6 * temperature)  # further away the shift itself rounds
    torch.testing.assert_close(lml_projection(x + shift * size * 1e-3, k, temperature), y, rtol=1e-3, atol=1e-5)
    order = torch.randperm(x.shape[-1], generator=seeded(seed))
    torch.testing.assert_close(lml_projection(x[:, order], k, temperature), y[:, order], **close)
    torch.testing.assert_close(lml_projection(x * 4, k, temperature * 4), y, **close)
    if k < x.shape[-1]:
        torch.testing.assert_close(1 - lml_projection(-x, x.shape[-1] - k, temperature), y, **close)


def test_rows_are_independent():
    x = hostile_rows(30)
    together = lml_projection(x, 7)
    alone = torch.stack([lml_projection(row, 7) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=0)
    spoiled = x.clone()
    spoiled[3] = math.nan
    after = lml_projection(spoiled, 7)
    keep = torch.arange(len(x)) != 3
    assert torch.equal(after[keep], together[keep])
    assert after[3].isnan().all()
    torch.testing.assert_close(lml_projection(x.reshape(2, -1, 30), 7).reshape(-1, 30), together, rtol=1e-14, atol=0)


def test_low_temperature_is_the_hard_choice():
    x = randn(20, 50)
    hard = torch.zeros_like(x).scatter_(-1, x.topk(5).indices, 1.0)
    torch.testing.assert_close(lml_projection(x, 5, 1e-5), hard, rtol=0, atol=1e-6)


# -- infinite scores


def test_minus_infinity_weighs_nothing():
    x = randn(4, 12)
    padded = torch.cat([x, torch.full((4, 3), -math.inf, dtype=torch.float64)], -1).requires_grad_()
    temperature = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    y = lml_projection(padded, 5, temperature)
    torch.testing.assert_close(y[:, :12], lml_projection(x, 5, 0.9), rtol=1e-12, atol=0)
    assert (y[:, 12:] == 0).all()
    (y * torch.arange(15)).sum().backward()
    assert padded.grad.isfinite().all()
    assert (padded.grad[:, 12:] == 0).all()
    assert temperature.grad.isfinite()


def test_exactly_k_finite_scores_take_all():
    y = lml_projection(torch.tensor([[1.0, -math.inf, 2.0, -math.inf]]), 2)
    assert y.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert lml_projection(torch.tensor([1.0, -math.inf, -math.inf]), 2).isnan().all()


# -- gradients


@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_gradcheck(k: int):
    x = randn(2, 3, 7).requires_grad_()
    for shape in ((), (1,), (3, 1), (2, 3, 1)):
        temperature = (0.5 + torch.rand(shape, generator=seeded(1), dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, t: lml_projection(x, k, t), (x, temperature))
    assert torch.autograd.gradcheck(lambda x: lml_projection(x, k, 0.3), (x,))
    assert torch.autograd.gradgradcheck(lambda x: lml_projection(x, k, 0.8), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_at_saturation_is_finite(dtype: torch.dtype):
    rows = hostile_rows(20)
    for scale in (0.0, 1e-6, 1.0, 1e6):
        for value in (1e-3, 1.0, 1e3):
            for k in (1, 5, 19, 20):
                x = (rows * scale).to(dtype).requires_grad_()
                temperature = torch.tensor(value, dtype=dtype, requires_grad=True)
                weight = torch.arange(20, dtype=dtype)
                y = lml_projection(x, k, temperature)
                (y * weight).sum().backward()
                assert x.grad.isfinite().all()
                assert temperature.grad.isfinite()
                # a common shift changes nothing, to the rounding of the terms
                terms = (y * (1 - y) * weight).sum(-1) / temperature
                assert (x.grad.sum(-1).abs() <= 1e-5 * terms).all()


def test_float_and_tensor_temperature_agree():
    x = randn(3, 9)
    torch.testing.assert_close(lml_projection(x, 4, 0.6), lml_projection(x, 4, torch.tensor(0.6)), rtol=1e-6, atol=0)
    per_row = torch.tensor([[0.1], [1.0], [5.0]], dtype=torch.float64)
    rows = torch.stack([lml_projection(x[i], 4, per_row[i].item()) for i in range(3)])
    torch.testing.assert_close(lml_projection(x, 4, per_row), rows, rtol=1e-12, atol=0)


def test_compiles_whole():
    """fullgraph: no graph break, so nothing in it waits for a value."""

    def loss(x: Tensor, temperature: Tensor) -> Tensor:
        return (lml_projection(x, 3, temperature) * torch.arange(8)).sum()

    x, temperature = randn(4, 8).float().requires_grad_(), torch.tensor(0.7, requires_grad=True)
    expected = torch.autograd.grad(loss(x, temperature), (x, temperature))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, temperature), loss(x, temperature))
    torch.testing.assert_close(torch.autograd.grad(compiled(x, temperature), (x, temperature)), expected)


# -- bad input


@pytest.mark.parametrize("k", [0, -1, 6, 2.0, True])
def test_k_out_of_range(k: int):
    with pytest.raises(ValueError, match=rf"\[1, N\], got {k} with N=5"):
        lml_projection(torch.zeros(2, 5), k)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_out_of_range(temperature: float):
    with pytest.raises(ValueError, match=f"temperature.*got {temperature}"):
        lml_projection(torch.zeros(5), 2, temperature)
    with pytest.raises(ValueError, match=f"temperature.*got {temperature}"):
        lml_projection(torch.zeros(5), 2, torch.tensor(temperature))


def test_wrong_tensors():
    with pytest.raises(ValueError, match=r"\(5,\)"):
        lml_projection(torch.zeros(2, 5), 2, torch.ones(5))
    with pytest.raises(ValueError, match="int64"):
        lml_projection(torch.zeros(5, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="list"):
        lml_projection([1.0, 2.0], 1)
