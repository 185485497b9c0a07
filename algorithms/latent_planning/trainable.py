"""The planning experiment as a Tune trainable: a result is a task (Saanum and Schulz 2022, section 4.4)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from parsecrl.algorithms.latent_planning.checkpoint import load_experiment, save_experiment
from parsecrl.algorithms.latent_planning.experiment import PlanningExperiment
from parsecrl.algorithms.offline_data.reading import read_dataset
from parsecrl.algorithms.registry.algorithm import UNTRAINED
from parsecrl.algorithms.training.measurements import PlanTime, summary
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.seeding import derive_seed


class LatentPlanning(Trainable):
    """One model on one series of tasks.

    config: `LatentPlanningSettings`; run_seed, which is mixed with seed; data_folder, of a relative offline_data.

    Results: tasks; task_score; score, the mean over the tasks so far; epsilon; loss, the mean over the refit;
    planning_ms, a plan; refit_s; evaluations_saved, the share of what plans asked for that was not evaluated again.
    planning_ms and evaluations_saved are left out where a task had no plan. env_steps; replay_decisions, what refits
    draw from; trajectories, candidates of all plans; measured, as `algorithms/training/measurements.py` says.
    """

    plans: Sequence[PlanTime] = ()  # of the last step

    def setup(self, config: dict[str, Any]) -> None:
        """Make the experiment."""
        make_process_quick()  # a gradient step allocates and frees 40 MB
        seed = derive_seed(config.get("run_seed", 0), "latent_planning", config.get("seed", 0))
        device = "cuda" if config.get("num_gpus_per_trial", 0) else "cpu"
        folder = Path(config.get("data_folder", ""))
        own = {key: value for key, value in config.items() if key != "data_folder"}
        self.experiment = PlanningExperiment(own, seed, device)
        if (path := self.experiment.settings.offline_data) is not None:
            self.experiment.take(read_dataset(folder / Path(path).expanduser()))

    def step(self) -> dict[str, Any]:
        """One task, played and refitted after."""
        started = time.perf_counter()
        task = self.experiment.run_task()
        seconds = time.perf_counter() - started
        self.plans = self.experiment.plans
        scores = [played.score for played in self.experiment.tasks]
        result: dict[str, Any] = {
            "tasks": len(scores),
            "task_score": task.score,
            "score": sum(scores) / len(scores),
            "epsilon": task.epsilon,
            "refit_s": task.refit_seconds,
        }
        if task.num_plans:
            result["planning_ms"] = 1e3 * task.planning_seconds / task.num_plans
            result["evaluations_saved"] = 1.0 - task.num_evaluated / task.num_asked
        if "loss" in task.losses:
            result["loss"] = task.losses["loss"]
        if self.experiment.optimizer is not None and not any(played.losses for played in self.experiment.tasks):
            result[UNTRAINED] = (
                f"no episode of {len(scores)} lasted the {self.experiment.slice_length} steps of a slice; lower "
                f"slice_length, or prolong the phase"
            )
        parts = {"planning": task.planning_seconds, "learning": task.refit_seconds}
        shares = {**parts, "other": seconds - sum(parts.values())}
        measured: dict[str, Any] = {
            "losses": task.losses,
            "time_shares": {"main": {activity: share / seconds for activity, share in shares.items()}},
        }
        if self.plans:
            measured["planning_seconds"] = summary(self.plans)
        return {**result, **self.phase_results(), "measured": measured}

    def phase_results(self) -> dict[str, Any]:
        """What was counted since the first task."""
        settings, seen = self.experiment.settings, self.experiment.experience.num_transitions
        budget = settings.chosen_budget
        num_plans = sum(task.num_plans for task in self.experiment.tasks)
        return {
            "env_steps": seen if settings.offline_data is None else 0,
            "replay_decisions": seen,
            "trajectories": num_plans * budget.num_samples * budget.num_iterations,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the experiment into an existing folder."""
        save_experiment(checkpoint_dir, self.experiment)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on where `save_checkpoint` wrote."""
        assert isinstance(checkpoint, str)  # save_checkpoint returns nothing, so Tune hands over the folder
        load_experiment(checkpoint, self.experiment)
