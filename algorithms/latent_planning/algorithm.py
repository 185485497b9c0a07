"""latent_planning as specs name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from parsecrl.algorithms.latent_planning.settings import LatentPlanningSettings
from parsecrl.algorithms.registry.algorithm import GOALS, Algorithm, OwnWorld, ParallelMap, PlayedTask, StopCondition
from parsecrl.algorithms.registry.settings import blamed_on


class LatentPlanningAlgorithm(Algorithm):
    """Planning in latents, task after task, with a model learned on the way."""

    name = "latent_planning"
    settings = LatentPlanningSettings
    plays = GOALS
    stop_conditions: ClassVar = {"tasks": StopCondition("tasks", "tasks", "tasks played; without any, num_tasks")}
    checked = frozenset({"world", "model", "slice_length", "offline_data"})

    def trainable(self) -> Any:
        """The plain trainable, imported now."""
        from parsecrl.algorithms.latent_planning.trainable import LatentPlanning

        return LatentPlanning

    def default_stop(self, settings: Any) -> dict[str, float]:
        """The tasks of the exploration's schedule."""
        return {"tasks": settings.num_tasks}

    def check(self, phase: Any) -> None:
        """Make the world, and check the model and the slices against it."""
        from parsecrl.algorithms.latent_planning.experiment import make_world
        from parsecrl.algorithms.latent_study.model_factory import check_model
        from parsecrl.algorithms.latent_study.worlds import check_slices

        with blamed_on("world"):
            env = make_world(phase.world.plain(), seed=0)
        try:
            check_model(phase.model.plain(), env)
            check_slices(env, phase.slices, "slice_length")
            if phase.offline_data is not None:
                from parsecrl.algorithms.latent_planning.experiment import cells_of
                from parsecrl.algorithms.latent_study.worlds import space_sizes, world_of
                from parsecrl.algorithms.offline_data.reading import check_lengths, check_world, read_dataset

                dataset = read_dataset(phase.offline_data)
                check_world(phase.offline_data, dataset, phase.world.plain(), *space_sizes(env))
                check_lengths(phase.offline_data, dataset, phase.slices)
                for episode in dataset.episodes:
                    cells_of(episode.obs, world_of(env))
        finally:
            env.close()

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> dict[str, Any]:
        """The settings, the seed, and the folder of relative paths: trials run in folders of their own."""
        return {**super().make_config(phase, env, resources, seed, start_from), "data_folder": str(Path.cwd())}

    def gathered(self, folder: Any) -> Any:
        """All tasks that were played, or the dataset that was learned from."""
        from parsecrl.algorithms.latent_planning.checkpoint import read_dataset_of

        return read_dataset_of(folder)

    def world(self, phase: Any) -> OwnWorld:
        """The world of the phase's `world`."""
        from parsecrl.algorithms.latent_planning.experiment import make_world

        group = phase.world.plain()
        return OwnWorld(group, lambda: make_world(group, seed=0))

    def task_warnings(self, phase: Any, task: PlayedTask) -> list[str]:
        """A sentence where the unit of the observations does not suit."""
        from parsecrl.algorithms.latent_study.units import told_of_units

        return told_of_units(task)

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> Any:
        """The tables of all trials' checkpoints."""
        from parsecrl.algorithms.latent_planning.analysis import analyse_all

        parameters = [trial.parameters for trial in trials]
        return analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)

    def report(self) -> Any:
        """Result table and sections of the page."""
        from parsecrl.algorithms.latent_planning.report import REPORT

        return REPORT


LATENT_PLANNING = LatentPlanningAlgorithm()
