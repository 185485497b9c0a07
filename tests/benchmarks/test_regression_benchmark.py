"""One update of the energy regression at the paper's sizes: both inner solvers, and DCEM's compiled iteration."""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from parsecrl.algorithms.energy_regression.update import InnerSolver, Learner, target
from parsecrl.algorithms.models import EnergyNetwork


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_learner(kind: str, compile: bool = False) -> Learner:
    torch.manual_seed(0)
    return Learner(EnergyNetwork(), InnerSolver(kind=kind), compile=compile)


@pytest.mark.parametrize(
    ("kind", "compile"), [("unrolled_gd", False), ("dcem", False), ("dcem", True)], ids=["gd", "dcem", "dcem-compiled"]
)
def test_update(benchmark: BenchmarkFixture, kind: str, compile: bool):
    learner = make_learner(kind, compile)
    generator = torch.Generator().manual_seed(0)
    x = torch.full((1, 1), 2.0)

    def update() -> None:
        learner.update(x, target(x), learner.solver.draw_noise(1, 1, generator))

    benchmark.pedantic(update, rounds=100, warmup_rounds=10)


def test_compiled_code_gives_the_same_numbers(benchmark: BenchmarkFixture):
    """The loss and its gradient, after a while of training. (Adam would blow rounding up where the gradient is 0.)"""
    eager, compiled = make_learner("dcem"), make_learner("dcem", compile=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([[2.0]])
    for _ in range(20):
        eager.update(x, target(x), eager.solver.draw_noise(1, 1, generator))
    compiled.energy.load_state_dict(eager.energy.state_dict())
    noise = eager.solver.draw_noise(1, 1, generator)

    def loss_and_gradient(learner: Learner) -> list[torch.Tensor]:
        loss = learner.loss(x, target(x), noise)
        return [loss.detach(), *torch.autograd.grad(loss, list(learner.energy.parameters()))]

    expected = loss_and_gradient(eager)
    for got, wanted in zip(benchmark.pedantic(loss_and_gradient, args=(compiled,)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-6)
