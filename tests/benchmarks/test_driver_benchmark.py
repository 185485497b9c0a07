"""What Tune's driver does for each event, with 10, 100 and 1000 trials: results, checkpoints, steps, its own state.

Tune's controller and the project's callbacks get real results, of one iteration of phase 1; no actors run, which would
need a machine for each. Processor time, the least of several events. A sweep of 30 trials with actors, which do nothing
but report, has what Ray adds. algorithms/registry/workload.py has the constants.
"""

import copy
import functools
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.train import Checkpoint
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.registry import register_trainable

from parsecrl.algorithms.planet.planet import Planet, PlanetConfig
from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.running import tune_phase
from parsecrl.platform.running.loggers import logger_callbacks
from parsecrl.platform.running.progress import PhaseProgress, trial_name
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec
from parsecrl.platform.specs.phases import parse_phase
from parsecrl.platform.terminal import StatusLine

CHECKPOINTS = 3  # of each trial


@pytest.fixture(scope="module")
def algorithm():
    quiet_ray()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    spec = load_spec("cheetah_run_quick")
    phase = spec.phases[0].model_dump(exclude={"search"})
    phase["controller"] |= {"horizon": 1, "num_samples": 2, "num_elites": 1, "num_iterations": 1}
    resources = {**spec.resources.model_dump(), "num_env_runners": 0}
    config = PlanetConfig.from_phase(parse_phase(phase), spec.env.model_dump(), resources, 0, None)
    register_trainable("Planet", Planet)
    algorithm = config.build_algo()
    yield algorithm
    algorithm.stop()
    ray.shutdown()


class Sweep:
    """A controller whose `trials` trials have all reported and written CHECKPOINTS checkpoints."""

    def __init__(self, algorithm: Algorithm, folder: Path, trials: int):
        self.folder, self.result = folder / "planet", algorithm.train()
        self.result["config"] = algorithm.config.to_dict()
        storage = StorageContext(storage_path=str(folder), experiment_dir_name="planet")
        # Checkpoints are asked for by this class, not by the progress: there are no actors to write them.
        progress = PhaseProgress("planet", str(self.folder), {"env_steps": 1e9}, {}, 10**9, "", ["learning_rate"])
        progress.line = StatusLine((folder / "status").open("w"))
        self.callbacks = [progress, *logger_callbacks([], "run", "planet")]
        self.controller = TuneController(storage=storage, callbacks=self.callbacks, checkpoint_period=float("inf"))
        progress.setup(total_num_samples=trials)
        for number in range(trials):
            trial = Trial(
                "Planet",
                config=self.result["config"],
                stub=True,
                storage=storage,
                trial_id=f"sweep_{number:05d}",
                trial_dirname_creator=trial_name,
            )
            trial.init_local_path()
            self.controller.add_trial(trial)
        self.trials = self.controller.get_trials()
        for _ in range(CHECKPOINTS):
            for trial in self.trials:
                self.report(trial)
                self.checkpoint(trial)

    def report(self, trial: Trial) -> None:
        number = (trial.last_result or {}).get("training_iteration", 0) + 1
        result = copy.deepcopy(self.result) | {"training_iteration": number, "env_steps": 1000 * number, "done": False}
        self.controller._process_trial_result(trial, result)
        self.controller._queued_trial_decisions.clear()

    def checkpoint(self, trial: Trial) -> None:
        folder = Path(trial.storage.trial_fs_path) / f"checkpoint_{trial.last_result['training_iteration']:06d}"
        folder.mkdir(parents=True)
        stored = Checkpoint(str(folder), trial.storage.storage_filesystem)
        trial.on_checkpoint(_TrainingResult(checkpoint=stored, metrics=trial.last_result))
        for callback in self.callbacks:
            callback.on_checkpoint(iteration=0, trials=self.trials, trial=trial, checkpoint=stored)

    def step_end(self, trial: Trial) -> None:
        for callback in self.callbacks:
            callback.on_step_end(iteration=0, trials=self.trials)

    def save(self) -> float:
        """Seconds."""
        start = time.process_time()
        self.controller.checkpoint(force=True, wait=True)
        return time.process_time() - start

    @property
    def state_bytes(self) -> int:
        return max(self.folder.glob("experiment_state-*.json")).stat().st_size

    def least(self, event: Callable[[Trial], None]) -> float:
        """Seconds of the quickest of several events, each of another trial."""
        times = []
        for trial in self.trials[:12]:
            copied = time.thread_time()
            copy.deepcopy(self.result)  # what `report` does before Tune gets it
            start = time.thread_time()
            event(trial)
            end = time.thread_time()
            times.append(end - start - (start - copied) * (event == self.report))
        return min(times)


