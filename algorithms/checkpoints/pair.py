"""A checkpoint's two files: NAME.json (what it is) and NAME.safetensors (its tensors).

Nothing is pickled: a checkpoint from elsewhere can be read without running code of its author's. A folder to
read is a path, or an object that copies its files here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from parsecrl.algorithms.checkpoints.files import Folder, local_file

PACKAGE = "parsec-rl"
MISSING = (FileNotFoundError, NotADirectoryError)  # not every OSError: a store out of reach is no bad checkpoint


@dataclass(frozen=True)
class CheckpointPair:
    """The two files of one kind of checkpoint.

    Attributes:
        name: Of the files.
        what: The kind in a sentence, such as "an agent".
        format: A number that changes with what is in the files; others are refused.
    """

    name: str
    what: str
    format: int = 1

    @property
    def description_file(self) -> str:
        """The name of the JSON file."""
        return f"{self.name}.json"

    @property
    def tensor_file(self) -> str:
        """The name of the safetensors file."""
        return f"{self.name}.safetensors"

    def write(self, folder: str | Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write both files into an existing folder; each appears whole or not at all.

        Args:
            folder: An existing one.
            description: For JSON.
            tensors: By name.

        Raises:
            FloatingPointError: A tensor is not finite. Nothing has been written then.
        """
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise FloatingPointError(
                    f"{self.what} with {name} that is not finite is not stored, so that no checkpoint holds NaN or "
                    f"infinity; lower the learning rate, and continue from the checkpoint before"
                )
        weights, text = Path(folder, self.tensor_file), Path(folder, self.description_file)
        partial = weights.with_name(weights.name + ".tmp")
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
        os.replace(partial, weights)
        partial = text.with_name(text.name + ".tmp")
        written = {"format": self.format, "version": version(PACKAGE), **description}
        partial.write_text(json.dumps(written, indent=1))
        os.replace(partial, text)

    def read_description(self, folder: Folder) -> dict[str, Any]:
        """What was written. Raises ValueError when the folder holds no checkpoint of this kind and format."""
        try:
            with local_file(folder, self.description_file) as file:
                description = json.loads(file.read_text())
        except (*MISSING, ValueError) as error:
            why = f" ({error})" if isinstance(error, ValueError) else ""  # a missing one is named by its folder
            raise ValueError(
                f"{folder} holds no readable {self.description_file}{why}; give a checkpoint of {self.what}"
            ) from error
        if not isinstance(description, dict):
            raise ValueError(
                f"{folder}/{self.description_file} must be a JSON object; give a checkpoint of {self.what}"
            )
        if description.get("format") != self.format:
            wrote = description.get("version", "before 0.1.0")
            raise ValueError(
                f"{folder}/{self.description_file} has format {description.get('format')!r}, {PACKAGE} "
                f"{version(PACKAGE)} reads {self.format}; read it with the version that wrote it, {PACKAGE} {wrote}"
            )
        return description

    def read_tensors(self, folder: Folder) -> dict[str, Tensor]:
        """The tensors by name. Raises ValueError for a missing or damaged file."""
        try:
            with local_file(folder, self.tensor_file) as file:
                return load_file(file)
        except (*MISSING, SafetensorError) as error:
            raise ValueError(
                f"{folder}/{self.tensor_file} is missing or damaged ({error}); give an undamaged checkpoint folder"
            ) from error
