"""The loop of phase 1: environment steps per second with 1 and 2 runners, and how busy the cores are meanwhile."""

import time

import psutil
import pytest
import ray

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.platform.specs import load_spec
from parsecrl.platform.specs.phases import parse_phase

SECONDS = 40.0


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("num_env_runners", [1, 2])
def test_loop(benchmark, num_env_runners):
    spec = load_spec("cheetah_run_quick")
    phase = spec.phases[0].model_dump(exclude={"search"})
    resources = {**spec.resources.model_dump(), "num_env_runners": num_env_runners}
    config = PlanetConfig.from_phase(parse_phase(phase), spec.env.model_dump(), resources, 0, None)
    config.seed_episodes = 1
    config.decisions_per_iteration = 50
    algorithm = config.build_algo()
    while not algorithm.counts["updates"]:  # past the random episodes
        algorithm.train()
    algorithm.train()

    def gather() -> tuple[float, float]:
        """Environment steps per second, and the share of the machine's time that was idle."""
        psutil.cpu_percent()
        start, before = time.perf_counter(), algorithm.counts["env_steps"]
        while time.perf_counter() - start < SECONDS:
            algorithm.train()
        return (algorithm.counts["env_steps"] - before) / (time.perf_counter() - start), 1 - psutil.cpu_percent() / 100

    rate, idle = benchmark.pedantic(gather, rounds=1)
    algorithm.stop()
    benchmark.extra_info |= {"env_steps_per_second": rate, "idle_share": idle}
    print(
        f"\n{num_env_runners} runner(s) on {psutil.cpu_count()} cores: {rate:.0f} environment steps a second, "
        f"cores idle {idle:.0%} of the time"
    )
