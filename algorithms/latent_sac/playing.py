"""Episodes of a trained policy in the world of its trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parsecrl.algorithms.checkpoints.files import Folder
from parsecrl.algorithms.latent_sac.checkpoint import load_policy, told_of_world
from parsecrl.algorithms.latent_study.worlds import make_vector_world
from parsecrl.algorithms.offline_data.episodes import Dataset, OfflineEpisode
from parsecrl.algorithms.registry.user_functions import names_code
from parsecrl.algorithms.training.episodes import play_episode


def play_trial(folder: Folder, seeds: Sequence[int], trust: bool) -> Dataset:
    """Play episodes by the most probable actions.

    Args:
        folder: Of the checkpoint.
        seeds: Of the resets.
        trust: Whether the world's code may run, where its id names some.

    Returns:
        The episodes in the order of their seeds, and the world.

    Raises:
        ValueError: As `load_policy` does, the world's code is not trusted, or the world cannot be made.
    """
    policy, description = load_policy(folder)
    about = told_of_world(folder, description)
    if names_code(about["world"].get("id")) and not trust:
        raise ValueError(
            f"{folder} was trained in {about['world']['id']}, whose code would run on this machine; give --trust if "
            f"you trust who wrote the checkpoint"
        )
    env = make_vector_world(about["world"], about["world"]["layout_seed"], continuous=True)
    state = policy.initial_state(1)

    def act(obs: np.ndarray, info: Mapping[str, Any]) -> Any:
        action, _ = policy.act(state, torch.from_numpy(np.asarray(obs, np.float32)).unsqueeze(0))
        return action[0]

    episodes = []
    try:
        for seed in seeds:
            played = play_episode(env, seed, act)
            obs, rewards = np.stack(played.observations).astype(np.float32), np.asarray(played.rewards, np.float32)
            ended = played.terminated, not played.terminated
            episodes.append(OfflineEpisode(obs, np.stack(played.actions), rewards, *ended, seed))
    finally:
        env.close()
    return Dataset(episodes, about)
