"""An open-loop experiment on disk: open_loop.json (what it is, its curve) and open_loop.safetensors (its tensors)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parsecrl.algorithms.checkpoints.study import StudyCheckpoint, check_seed, fill_optimizer, optimizer_tensors
from parsecrl.algorithms.open_loop.experiment import OpenLoopExperiment
from parsecrl.algorithms.open_loop.settings import OpenLoopSettings

FILES = StudyCheckpoint("open_loop", "an open-loop experiment")


def save_experiment(folder: str | Path, experiment: OpenLoopExperiment, batches: dict[str, int]) -> None:
    """Write everything into an existing folder; each file appears whole or not at all.

    Args:
        folder: An existing one.
        experiment: Between two updates.
        batches: The state of its data, `SequenceBatches.state_dict`.
    """
    tensors = {"model": experiment.model.state_dict(), "optimizer": optimizer_tensors(experiment.optimizer)}
    settings = experiment.settings.plain()
    settings["data"].pop("folder", None)  # a checkpoint says nothing of other places
    description = {
        "algorithm": "open_loop",
        "config": settings,
        "seed": experiment.seed,
        "num_actions": experiment.num_actions,
        "image_size": experiment.image_size,
        "num_updates": experiment.num_updates,
        "curve": experiment.curve,
        "batches": batches,
    }
    FILES.write_groups(folder, description, tensors)


def load_experiment(folder: Any, experiment: OpenLoopExperiment) -> dict[str, int]:
    """Go on where a checkpoint was written.

    Args:
        folder: Of the checkpoint.
        experiment: Of the same settings and seed.

    Returns:
        The state of its data.

    Raises:
        ValueError: A file is missing, damaged, or of another model or seed.
    """
    description, groups = FILES.read_description(folder), FILES.read_groups(folder)
    check_seed(folder, description["seed"], experiment.seed)
    FILES.fill_model(folder, groups, experiment.model)
    fill_optimizer(experiment.optimizer, groups.get("optimizer", {}))
    experiment.num_updates, experiment.curve = description["num_updates"], description["curve"]
    return description["batches"]


def read_experiment(folder: Any) -> tuple[OpenLoopExperiment, dict[str, Any]]:
    """Read the experiment of a checkpoint, on the CPU.

    Args:
        folder: Of the checkpoint.

    Returns:
        The experiment and the description.

    Raises:
        ValueError: A file is missing or damaged.
    """
    description = FILES.read_description(folder)
    settings = OpenLoopSettings.checked(description["config"])
    sizes = description["num_actions"], description["image_size"]
    experiment = OpenLoopExperiment(settings, *sizes, description["seed"])
    load_experiment(folder, experiment)
    return experiment, description
