"""Policies over latents at the paper's sizes (Saanum and Schulz 2022, A.2, A.5, A.6): what each trial of the spec
`parsimony_sac` takes, and its sweep. One thread, processor time.

They print the arithmetic of an episode's updates too, and its share of what the core does in a product alone: a time is
the machine's as much as the code's.
"""

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC
from parsecrl.algorithms.models.matrix_products import linear
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.platform.specs import load_spec

MEASURED = 20  # episodes, of trials that are not played whole
METHOD = "parsimonious"  # the other models are there to be compared with it
WORLDS = {phase.name: phase for phase in load_spec("parsimony_sac").phases}
MODELS = WORLDS["gridworld"].search["model.kind"].values
SEEDS = len(WORLDS["gridworld"].search["seed"].values)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _ray() -> Iterator[None]:
    make_process_quick()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def minutes() -> dict[tuple[str, str], float]:
    """What a trial takes, by world and model, of those that were measured."""
    return {}


def counter() -> FlopCounterMode:
    """Of torch's products, and of those that `products` takes from oneDNN."""

    def flop(x: torch.Size, weight: torch.Size, *args: Any, **kwargs: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: flop})


@torch.no_grad()
def core_rate(size: int = 1024) -> float:
    """FLOP/s of a square product as the networks take theirs, the best of several."""
    x, times = torch.ones(size, size), []
    for _ in range(6):
        began = time.process_time()
        linear(x, x)
        times.append(time.process_time() - began)
    return 2 * size**3 / min(times)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("world", WORLDS)
def test_a_trial(benchmark: BenchmarkFixture, minutes: dict[tuple[str, str], float], world: str, kind: str) -> None:
    """Whole ones in the gridworld, and of the method, whose batches have the fewer distinct rows the longer it learns.
    Of the others episodes 2 to 21, in which batches have most of the cells and are the dearest: the estimate is from
    above.
    """
    phase, whole = WORLDS[world], world == "gridworld" or kind == METHOD
    episodes = phase.stop.episodes
    settings = phase.entry.make_config(phase, None, {}, 0, None)
    settings["model"] |= {"kind": kind}
    settings |= {"episodes_per_step": 1, "measure_at": settings["measure_at"] if whole else []}
    algorithm = LatentSAC(settings)
    algorithm.train()
    seconds = []

    def episode() -> None:
        began = time.process_time()
        algorithm.train()
        seconds.append(time.process_time() - began)

    benchmark.pedantic(episode, rounds=episodes - 1 if whole else MEASURED)
    with counter() as counted:  # of one more, since counting takes time
        algorithm.train()
    algorithm.stop()
    flop, rate, last = counted.get_total_flops(), core_rate(), statistics.median(seconds[-MEASURED:])
    whole_trial = minutes[world, kind] = episodes * statistics.mean(seconds) / 60
    print(
        f"\n{world}, {kind}: {whole_trial:.1f} min for {episodes} episodes, by {len(seconds)} of them; "
        f"the last {MEASURED}: {last:.2f} s, {flop / 1e9:.0f} GFLOP, {flop / rate / last:.0%} of the core's rate "
        f"({rate / 1e9:.0f} GFLOP/s)"
    )
    if world == "gridworld" and kind == METHOD:
        assert whole_trial <= 6


def test_the_sweep(benchmark: BenchmarkFixture, minutes: dict[tuple[str, str], float]) -> None:
    """On two cores that a trial each has to itself.

    It adds up what the benchmarks above measured, and has nothing to say where `-k` chose only some of them.
    """
    trials = minutes.values()
    if len(trials) < len(WORLDS) * len(MODELS):
        pytest.skip("an estimate needs the trials of all worlds and models")
    hours = benchmark(lambda: SEEDS * sum(trials) / 60 / 2)
    print(f"\nthe sweep, {SEEDS * len(trials)} trials, two at a time: {hours:.1f} h")
