"""An embedding on disk: embedding.json (what it is, its curve) and embedding.safetensors (all its tensors).

Nothing is pickled: a checkpoint from elsewhere can be read without running code of its author's.
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

from parsecrl.algorithms.cartpole_embedding.embedding import EmbeddingLearner
from parsecrl.algorithms.checkpoint_files import local_file

FORMAT = 1
DESCRIPTION, TENSORS = "embedding.json", "embedding.safetensors"


def save_embedding(folder: str | Path, learner: EmbeddingLearner, description: dict[str, Any]) -> None:
    """Write everything into an existing folder; each file appears whole or not at all."""
    folder, state = Path(folder), learner.state_dict()
    tensors = {f"{part}.{name}": value for part in ("decoder", "best_decoder") for name, value in state[part].items()}
    for index, values in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    text = {
        "format": FORMAT,
        "settings": asdict(learner.settings),
        "learning_rate": learner.learning_rate,
        **{key: state[key] for key in _NUMBERS},
        **description,
    }
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / (TENSORS + ".tmp"))
    os.replace(folder / (TENSORS + ".tmp"), folder / TENSORS)
    (folder / (DESCRIPTION + ".tmp")).write_text(json.dumps(text, indent=1))
    os.replace(folder / (DESCRIPTION + ".tmp"), folder / DESCRIPTION)


def read_description(folder: Any) -> dict[str, Any]:
    """embedding.json. Raises ValueError when the folder holds no embedding of this format.

    folder: a path or an object store's address, as everywhere here.
    """
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


def load_embedding(folder: Any, learner: EmbeddingLearner) -> dict[str, Any]:
    """Fill a learner of the same settings; returns the description.

    Raises ValueError when a file is missing, damaged, or of a decoder of other sizes.
    """
    description, file = read_description(folder), f"{folder}/{TENSORS}"
    try:
        with local_file(folder, TENSORS) as local:
            tensors = load_file(local)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is missing or damaged ({error}); give an undamaged checkpoint folder") from error
    groups: dict[str, dict[str, Tensor]] = {"decoder": {}, "best_decoder": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        groups.setdefault(part, {})[rest] = value
    own = learner.controller.decoder.state_dict()
    for part in ("decoder", "best_decoder"):
        if {n: t.shape for n, t in groups[part].items()} != {n: t.shape for n, t in own.items()}:
            raise ValueError(f"{file} is of a decoder of another size; give the settings that it was trained with")
    optimizer = learner.optimizer.state_dict()
    optimizer["state"] = {}
    for name, value in groups["optimizer"].items():
        index, _, key = name.partition(".")
        optimizer["state"].setdefault(int(index), {})[key] = value
    for group in optimizer["param_groups"]:
        group["lr"] = description["learning_rate"]
    numbers = {key: description[key] for key in _NUMBERS}
    learner.load_state_dict({**numbers, **groups, "optimizer": optimizer})
    return description


_NUMBERS = ("num_updates", "best_cost", "validations_since_best")
