"""Frames per second of collecting episodes of pixels with 1 and 2 workers; drawing a batch of the paper's size."""

import io
import time

import pytest
import ray

from parsecrl.algorithms.open_loop.dataset import SequenceBatches, open_dataset, usable_images
from parsecrl.algorithms.registry.algorithm import Episodes
from parsecrl.envs import choose_rendering_backend
from parsecrl.platform.running.collection import collect
from parsecrl.platform.terminal import StatusLine

EPISODES = {"parsecrl/HealthGathering-v0": 100, "parsecrl/GoalsMaze-v0": 6}


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("id", EPISODES)
def test_collection(benchmark, tmp_path, id, num_workers):
    if id == "parsecrl/GoalsMaze-v0" and choose_rendering_backend() == "off":
        pytest.skip("no rendering back end on this machine")
    seconds, frames = [], []

    def both():
        """Few episodes and many: their difference has no start of workers in it."""
        for count in (num_workers, num_workers + EPISODES[id]):
            begin = time.perf_counter()
            wanted = Episodes(str(tmp_path / str(count)), {"id": id}, count, 300, 0, 149, 0, num_workers)
            collect(wanted, StatusLine(io.StringIO()))
            seconds.append(time.perf_counter() - begin)
            frames.append(sum(map(usable_images, open_dataset(tmp_path / str(count), "train").episodes)))

    benchmark.pedantic(both, rounds=1)
    rate = (frames[1] - frames[0]) / (seconds[1] - seconds[0])
    benchmark.extra_info["frames_per_second"] = rate
    print(f"\n{id}, {num_workers} worker(s): {rate:.0f} frames a second; {seconds[0]:.1f} s to the first episodes")


def test_a_batch(benchmark, tmp_path):
    quiet = StatusLine(io.StringIO())
    collect(Episodes(str(tmp_path), {"id": "parsecrl/HealthGathering-v0"}, 10, 300, 0, 149, 0, 2), quiet)
    batches = SequenceBatches(open_dataset(tmp_path, "train"), 50, 50, seed=0)
    number = iter(range(10**6))
    benchmark(lambda: batches.draw(next(number)))
