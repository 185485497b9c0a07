"""An energy regression on disk: regression.json (what it is, its curve) and regression.safetensors (its tensors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.checkpoints.study import StudyCheckpoint, fill_optimizer, optimizer_tensors
from parsecrl.algorithms.energy_regression.update import InnerSolver
from parsecrl.algorithms.models.energy import EnergyNetwork
from parsecrl.algorithms.registry.user_functions import own_function

FILES = StudyCheckpoint("regression", "an energy regression")


def save_state(
    folder: str | Path,
    description: dict[str, Any],
    energy: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: dict[str, Tensor],
) -> None:
    """Write everything into an existing folder.

    Args:
        folder: Of the checkpoint.
        description: What the regression is, and its curve; as JSON takes it.
        energy: What was trained.
        optimizer: Of the energy.
        others: Further tensors by name.
    """
    tensors = {"energy": energy.state_dict(), "optimizer": optimizer_tensors(optimizer), "other": others}
    FILES.write_groups(folder, description, tensors)


def load_state(
    folder: Any, energy: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fill an energy and its optimizer from a folder.

    Args:
        folder: Of the checkpoint.
        energy: Of the sizes that were saved.
        optimizer: Of the energy; None leaves its state aside.

    Returns:
        The description, and the other tensors by name.

    Raises:
        ValueError: A file is missing, damaged, or of an energy of other sizes.
    """
    description, groups = FILES.read_description(folder), FILES.read_groups(folder)
    stored = groups.get("energy", {})
    FILES.check_sizes(folder, stored, energy.state_dict(), "an energy")
    energy.load_state_dict(stored)
    if optimizer is not None:
        fill_optimizer(optimizer, groups.get("optimizer", {}))
    return description, groups.get("other", {})


def make_energy(options: Mapping[str, Any]) -> nn.Module:
    """Make what is trained: a module that maps x [B, 1] and y [B, N, 1] to energies [B, N].

    Args:
        options: `kind`, "mlp" for an `EnergyNetwork` or module:function for a function of your own, and its arguments.

    Returns:
        The module.

    Raises:
        ValueError: The kind is unknown, or its function returns no module.
    """
    own = dict(options)
    kind = own.pop("kind", "mlp")
    if kind == "mlp":
        return EnergyNetwork(1, 1, **own)
    made = own_function(kind, "energy.kind", ["mlp"])(**own)
    if not isinstance(made, nn.Module):
        raise ValueError(f"energy.kind {kind!r} must return a torch module, got {type(made).__name__}")
    return made


def load_regression(folder: Any) -> tuple[nn.Module, InnerSolver, dict[str, Any]]:
    """Read a trained regression.

    Args:
        folder: Of the checkpoint.

    Returns:
        The energy, the solver that it was trained through, and the description.

    Raises:
        ValueError: A file is missing or damaged.
    """
    energy = make_energy(FILES.read_description(folder)["energy"])
    description, _ = load_state(folder, energy)
    return energy.eval(), InnerSolver(**description["solver"]), description
