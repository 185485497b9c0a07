"""Policies over latents at the paper's sizes (Saanum and Schulz 2022, A.2, A.5, A.6): what a trial of 200 episodes of
250 steps in the gridworld takes. One thread, processor time.
"""

import time
from collections.abc import Iterator

import pytest
import ray
from pytest_benchmark.fixture import BenchmarkFixture

from parsecrl.algorithms.latent_sac import LatentSAC
from parsecrl.algorithms.quick_process import make_process_quick

EPISODES, MEASURED = 200, 10


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _ray() -> Iterator[None]:
    make_process_quick()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("kind", ["parsimonious", "beta_vae", "encoder_only"])
def test_a_trial_in_the_gridworld(benchmark: BenchmarkFixture, kind: str) -> None:
    """Early episodes, in which most cells are seen, are the dearest: the estimate is from above."""
    algorithm = LatentSAC({"model": {"kind": kind}, "episodes_per_step": 1, "measure_at": []})
    algorithm.train()
    seconds = []

    def episode() -> None:
        began = time.process_time()
        algorithm.train()
        seconds.append(time.process_time() - began)

    benchmark.pedantic(episode, rounds=MEASURED)
    algorithm.stop()
    typical = sorted(seconds)[MEASURED // 2]
    print(f"\n{kind}: {typical:.2f} s an episode, {EPISODES * typical / 60:.1f} min for {EPISODES}")
    assert EPISODES * typical <= 6 * 60
