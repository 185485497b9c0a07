"""Episodes of several environments, played side by side and decided in one batch.

Axes: B rows, O observation, A action. An environment keeps its row, and a row without one sees zeros: the batch keeps
its shape, so that no episode notices when another ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
import torch

from parsecrl.algorithms.controllers.acting import ControlPolicy

Act = Callable[[np.ndarray], np.ndarray]


class Step(NamedTuple):
    """What a decision did in one row."""

    row: int
    reward: float  # summed over its simulator steps
    env_steps: int  # simulator steps
    is_over: bool
    terminated: bool = False  # by the task; else, where it is over, cut by a limit


def play(
    act: Act,
    envs: Mapping[int, gymnasium.Env],
    seeds: Mapping[int, int],
    num_rows: int,
    check: Callable[[int], None] | None = None,
) -> Iterator[tuple[np.ndarray, list[Step]]]:
    """Play an episode in each environment to its end, all in lockstep. The border ends every episode.

    Nothing is decided before the next item is asked for.

    Args:
        act: Observations [B, O] of all rows -> actions [B, A].
        envs: By row.
        seeds: Of the resets, by row.
        num_rows: B.
        check: Called with the number of decisions before each; raises where the episodes take too long.

    Yields:
        After the resets, and after each decision, the observations [B, O], which the next one overwrites, and the steps
        that were made.
    """
    obs = np.zeros((num_rows, *(next(iter(envs.values())).observation_space.shape or ())), np.float32)
    for row, env in envs.items():
        obs[row], _ = env.reset(seed=seeds[row])
    steps, decisions = [Step(row, 0.0, 0, False) for row in sorted(envs)], 0
    yield obs, []
    while running := [step.row for step in steps if not step.is_over]:
        if check is not None:
            check(decisions)
        actions, steps, decisions = act(obs), [], decisions + 1
        for row in running:
            obs[row], reward, terminated, truncated, info = envs[row].step(actions[row])
            steps.append(Step(row, float(reward), info["env_steps"], terminated or truncated, terminated))
        yield obs, steps


def episode_returns(
    policy: ControlPolicy,
    envs: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    device: str | torch.device = "cpu",
    check: Callable[[int], None] | None = None,
) -> list[float]:
    """Play an episode in each environment without exploration.

    Args:
        policy: On the device; it decides for all environments in one batch.
        envs: One or more.
        seeds: Of their resets.
        device: Of the observations.
        check: As of `play`.

    Returns:
        The return of each environment's episode.
    """
    rows = dict(enumerate(envs))
    policy.begin(rows)
    state = policy.initial_state(len(envs))
    totals = np.zeros(len(envs))

    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal state
        actions, state = policy.act(state, torch.as_tensor(obs, device=device), None)
        return actions

    for _, steps in play(act, rows, dict(enumerate(seeds)), len(envs), check):
        for step in steps:
            totals[step.row] += step.reward
    return totals.tolist()
