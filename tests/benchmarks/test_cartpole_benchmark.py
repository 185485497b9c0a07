"""Times of algorithm 2's update (solve, gradient, step) on the cartpole at the paper's settings, on one CPU core.

Processor time, so that other load on the machine hardly counts; the table's times are of the wall clock.
"""

import dataclasses
import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parsecrl.algorithms.cartpole_embedding.embedding import EmbeddingLearner
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.models.cartpole import cartpole
from parsecrl.algorithms.training.process_tuning import make_process_quick

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _memory_as_in_the_trainable() -> None:
    make_process_quick()


def measure(benchmark: BenchmarkFixture, learner: EmbeddingLearner, rounds: int) -> None:
    settings, seconds = learner.settings, []
    assert (settings.num_samples, settings.num_iterations, settings.horizon, settings.latent_size) == (100, 10, 20, 2)

    def update() -> None:
        start = time.process_time()
        learner.update()
        seconds.append(time.process_time() - start)

    benchmark.pedantic(update, rounds=rounds, warmup_rounds=5)
    del seconds[:5]
    print(
        f"\n{benchmark.name}: {settings.states_per_update} state(s) an update, processor time "
        f"{1e3 * statistics.median(seconds):.1f} ms (least {1e3 * min(seconds):.1f})"
    )


@pytest.mark.parametrize("states", [1, 16])
def test_cartpole_update(benchmark: BenchmarkFixture, states: int):
    measure(benchmark, EmbeddingLearner(cartpole(), EmbeddingSettings(states_per_update=states), 0), 50)


def test_cartpole_update_by_the_general_path(benchmark: BenchmarkFixture):
    """Autograd on the pair of functions: what other dynamics take."""
    dynamics = dataclasses.replace(cartpole(), fused_costs=None)
    measure(benchmark, EmbeddingLearner(dynamics, EmbeddingSettings(), 0), 20)
