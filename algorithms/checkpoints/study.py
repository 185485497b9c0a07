"""A study's checkpoint on disk: NAME.json (what it is, its curve) and NAME.safetensors (all its tensors, by group).

Nothing is pickled: a checkpoint from elsewhere can be read without running code of its author's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from parsecrl.algorithms.checkpoints.files import local_file

FORMAT = 1
Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class StudyCheckpoint:
    """The two files of one kind of study. name: of the files; what: the study in a sentence ("an embedding")."""

    name: str
    what: str

    @property
    def description_file(self) -> str:
        return f"{self.name}.json"

    @property
    def tensor_file(self) -> str:
        return f"{self.name}.safetensors"

    def write(self, folder: str | Path, description: Mapping[str, Any], groups: Groups) -> None:
        """Write everything into an existing folder; each file appears whole or not at all.

        description: what JSON can hold. groups: tensors by group, a name without a dot, and name.
        """
        tensors, description_path = Path(folder, self.tensor_file), Path(folder, self.description_file)
        flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
        partial = tensors.with_name(tensors.name + ".tmp")
        save_file({name: value.detach().cpu().contiguous() for name, value in flat.items()}, partial)
        os.replace(partial, tensors)
        partial = description_path.with_name(description_path.name + ".tmp")
        partial.write_text(json.dumps({"format": FORMAT, **description}, indent=1))
        os.replace(partial, description_path)

    def read_description(self, folder: Any) -> dict[str, Any]:
        """What was written. folder: a path or an object store's address, as everywhere here.

        Raises ValueError when the folder holds no study of this kind and format.
        """
        try:
            with local_file(folder, self.description_file) as file:
                description = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder} holds no readable {self.description_file} ({error}); give a checkpoint of {self.what}"
            ) from error
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            got = description.get("format") if isinstance(description, dict) else description
            raise ValueError(
                f"{folder}/{self.description_file} has format {got!r}, this version reads {FORMAT}; "
                f"use the version that wrote it"
            )
        return description

    def read_tensors(self, folder: Any) -> dict[str, dict[str, Tensor]]:
        """The tensors by group and name; a group without tensors is absent. Raises ValueError for a damaged file."""
        try:
            with local_file(folder, self.tensor_file) as file:
                flat = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{folder}/{self.tensor_file} is missing or damaged ({error}); give an undamaged checkpoint folder"
            ) from error
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in flat.items():
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
    """Raises ValueError unless both are the same: a run goes on with its own checkpoint."""
    if stored != own:
        raise ValueError(f"{folder} is of seed {stored}, this experiment has {own}; give the one of its run")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors that `fill_optimizer` takes."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer of the same parameters a stored state; its learning rates stay."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
