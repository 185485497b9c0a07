"""A fixed set of episodes, each played to its end, whatever the lengths and the number of environments.

Axes: B episodes that are played at the same time, A action.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import ACTION_NOISE, NOISE_INDEX
from parsecrl.algorithms.training.rllib_private import count_episodes


@dataclass
class _Row:
    """One environment and its episode under way. state: of the module, without the axis B."""

    env: gymnasium.Env
    episode: SingleAgentEpisode
    rng: np.random.Generator
    state: dict[str, torch.Tensor]
    began: float


def play_episodes(
    runner: SingleAgentEnvRunner, seeds: Sequence[int], names: Sequence[str], patience_s: float
) -> list[SingleAgentEpisode]:
    """Play one episode of each seed; the environments of the runner play at the same time, planned in one batch.

    An environment whose episode is over takes the next seed. Where no seed is left, the batch shrinks. What an episode
    draws comes from its seed alone, so that only rounding depends on the batch. RLlib's own `sample` would return the
    episodes that end first, and drop the others.

    Args:
        runner: Whose module is a DCEMPPORLModule.
        seeds: Of the episodes, of the environment and the draws alike.
        names: The `id_` of each episode.
        patience_s: The longest time that an episode may take.

    Returns:
        The episodes, in the order of their ends.

    Raises:
        RuntimeError: An episode takes longer than `patience_s`.
    """
    waiting = list(zip(seeds, names, strict=True))[::-1]
    rows = [_begin(runner, env, *waiting.pop()) for env in runner.env.unwrapped.envs[: len(seeds)]]
    done: list[SingleAgentEpisode] = []
    while rows:
        outputs = _decide(runner, rows)
        going = []
        for b, row in enumerate(rows):
            _step(row, _of_row(outputs, b))
            if row.episode.is_done:
                done.append(row.episode.to_numpy())
                if waiting:
                    going.append(_begin(runner, row.env, *waiting.pop()))
                continue
            if time.monotonic() - row.began > patience_s:
                raise RuntimeError(
                    f"an episode did not end within sample_timeout_s={patience_s:g} s, after {len(row.episode)} "
                    f"decisions; limit episodes by env.max_episode_steps, or raise resources.sample_timeout_s"
                )
            going.append(row)
        rows = going
    count_episodes(runner, done)
    return done


def _begin(runner: SingleAgentEnvRunner, env: gymnasium.Env, seed: int, name: str) -> _Row:
    episode = SingleAgentEpisode(id_=name, observation_space=env.observation_space, action_space=env.action_space)
    obs, info = env.reset(seed=seed)
    episode.add_env_reset(obs, info)
    return _Row(env, episode, np.random.default_rng(seed), runner.module.get_initial_state(), time.monotonic())


def _decide(runner: SingleAgentEnvRunner, rows: Sequence[_Row]) -> dict[str, Any]:
    """Columns [B, ...] of one decision of each row, as arrays."""
    module: Any = runner.module
    device, A = module.noise_bank.device, module.agent.model.action_size
    obs = np.stack([row.episode.get_observations(-1) for row in rows])
    index = np.array([row.rng.integers(len(module.noise_bank)) for row in rows])
    noise = np.stack([row.rng.standard_normal(A).astype(np.float32) for row in rows])
    batch = {
        Columns.OBS: torch.from_numpy(obs)[:, None].to(device),
        Columns.STATE_IN: {name: torch.stack([row.state[name].to(device) for row in rows]) for name in rows[0].state},
        NOISE_INDEX: torch.from_numpy(index).to(device),
        ACTION_NOISE: torch.from_numpy(noise).to(device),
    }
    outputs = module.forward_exploration(batch)
    states = outputs.pop(Columns.STATE_OUT)
    for b, row in enumerate(rows):
        row.state = {name: value[b] for name, value in states.items()}
    columns = {name: column[:, 0].cpu().numpy() for name, column in outputs.items()}
    return columns | {Columns.STATE_OUT: {name: value.cpu().numpy() for name, value in states.items()}}


def _of_row(outputs: dict[str, Any], b: int) -> dict[str, Any]:
    return {name: _of_row(column, b) if isinstance(column, dict) else column[b] for name, column in outputs.items()}


def _step(row: _Row, outputs: dict[str, Any]) -> None:
    action = outputs.pop(Columns.ACTIONS)
    obs, reward, terminated, truncated, info = row.env.step(action)  # which clips
    row.episode.add_env_step(
        observation=obs,
        action=action,
        reward=float(reward),
        infos=info,
        terminated=terminated,
        truncated=truncated,
        extra_model_outputs=outputs,
    )
