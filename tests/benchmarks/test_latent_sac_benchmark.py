"""Policies over latents at the paper's sizes (Saanum and Schulz 2022, A.2, A.5, A.6): what each trial of the spec
`parsimony_sac` takes, and its sweep. One thread, processor time.
"""

import time
from collections.abc import Iterator

import pytest
import ray
from pytest_benchmark.fixture import BenchmarkFixture

from parsecrl.algorithms.latent_sac import LatentSAC
from parsecrl.algorithms.quick_process import make_process_quick
from parsecrl.platform.specs import load_spec
from parsecrl.platform.trainables import plain_config

MEASURED = 10  # episodes
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


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("world", WORLDS)
def test_a_trial(benchmark: BenchmarkFixture, minutes: dict[tuple[str, str], float], world: str, kind: str) -> None:
    """Early episodes, in which most cells are seen, are the dearest: the estimate is from above."""
    phase = WORLDS[world]
    settings = plain_config(phase.model_dump(exclude={"search"}, exclude_none=True), None, {}, 0, None)
    model = {**settings["model"], "kind": kind}
    algorithm = LatentSAC({**settings, "model": model, "episodes_per_step": 1, "measure_at": []})
    algorithm.train()
    seconds = []

    def episode() -> None:
        began = time.process_time()
        algorithm.train()
        seconds.append(time.process_time() - began)

    benchmark.pedantic(episode, rounds=MEASURED)
    algorithm.stop()
    typical, episodes = sorted(seconds)[MEASURED // 2], phase.stop.episodes
    minutes[world, kind] = episodes * typical / 60
    print(f"\n{world}, {kind}: {typical:.2f} s an episode, {minutes[world, kind]:.1f} min for {episodes}")
    if world == "gridworld":
        assert minutes[world, kind] <= 6


def test_the_sweep(benchmark: BenchmarkFixture, minutes: dict[tuple[str, str], float]) -> None:
    """On two cores that a trial each has to itself.

    It adds up what the benchmarks above measured, and has nothing to say where `-k` chose only some of them.
    """
    if len(minutes) < len(WORLDS) * len(MODELS):
        pytest.skip("an estimate needs the trials of all worlds and models")
    hours = benchmark(lambda: SEEDS * sum(minutes.values()) / 60 / 2)
    print(f"\nthe sweep, {SEEDS * len(minutes)} trials, two at a time: {hours:.1f} h")
    assert hours <= 6
