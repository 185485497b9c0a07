"""A trial on disk beside RLlib's checkpoint: latent_sac.json (what it is, its scores) and latent_sac.safetensors.

Nothing here is pickled: what an analysis needs can be read without running code of the author's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parsecrl.algorithms.checkpoints.files import Folder, local_file
from parsecrl.algorithms.checkpoints.pair import CheckpointPair
from parsecrl.algorithms.latent_sac.acting import DiscretePolicy, SquashedGaussianPolicy
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.record import GridRecord
from parsecrl.algorithms.latent_study.worlds import make_vector_world, space_sizes, world_of
from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.models.latent_dynamics import feedforward
from parsecrl.algorithms.offline_data.episodes import Dataset
from parsecrl.algorithms.registry.user_functions import one_line

FILES = CheckpointPair("latent_sac", "latent_sac", format=3)
REPLAY_FILE = "replay.npz"
KEPT = ("model.", "policy.", "slow_encoder.")  # what acts and what predicts; the rest is in RLlib's checkpoint


def save_trial(
    folder: str | Path, description: dict[str, Any], weights: dict[str, Tensor], record: GridRecord | None = None
) -> None:
    """Write a trial into an existing folder; each file appears whole or not at all.

    Args:
        folder: An existing one.
        description: What the trial is, and its scores, as JSON takes it.
        weights: The module's, by name; those that act or predict are kept.
        record: Of a grid world.
    """
    tensors = {name: value for name, value in weights.items() if name.startswith(KEPT)}
    if record is not None:
        state = record.state()
        tensors["visited"] = torch.from_numpy(state.pop("visited"))
        description = {**description, "record": state}
    FILES.write(folder, description, tensors)


def load_trial(folder: Folder) -> tuple[LatentDynamics, GridRecord | None, dict[str, Any]]:
    """Read a trial, and make its world.

    Args:
        folder: Of the checkpoint.

    Returns:
        The model on the CPU in evaluation mode; what was recorded of the world that it was trained in, None of one
        that is no grid world; and the description.

    Raises:
        ValueError: The folder holds no such trial of this format, or a damaged one.
    """
    description, tensors = FILES.read_description(folder), FILES.read_tensors(folder)
    with _whole(folder):
        group, layout_seed = description["world"], description["layout_seed"]
    env = make_vector_world(group, layout_seed, continuous=True)
    with _whole(folder):
        model, world = _model(description, tensors, *space_sizes(env)), world_of(env)
        if world is None:
            return model, None, description
        record = GridRecord(world)
        record.set_state({**description["record"], "visited": tensors["visited"].numpy()})
    return model, record, description


def load_policy(folder: Folder) -> tuple[DiscretePolicy | SquashedGaussianPolicy, dict[str, Any]]:
    """Read the policy of a trial; the environment is not needed.

    Args:
        folder: Of the checkpoint.

    Returns:
        The policy and the description.

    Raises:
        ValueError: As `load_trial` does.
    """
    description, tensors = FILES.read_description(folder), FILES.read_tensors(folder)
    with _whole(folder):
        spaces, sizes = description["spaces"], description["policy"]
        action = spaces["action"]
        continuous = action.get("kind") == "Box"
        num_actions = math.prod(action["shape"]) if continuous else action["n"]
        model = _model(description, tensors, spaces["observation"]["shape"][0], num_actions)
        slow = {k.removeprefix("slow_"): v for k, v in tensors.items() if k.startswith("slow_encoder.")}
        model.load_state_dict({**model.state_dict(), **slow})  # the policy's own eyes
        network = feedforward(
            model.latent_size, num_actions * (1 + continuous), sizes["hidden_size"], sizes["num_layers"]
        )
        network.load_state_dict({k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")})
    policy = SquashedGaussianPolicy(model, network, num_actions) if continuous else DiscretePolicy(model, network)
    return policy, description


def read_dataset_of(folder: Folder) -> Dataset:
    """What a trial has seen.

    Args:
        folder: Of the checkpoint.

    Returns:
        The episodes of its replay, and the world.

    Raises:
        ValueError: As `load_trial` does, or there is no replay.
    """
    description = FILES.read_description(folder)
    about = told_of_world(folder, description)
    with _whole(folder):
        spaces = description["spaces"]
        action_size = None if "num_actions" in about else math.prod(spaces["action"]["shape"])
        replay = TransitionReplay(1, spaces["observation"]["shape"][0], action_size)
    with local_file(folder, REPLAY_FILE) as file:
        if not file.is_file():
            raise ValueError(f"{folder} holds no {REPLAY_FILE}; give a checkpoint of a run")
        replay.load(file)
    return Dataset(replay.episodes(), about)


def told_of_world(folder: Folder, description: dict[str, Any]) -> dict[str, Any]:
    """What a dataset of a trial says of itself.

    Args:
        folder: Of the checkpoint, for the message.
        description: Of the trial.

    Returns:
        The world, and the number of actions where they are discrete.

    Raises:
        ValueError: The description is damaged.
    """
    with _whole(folder):
        action = description["spaces"]["action"]
        about = {"world": {"layout_seed": description["layout_seed"], **description["world"]}}
        return about if action.get("kind") == "Box" else {**about, "num_actions": action["n"]}


@contextmanager
def _whole(folder: Folder) -> Iterator[None]:
    """What is missing from the files, or of another type or size than they say, becomes a ValueError that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of load_state_dict: the last
        raise ValueError(
            f"{folder} holds no whole {FILES.what} checkpoint ({one_line(error)}); give an undamaged checkpoint folder"
        ) from error


def _model(description: dict[str, Any], tensors: dict[str, Tensor], obs_size: int, num_actions: int) -> LatentDynamics:
    model = make_model(description["model"], obs_size, num_actions, 0)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    return model.eval()
