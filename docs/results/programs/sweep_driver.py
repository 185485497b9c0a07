"""What the driver of a sweep of 200 trivial trials costs: processor time for each trial, and memory.

    python docs/results/programs/sweep_driver.py [KEY=VALUE ...]      keys of the phase, such as search_alg=optuna

Trials run in actors that are used again, so that the time is the driver's. Children of the driver do not count.
"""

import functools
import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

from parsecrl.platform.cluster.connection import quiet_ray

quiet_ray()

import ray  # noqa: E402
from ray import tune  # noqa: E402

from parsecrl.platform.running import tune_phase  # noqa: E402
from parsecrl.platform.runs.run_folder import RunFolder  # noqa: E402
from parsecrl.platform.specs import load_spec  # noqa: E402
from parsecrl.platform.terminal import StatusLine  # noqa: E402

TRIALS = 200


class Trivial(tune.Trainable):
    """Four results, whose score is the searched rate, and a checkpoint."""

    def setup(self, config: dict) -> None:
        self.steps, self.rate = 0, config["lr"]

    def reset_config(self, new_config: dict) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict:
        self.steps += 1
        return {"num_updates": self.steps, "score": self.rate}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "steps").write_text(str(self.steps))

    def load_checkpoint(self, checkpoint: str) -> None:
        self.steps = int(Path(checkpoint, "steps").read_text())


def main() -> None:
    """Run the sweep, and print the measures as one line of JSON."""
    search = "search={lr: {uniform: [0.1, 0.9]}}"
    changes = [search, "stop={num_updates: 4}", f"num_samples={TRIALS}", *sys.argv[1:]]
    spec = load_spec("energy_regression_quick", ["loggers=[]", *(f"phases.regression.{change}" for change in changes)])
    tune_phase.trainable_of = lambda algorithm: Trivial
    tune_phase.tune.TuneConfig = functools.partial(tune.TuneConfig, reuse_actors=True)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder.choose(spec, scratch, "sweep")
        folder.open()
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        with (Path(scratch) / "status").open("w") as status:
            outcome = tune_phase.run_phase(folder, spec.phases[0], "", StatusLine(status))
        after = resource.getrusage(resource.RUSAGE_SELF)
        folder.close()
    assert (outcome["trials"], outcome["failed_trials"]) == (TRIALS, 0)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measured = {
        "changes": sys.argv[1:],
        "processor_ms_per_trial": round(1e3 * used / TRIALS, 1),
        "memory_kB_per_trial": round((after.ru_maxrss - before.ru_maxrss) / TRIALS, 1),
        "wall_s": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(measured))
    ray.shutdown()


if __name__ == "__main__":
    main()
