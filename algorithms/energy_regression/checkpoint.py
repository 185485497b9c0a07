"""An energy regression on disk: regression.json (what it is, its curve) and regression.safetensors (all its tensors).

Nothing is pickled: a checkpoint from elsewhere can be read without running code of its author's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from parsecrl.algorithms.checkpoint_files import local_file
from parsecrl.algorithms.energy_regression.update import InnerSolver
from parsecrl.algorithms.models.energy import EnergyNetwork

FORMAT = 1
DESCRIPTION, TENSORS = "regression.json", "regression.safetensors"


def save_state(
    folder: str | Path,
    description: dict[str, Any],
    energy: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: dict[str, Tensor],
) -> None:
    """Write everything into an existing folder; each file appears whole or not at all."""
    folder = Path(folder)
    tensors = {f"energy.{name}": value for name, value in energy.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"other.{name}": value for name, value in others.items()}
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / (TENSORS + ".tmp"))
    os.replace(folder / (TENSORS + ".tmp"), folder / TENSORS)
    (folder / (DESCRIPTION + ".tmp")).write_text(json.dumps({"format": FORMAT, **description}, indent=1))
    os.replace(folder / (DESCRIPTION + ".tmp"), folder / DESCRIPTION)


def read_description(folder: Any) -> dict[str, Any]:
    """regression.json. Raises ValueError when the folder holds no energy regression of this format."""
    file = f"{folder}/{DESCRIPTION}"
    try:
        with local_file(folder, DESCRIPTION) as local:
            description = json.loads(local.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no readable {DESCRIPTION} ({error}); give a checkpoint of an energy regression"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        got = description.get("format") if isinstance(description, dict) else description
        raise ValueError(f"{file} has format {got!r}, this version reads {FORMAT}; use the version that wrote it")
    return description


def load_state(
    folder: Any, energy: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fill the energy and the optimizer from a folder; returns the description and the other tensors by name.

    Raises ValueError when a file is missing, damaged, or of an energy of other sizes.
    """
    description = read_description(folder)
    file = f"{folder}/{TENSORS}"
    try:
        with local_file(folder, TENSORS) as local:
            groups = _by_prefix(load_file(local))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is missing or damaged ({error}); give an undamaged checkpoint folder") from error
    stored, own = groups.get("energy", {}), energy.state_dict()
    if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in own.items()}:
        raise ValueError(
            f"{file} is of an energy of another size; give the energy the settings that it was trained with"
        )
    energy.load_state_dict(stored)
    if optimizer is not None:
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in groups.get("optimizer", {}).items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return description, groups.get("other", {})


def load_regression(folder: Any) -> tuple[EnergyNetwork, InnerSolver, dict[str, Any]]:
    """The trained energy of a checkpoint, the solver that it was trained through, and its description."""
    description = read_description(folder)
    energy = EnergyNetwork(1, 1, **description["energy"])
    load_state(folder, energy)
    return energy.eval(), InnerSolver.from_dict(description["solver"]), description


def _by_prefix(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        groups.setdefault(prefix, {})[rest] = value
    return groups
