"""The constants of algorithms/registry/workload.py, measured: what plans, updates, replay and checkpoints cost here.

Every time is the least processor time of several repeats in one thread, so that other load on the machine hardly
counts; that of the object store is of the wall clock. Each test prints its constants by name.
"""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.fs
import pytest
import ray
import torch
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief
from parsecrl.algorithms.planet import workload
from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.replay import REPLAY_FILE, save_replay
from parsecrl.algorithms.planet.rollouts import collect
from parsecrl.algorithms.registry.workload import Constants, Sizes
from parsecrl.envs import make_env
from parsecrl.platform.capacity.estimate import matrix_rate
from parsecrl.platform.specs import load_spec
from parsecrl.platform.specs.phases import parse_phase
from parsecrl.platform.storage import for_tune, remove_tree, writable_storage

OBS, A = 17, 6  # cheetah.run
SIZES = Sizes(OBS, A, episode_decisions=250)


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    torch.set_num_threads(1)
    yield
    ray.shutdown()


def least(work: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the quickest of `repeats` calls after a first one."""
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def report(benchmark, **constants: float) -> None:
    """Print the constants beside the shipped ones, and let the benchmark's table have them."""
    benchmark.extra_info |= constants
    benchmark.pedantic(lambda: None, rounds=1)
    shipped = Constants()
    for name, value in constants.items():
        known = getattr(shipped, name, None)
        print(f"\n{name} = {value:.4g}" + (f"  (shipped: {known:.4g})" if known is not None else ""), end="")


def fit(work: list[float], count: list[float], seconds: list[float]) -> tuple[float, float]:
    """(rate, seconds for each of `count`) such that work / rate + count * s is nearest to `seconds`, relatively."""
    columns = np.stack([work, count], 1) / np.array(seconds)[:, None]
    (inverse, each), *_ = np.linalg.lstsq(columns, np.ones(len(seconds)), rcond=None)
    return 1 / inverse, each


def test_plans(benchmark):
    cases = [
        (1, {"kind": "full", "num_samples": 1000, "num_elites": 100, "num_iterations": 10}),
        (4, {"kind": "full", "num_samples": 1000, "num_elites": 100, "num_iterations": 3}),
        (1, {"kind": "full", "num_samples": 200, "num_elites": 20, "num_iterations": 4}),
        (2, {"kind": "full", "num_samples": 200, "num_elites": 20, "num_iterations": 4}),
        (8, {"kind": "full", "num_samples": 200, "num_elites": 20, "num_iterations": 4}),
        (1, {"kind": "embedded", "num_samples": 100, "num_elites": 10, "num_iterations": 10}),
        (8, {"kind": "embedded", "num_samples": 100, "num_elites": 10, "num_iterations": 10}),
        (2, {"kind": "embedded", "num_samples": 50, "num_elites": 5, "num_iterations": 3}),
    ]
    torch.manual_seed(0)
    model = RSSM(OBS, A)
    flop, steps, seconds = [], [], []
    for B, settings in cases:
        settings = {**settings, "horizon": 12, "latent_size": 16}
        numbers = {name: settings[name] for name in ("num_samples", "num_elites", "num_iterations")}
        if settings["kind"] == "full":
            controller = FullSpaceController(12, A, **numbers)
        else:
            controller = EmbeddedController(ActionDecoder(16, 12, A), **numbers)
        belief = Belief(torch.randn(B, 200).tanh(), torch.randn(B, 30))

        @torch.no_grad()
        def plan(controller=controller, belief=belief) -> None:
            controller.plan(model, belief)

        flop.append(workload.plan_flop(settings, {}, SIZES, B))
        steps.append(12 * settings["num_iterations"])
        seconds.append(least(plan, 3 if flop[-1] > 2e10 else 10))
    rate, step = fit(flop, steps, seconds)
    report(benchmark, matrix_flops=matrix_rate(), plan_flops=rate, plan_step_s=step)
    for (B, settings), f, n, s in zip(cases, flop, steps, seconds, strict=True):
        name = f"{settings['kind']} {settings['num_samples']} x {settings['num_iterations']}, batch {B}"
        print(f"\n  {name}: {1e3 * s:.1f} ms, the fit {1e3 * (f / rate + n * step):.1f} ms", end="")


def planet(spec_name: str, phase_name: str, **changes):
    """An algorithm without remote runners, for the phase's sizes."""
    spec = load_spec(spec_name)
    phase = spec.phase(phase_name).model_dump(exclude={"search"}) | {"decoder_warmup_updates": 0, **changes}
    resources = {**spec.resources.model_dump(), "num_env_runners": 0}
    return PlanetConfig.from_phase(parse_phase(phase), spec.env.model_dump(), resources, 0, None).build_algo()


def fill(buffer, decisions: int, length: int = 250) -> None:
    rng = np.random.default_rng(0)
    for _ in range(decisions // length):
        episode = SingleAgentEpisode(
            observations=list(rng.standard_normal((length + 1, OBS), dtype=np.float32)),
            actions=list(rng.uniform(-1, 1, (length, A)).astype(np.float32)),
            rewards=list(rng.random(length, dtype=np.float32)),
            truncated=True,
            len_lookback_buffer=0,
        )
        buffer.add([episode])


def test_updates(benchmark):
    cases = [
        ("cheetah_run_quick", "planet"),
        ("cheetah_run_quick", "embed"),
        ("cheetah_run", "planet"),
        ("cheetah_run", "embed"),
    ]
    flop, seconds = [], []
    for spec_name, phase_name in cases:
        algorithm = planet(spec_name, phase_name)
        fill(algorithm.local_replay_buffer, 10_000)
        phase = load_spec(spec_name).phase(phase_name)
        flop.append(workload.update_flop(phase, SIZES))
        seconds.append(least(lambda algorithm=algorithm: algorithm._update(decoder_only=False), 3))
        algorithm.stop()
    rate, each = fit(flop, [1.0] * len(cases), seconds)
    report(benchmark, update_flops=rate, update_s=each)
    for case, f, s in zip(cases, flop, seconds, strict=True):
        print(
            f"\n  {' '.join(case)}: {1e3 * s:.0f} ms, {f / 1e9:.1f} GFLOP, the fit {1e3 * (f / rate + each):.0f} ms",
            end="",
        )


def test_a_decision_and_its_way_to_the_replay(benchmark):
    settings = {"kind": "full", "horizon": 1, "num_samples": 2, "num_elites": 1, "num_iterations": 1}
    algorithm = planet("cheetah_run_quick", "planet", controller=settings, rollout_fragment_length=50)
    runner, weights = algorithm.env_runner, algorithm.learner_group.get_weights()
    env = make_env("dm_control/cheetah-run-v0", 4)
    env.reset(seed=0)
    action = np.zeros(A, dtype=np.float32)

    def steps() -> None:
        for _ in range(200):
            env.step(action)

    env_step = least(steps) / 800
    rollout = collect(runner, weights, 0)
    decisions = sum(len(episode) for episode in rollout.episodes)
    rollouts = [rollout]  # each is stored once, in its order

    def gather_another() -> None:
        rollouts.append(collect(runner, weights, len(rollouts)))

    gather = least(gather_another) / decisions
    waiting = iter(rollouts)
    store = least(lambda: algorithm._store(next(waiting))) / decisions
    fragment = len(pickle.dumps(rollout)) / decisions

    def there_and_back() -> None:
        ray.get(ray.put(weights))
        ray.get(ray.put(rollout))

    report(
        benchmark,
        env_step_s=env_step,
        decision_s=gather - 4 * env_step,
        store_s=store,
        decision_bytes=fragment,
        request_s=least(there_and_back, 20, time.perf_counter),
    )
    print(f"\n  weights {len(pickle.dumps(weights)) / 1e6:.2f} MB, a fragment of {decisions} decisions", end="")
    algorithm.stop()


def test_replay_and_checkpoints(benchmark, tmp_path):
    algorithm = planet("cheetah_run_quick", "planet")
    buffer = algorithm.local_replay_buffer
    folder = str(tmp_path / "checkpoint")
    plain = least(lambda: algorithm.save_to_path(folder), 3)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    sample, write, memory = {}, {}, psutil.Process().memory_info().rss
    filled = 0
    for decisions in (10_000, 50_000, 250_000):
        fill(buffer, decisions - filled)
        filled = decisions
        sample[decisions] = least(lambda: buffer.sample(batch_size_B=50, batch_length_T=50))
        write[decisions] = least(lambda: save_replay(buffer, tmp_path), 3)
    memory = psutil.Process().memory_info().rss - memory
    report(
        benchmark,
        checkpoint_s=plain,
        checkpoint_bytes=size,
        sample_s=sample[250_000],
        replay_bytes=memory / filled,
        stored_bytes=(tmp_path / REPLAY_FILE).stat().st_size / filled,
        stored_s=write[250_000] / filled,
    )
    for decisions in sample:
        print(
            f"\n  {decisions} decisions: sample {1e3 * sample[decisions]:.1f} ms, write {write[decisions]:.3f} s",
            end="",
        )
    algorithm.stop()


def test_storage(benchmark, tmp_path):
    """Four checkpoints with 64 MiB of replay each, as Tune copies them: wall time, the writes flushed.

    To the place that PARSEC_BENCH_STORAGE names, a folder or an address of a store; by default to this disk.
    """
    source, size = tmp_path / "checkpoint", 4 * 64 * 2**20
    source.mkdir()
    for number in range(4):
        (source / f"replay_{number}.npz").write_bytes(np.random.default_rng(number).bytes(size // 4))
    place = writable_storage(os.environ.get("PARSEC_BENCH_STORAGE", tmp_path)) / "parsec-bench"
    where, filesystem = for_tune(place)

    def copy():
        if filesystem is None:
            place.mkdir(exist_ok=True)
        pyarrow.fs.copy_files(str(source), where, destination_filesystem=filesystem or pyarrow.fs.LocalFileSystem())
        os.sync()

    try:
        report(benchmark, storage_bytes_per_s=size / least(copy, 3, time.perf_counter))
    finally:
        remove_tree(place)
