"""Episodes of `evaluate`, with all that was seen and done in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from parsecrl.algorithms.offline_data.episodes import OfflineEpisode
from parsecrl.envs import make_env
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import default_batch_size
from parsecrl.platform.evaluation.lockstep import (
    Controller,
    Policy,
    check_sizes,
    episode_seed,
    play,
    resolve,
    torch_threads,
)


def record_episodes(
    controller: Controller,
    env: Mapping[str, Any] | None,
    episodes: int,
    seed: int = 0,
    patience_s: float | None = None,
    trust: bool | Collection[str] = False,
) -> list[OfflineEpisode]:
    """Play the first episodes of `evaluate` in this process.

    Args:
        controller: As `evaluate` takes it.
        env: As `evaluate` takes it.
        episodes: How many, at least 1.
        seed: As `evaluate` takes it.
        patience_s: Longest wait for a batch of episodes, in seconds; None waits on.
        trust: As `evaluate` takes it.

    Returns:
        The episodes in their order, with the seeds of their resets.

    Raises:
        UserError: As `evaluate`.
        RunFailed: The patience ends.
    """
    resets = reset_seeds(episodes, seed)
    agent, env = resolve(controller, env, trust)
    check_sizes(agent, env, controller)
    size = default_batch_size(episodes, 1)
    recorded: list[OfflineEpisode] = []
    with torch_threads(1):
        for start in range(0, episodes, size):
            numbers = range(start, start + size)
            envs = {row: make_env(**env) for row in range(size)}
            try:
                action_size = int(np.prod(envs[0].action_space.shape or ()))
                policy = Policy(agent, action_size, seed, size, "cpu")
                policy.start(numbers, envs)
                seeds = {row: resets[number] for row, number in enumerate(numbers)}
                recorded += _record(policy, envs, seeds, patience_s)
            finally:
                for task in envs.values():
                    task.close()
    return recorded


def reset_seeds(episodes: int, seed: int) -> list[int]:
    """Seeds of the resets of the first episodes of `evaluate`.

    Args:
        episodes: How many, at least 1.
        seed: As `evaluate` takes it.

    Returns:
        One for each episode.

    Raises:
        UserError: There is none.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {episodes}")
    return [episode_seed(seed, number) for number in range(episodes)]


def _record(policy: Policy, envs: Any, seeds: dict[int, int], patience_s: float | None) -> list[OfflineEpisode]:
    taken: list[np.ndarray] = []

    def act(obs: np.ndarray) -> np.ndarray:
        taken.append(policy.act(obs))
        return taken[-1]

    rows: dict[int, tuple[list, list, list]] = {row: ([], [], []) for row in envs}
    ended: dict[int, bool] = {}
    for obs, steps in play(act, envs, seeds, len(envs), patience_s):
        if not steps:  # the resets
            for row, (seen, _, _) in rows.items():
                seen.append(obs[row].copy())
        for step in steps:
            seen, actions, rewards = rows[step.row]
            seen.append(obs[step.row].copy())
            actions.append(taken[-1][step.row].copy())
            rewards.append(step.reward)
            if step.is_over:
                ended[step.row] = step.terminated
    return [
        OfflineEpisode(
            np.stack(seen),
            np.clip(np.stack(actions), -1, 1).astype(np.float32),
            np.asarray(rewards, np.float32),
            ended[row],
            not ended[row],
            seeds[row],
        )
        for row, (seen, actions, rewards) in rows.items()
    ]
