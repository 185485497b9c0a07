"""A planning experiment on disk: planning.json (what it is, its tasks) and planning.safetensors (its tensors).

Written between two tasks, where no random generator has a state (`PlanningExperiment`).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from parsecrl.algorithms.checkpoints.study import StudyCheckpoint, check_seed, fill_optimizer, optimizer_tensors
from parsecrl.algorithms.latent_planning.experience import Experience
from parsecrl.algorithms.latent_planning.experiment import PlanningExperiment, Task, layout_seed, task_seed
from parsecrl.algorithms.latent_planning.settings import LatentPlanningSettings
from parsecrl.algorithms.offline_data.episodes import Dataset

FILES = StudyCheckpoint("planning", "a planning experiment", format=2)


def save_experiment(folder: str | Path, experiment: PlanningExperiment) -> None:
    """Write everything into an existing folder; each file appears whole or not at all.

    Args:
        folder: An existing one.
        experiment: Between two tasks.
    """
    tensors = {"model": experiment.model.state_dict(), "experience": experiment.experience.tensors()}
    if experiment.optimizer is not None:
        tensors["optimizer"] = optimizer_tensors(experiment.optimizer)
    description = {
        "algorithm": "latent_planning",
        "config": experiment.settings.plain(),
        "seed": experiment.seed,
        "num_actions": experiment.controller.num_actions,
        "tasks": [asdict(task) for task in experiment.tasks],
    }
    FILES.write_groups(folder, description, tensors)


def load_experiment(folder: Any, experiment: PlanningExperiment) -> None:
    """Go on where a checkpoint was written.

    Args:
        folder: Of the checkpoint.
        experiment: Of the same settings and seed.

    Raises:
        ValueError: A file is missing, damaged, or of another model or seed.
    """
    description, groups = FILES.read_description(folder), FILES.read_groups(folder)
    check_seed(folder, description["seed"], experiment.seed)
    FILES.fill_model(folder, groups, experiment.model)
    experiment.experience.load(groups["experience"])
    experiment.tasks = [Task(**task) for task in description["tasks"]]
    if experiment.optimizer is not None:
        fill_optimizer(experiment.optimizer, groups.get("optimizer", {}))


def read_dataset_of(folder: Any) -> Dataset:
    """What the experiment of a checkpoint has seen.

    Args:
        folder: Of the checkpoint.

    Returns:
        Episodes with the seeds of their resets, and the world.

    Raises:
        ValueError: A file is missing or damaged.
    """
    description, groups = FILES.read_description(folder), FILES.read_groups(folder)
    settings, seed = LatentPlanningSettings.from_config(description["config"]), description["seed"]
    experience = Experience(0)
    experience.load(groups["experience"])
    episodes = experience.episodes()
    if settings.offline_data is None:  # else they are others', whose seeds are not kept
        episodes = [episode._replace(seed=task_seed(seed, 1 + number)) for number, episode in enumerate(episodes)]
    world = {"layout_seed": layout_seed(seed), **settings.world.plain()}
    return Dataset(episodes, {"world": world, "num_actions": description["num_actions"]})


def read_experiment(folder: Any) -> tuple[PlanningExperiment, dict[str, Any]]:
    """Read the experiment of a checkpoint, on the CPU.

    Args:
        folder: Of the checkpoint.

    Returns:
        The experiment and the description.

    Raises:
        ValueError: A file is missing or damaged.
    """
    description = FILES.read_description(folder)
    experiment = PlanningExperiment(description["config"], description["seed"])
    load_experiment(folder, experiment)
    return experiment, description
