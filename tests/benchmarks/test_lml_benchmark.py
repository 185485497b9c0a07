"""Times of the LML projection beside one torch.sort of the same input, on the device at hand."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from parsecrl.algorithms.solvers import lml_projection

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS, N, K = 2500, 100, 10


@pytest.fixture
def x() -> Tensor:
    return torch.randn(ROWS, N, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def sort(x: Tensor) -> Tensor:
    values = torch.sort(x).values
    finish()
    return values


def forward(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = lml_projection(x, K)
    finish()
    return y


def forward_and_backward(x: Tensor, h: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(lml_projection(x, K), x, h)
    finish()
    return grad


def test_sort(benchmark: BenchmarkFixture, x: Tensor):
    benchmark.pedantic(sort, args=(x,), rounds=30, warmup_rounds=3)


def test_lml_forward(benchmark: BenchmarkFixture, x: Tensor):
    y = benchmark.pedantic(forward, args=(x,), rounds=30, warmup_rounds=3)
    assert (y.double().sum(-1) - K).abs().max() <= 1e-6 * K


def test_lml_forward_and_backward(benchmark: BenchmarkFixture, x: Tensor):
    x.requires_grad_()
    benchmark.pedantic(forward_and_backward, args=(x, torch.randn_like(x)), rounds=30, warmup_rounds=3)
