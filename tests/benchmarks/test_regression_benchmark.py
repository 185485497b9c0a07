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
    return Learner(EnergyNetwork(), InnerSolver(kind), compile=compile)


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
    eager, compiled = make_learner("dcem"), make_learner("dcem", compile=True)
    x = torch.tensor([[2.0]])
    for seed in range(3):
        noise = eager.solver.draw_noise(1, 1, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(
            compiled.update(x, target(x), noise), eager.update(x, target(x), noise), rtol=1e-4, atol=1e-5
        )
    for a, b in zip(compiled.energy.parameters(), eager.energy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    benchmark.pedantic(lambda: None, rounds=1)  # --benchmark-only would leave a test without it out
