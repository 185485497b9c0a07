"""A planning experiment on disk: planning.json (what it is, its tasks) and planning.safetensors (all its tensors).

Written between two tasks, where no random generator has a state (`PlanningExperiment`). Nothing is pickled: a
checkpoint from elsewhere can be read without running code of its author's.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from parsecrl.algorithms.checkpoint_files import local_file
from parsecrl.algorithms.latent_planning.experiment import PlanningExperiment, Task

FORMAT = 1
DESCRIPTION, TENSORS = "planning.json", "planning.safetensors"


def save_experiment(folder: str | Path, experiment: PlanningExperiment, config: dict[str, Any]) -> None:
    """Write everything into an existing folder; each file appears whole or not at all. config: what made it."""
    folder = Path(folder)
    tensors = {f"model.{name}": value for name, value in experiment.model.state_dict().items()}
    tensors |= {f"experience.{name}": value for name, value in experiment.experience.tensors().items()}
    if experiment.optimizer is not None:
        for index, state in experiment.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    text = {
        "format": FORMAT,
        "algorithm": "latent_planning",
        "config": config,
        "seed": experiment.seed,
        "tasks": [asdict(task) for task in experiment.tasks],
    }
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / (TENSORS + ".tmp"))
    os.replace(folder / (TENSORS + ".tmp"), folder / TENSORS)
    (folder / (DESCRIPTION + ".tmp")).write_text(json.dumps(text, indent=1))
    os.replace(folder / (DESCRIPTION + ".tmp"), folder / DESCRIPTION)


def read_description(folder: Any) -> dict[str, Any]:
    """planning.json. Raises ValueError when the folder holds no planning experiment of this format."""
    try:
        with local_file(folder, DESCRIPTION) as file:
            description = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no readable {DESCRIPTION} ({error}); give a checkpoint of one") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        got = description.get("format") if isinstance(description, dict) else description
        raise ValueError(
            f"{folder}/{DESCRIPTION} has format {got!r}, this version reads {FORMAT}; use the version that wrote it"
        )
    return description


def load_experiment(folder: Any, experiment: PlanningExperiment) -> None:
    """Go on where a checkpoint was written, with an experiment of the same settings and seed.

    Raises ValueError when a file is missing, damaged, or of another model or seed.
    """
    description, file = read_description(folder), f"{folder}/{TENSORS}"
    try:
        with local_file(folder, TENSORS) as local:
            groups = _by_prefix(load_file(local))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is missing or damaged ({error}); give an undamaged checkpoint folder") from error
    own = experiment.model.state_dict()
    if {n: t.shape for n, t in groups.get("model", {}).items()} != {n: t.shape for n, t in own.items()}:
        raise ValueError(f"{file} is of another model; give the settings that it was trained with")
    if description["seed"] != experiment.seed:
        raise ValueError(
            f"{file} is of seed {description['seed']}, this experiment has {experiment.seed}; give the one of its run"
        )
    experiment.model.load_state_dict(groups["model"])
    experiment.experience.load(groups["experience"])
    experiment.tasks = [Task(**task) for task in description["tasks"]]
    if experiment.optimizer is not None:
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in groups.get("optimizer", {}).items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
        described = experiment.optimizer.state_dict()["param_groups"]
        experiment.optimizer.load_state_dict({"state": states, "param_groups": described})


def read_experiment(folder: Any) -> tuple[PlanningExperiment, dict[str, Any]]:
    """The experiment of a checkpoint on the CPU, and its description."""
    description = read_description(folder)
    experiment = PlanningExperiment(description["config"], description["seed"])
    load_experiment(folder, experiment)
    return experiment, description


def _by_prefix(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        groups.setdefault(prefix, {})[rest] = value
    return groups
