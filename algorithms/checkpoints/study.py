"""A study's checkpoint on disk: its description and curve as JSON, all its tensors by group, nothing pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.checkpoints.files import Folder
from parsecrl.algorithms.checkpoints.pair import CheckpointPair

Groups = Mapping[str, Mapping[str, Tensor]]


class StudyCheckpoint(CheckpointPair):
    """The two files of one kind of study, whose tensors are in groups: a name without a dot, and name."""

    def write_groups(self, folder: str | Path, description: Mapping[str, Any], groups: Groups) -> None:
        """As `write`."""
        flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
        self.write(folder, description, flat)

    def read_groups(self, folder: Folder) -> dict[str, dict[str, Tensor]]:
        """As `read_tensors`, by group and name; a group without tensors is absent."""
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in self.read_tensors(folder).items():
            group, _, rest = name.partition(".")
            groups.setdefault(group, {})[rest] = value
        return groups

    def check_sizes(self, folder: Any, stored: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> None:
        """Raises ValueError unless names and shapes of both are the same. part: what they are ("a decoder")."""
        if {name: value.shape for name, value in stored.items()} != {name: value.shape for name, value in own.items()}:
            raise ValueError(
                f"{folder}/{self.tensor_file} is of {part} of another size; give the settings that it was trained with"
            )

    def fill_model(self, folder: Any, groups: Groups, model: nn.Module) -> None:
        """Give a model the stored weights of the group `model`. Raises ValueError when they are of another size."""
        stored = groups.get("model", {})
        self.check_sizes(folder, stored, model.state_dict(), "a model")
        model.load_state_dict(stored)


def check_seed(folder: Any, stored: int, own: int) -> None:
    """See that a run goes on with its own checkpoint.

    Args:
        folder: Of the checkpoint, for the message.
        stored: The checkpoint's seed.
        own: The run's.

    Raises:
        ValueError: They differ.
    """
    if stored != own:
        raise ValueError(f"{folder} is of seed {stored}, this experiment has {own}; give the one of its run")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors that `fill_optimizer` takes.

    Args:
        optimizer: Any of torch whose state is tensors.

    Returns:
        Tensors by "<parameter's number>.<name>".
    """
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer of the same parameters a stored state; its learning rates stay.

    Args:
        optimizer: That gets the state.
        tensors: Of `optimizer_tensors`.
    """
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
