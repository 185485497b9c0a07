"""A trial on disk beside RLlib's checkpoint: latent_sac.json (what it is, its scores) and latent_sac.safetensors.

Nothing here is pickled: what an analysis needs can be read without running code of the author's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from parsecrl.algorithms.checkpoints.files import local_file
from parsecrl.algorithms.latent_sac.policy_world import make_world
from parsecrl.algorithms.latent_study import World, make_model, space_sizes, world_of
from parsecrl.algorithms.models import LatentDynamics

FORMAT = 1
DESCRIPTION, TENSORS = "latent_sac.json", "latent_sac.safetensors"
KEPT = ("model.", "policy.")  # what acts and what predicts; the rest is in RLlib's checkpoint


def save_trial(
    folder: str | Path, description: dict[str, Any], weights: dict[str, Tensor], visited: np.ndarray
) -> None:
    """Write into an existing folder; each file appears whole or not at all.

    Args:
        folder: Of the checkpoint.
        description: What the trial is, and its scores; as JSON takes it.
        weights: The module's, by name.
        visited: How often each action was taken in each cell, [S, A].
    """
    folder = Path(folder)
    tensors = {name: value.contiguous() for name, value in weights.items() if name.startswith(KEPT)}
    tensors["visited"] = torch.from_numpy(visited.copy())
    save_file(tensors, folder / (TENSORS + ".tmp"))
    os.replace(folder / (TENSORS + ".tmp"), folder / TENSORS)
    (folder / (DESCRIPTION + ".tmp")).write_text(json.dumps({"format": FORMAT, **description}, indent=1))
    os.replace(folder / (DESCRIPTION + ".tmp"), folder / DESCRIPTION)


def load_trial(folder: Any) -> tuple[LatentDynamics, World | None, np.ndarray, dict[str, Any]]:
    """Read a trial.

    Args:
        folder: Of the checkpoint.

    Returns:
        The model, the world that it was trained in, how often each transition was visited [S, A], the description.

    Raises:
        ValueError: The folder holds no such trial of this format, or a damaged one.
    """
    file = f"{folder}/{DESCRIPTION}"
    try:
        with local_file(folder, DESCRIPTION) as local:
            description = json.loads(local.read_text())
        with local_file(folder, TENSORS) as local:
            tensors = load_file(local)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no readable trial of latent_sac ({error}); give its checkpoint") from error
    if description.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format {description.get('format')!r}, this version reads {FORMAT}; use the one that wrote it"
        )
    env = make_world(description["world"], description["layout_seed"])
    model: Any = make_model(description["model"], *space_sizes(env), 0)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    return model.eval(), world_of(env), tensors["visited"].numpy(), description