@pytest.mark.parametrize("trials", [10, 100, 1000])
def test_driver(benchmark, algorithm, tmp_path, trials):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sweep = Sweep(algorithm, tmp_path, trials)
    memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    sweep.save()
    seconds = {
        "save": sweep.save(),
        "step_end": sweep.least(sweep.step_end),
        "report": sweep.least(sweep.report),
        "checkpoint": sweep.least(sweep.checkpoint),
    }
    benchmark.pedantic(sweep.step_end, args=(sweep.trials[0],), rounds=5)
    benchmark.extra_info |= {**seconds, "state_bytes": sweep.state_bytes}
    print(
        f"\n{trials} trials: a result {1e3 * seconds['report']:.2f} ms, a checkpoint {1e3 * seconds['checkpoint']:.2f} "
        f"ms, the callbacks after each step {1e3 * seconds['step_end']:.3f} ms, saving the state "
        f"{1e3 * seconds['save']:.1f} ms, its size {sweep.state_bytes / trials / 1e3:.0f} kB a trial, memory "
        f"{memory / trials / 1e3:.0f} kB a trial"
    )


class Reporter(tune.Trainable):
    """A trial of 1000 steps an iteration that does nothing."""

    def setup(self, config: dict) -> None:
        self.steps = 0

    def reset_config(self, new_config: dict) -> bool:
        self.steps = 0
        return True

    def step(self) -> dict:
        self.steps += 1000
        return {"env_steps": self.steps, "score": float(self.steps), "losses": {f"term{i}": 1.0 for i in range(50)}}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "steps").write_text(str(self.steps))

    def load_checkpoint(self, checkpoint: str) -> None:
        self.steps = int(Path(checkpoint, "steps").read_text())


def test_a_sweep(benchmark, algorithm, tmp_path, monkeypatch):
    """Trials of 4 and of 24 results, each with two checkpoints, in actors that are used again."""
    monkeypatch.setattr(tune_phase, "trainable_of", lambda algorithm: Reporter)
    monkeypatch.setattr(tune_phase.tune, "TuneConfig", functools.partial(tune.TuneConfig, reuse_actors=True))
    seconds = {}
    for results in (4, 24):
        search = "phases.planet.search.learning_rate.loguniform=[1.0e-4, 1.0e-2]"
        changes = (f"stop.env_steps={1000 * results}", f"checkpoint_every={results // 2}", "num_samples=30")
        changes += ("controller.horizon=1",)
        spec = load_spec("cheetah_run", ["loggers=[]", search, *(f"phases.planet.{change}" for change in changes)])
        spec.resources.num_env_runners = 0
        folder = RunFolder.choose(spec, tmp_path, f"results-{results}")
        folder.open()
        start = time.thread_time()
        with (tmp_path / "status").open("w") as status:
            tune_phase.run_phase(folder, spec.phases[0], "", StatusLine(status))
        seconds[results] = time.thread_time() - start
        folder.close()
    each = (seconds[24] - seconds[4]) / 30 / 20
    benchmark.extra_info |= {"result_s": each}
    benchmark.pedantic(lambda: None, rounds=1)
    print(
        f"\n30 trials of 4 and of 24 results: {seconds[4]:.2f} and {seconds[24]:.2f} s, result_s = {1e3 * each:.2f} ms"
    )
