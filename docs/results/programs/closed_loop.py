"""What searches.py and pessimism.py share: a checkpoint's replay as sequences, and a controller's episodes."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.models import ReplaySequence
from parsecrl.envs import make_env


class Played(NamedTuple):
    """E episodes of T decisions."""

    rewards: np.ndarray  # [E, T] of the environment
    predicted: np.ndarray  # [E, T] what each plan promises over its horizon
    seconds: float  # of the processor, a decision and episode


def replay(checkpoint: str) -> tuple[Tensor, Tensor, Tensor]:
    """Whole episodes of one length: observations [E, T + 1, O], actions [E, T, A], rewards [E, T]."""
    with np.load(Path(checkpoint) / "replay.npz", allow_pickle=False) as arrays:
        lengths, obs, action, reward = (arrays[name] for name in ("length", "obs", "action", "reward"))
    T = lengths.max()
    whole = np.flatnonzero(lengths == T)
    ends = np.cumsum(lengths)
    rows = [slice(ends[i] - T, ends[i]) for i in whole]
    seen = [slice(ends[i] - T + i, ends[i] + i + 1) for i in whole]  # an episode has one more observation
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(np.stack([values[part] for part in parts]))
        for values, parts in ((obs, seen), (action, rows), (reward, rows))
    )


def slices(data: tuple[Tensor, Tensor, Tensor], B: int, T: int, generator: torch.Generator) -> ReplaySequence:
    """B random slices of T steps of `replay`'s episodes."""
    obs, action, reward = data
    e = torch.randint(len(obs), (B, 1), generator=generator)
    t = torch.randint(1, action.shape[1] - T + 1, (B, 1), generator=generator) + torch.arange(T)
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[:, 0] = True
    return ReplaySequence(obs[e, t], action[e, t], reward[e, t - 1], is_first, torch.zeros_like(is_first))


def agent_like(agent: PlanningAgent, controller: dict[str, Any], decoder: dict[str, Any], ensemble: int = 1) -> Any:
    """An agent with another's weights, as far as both have them, and a controller of its own."""
    model = agent.model
    sizes = {"deterministic_size": model.deterministic_size, "stochastic_size": model.stochastic_size}
    torch.manual_seed(0)
    made = PlanningAgent(model.obs_size, model.action_size, {**sizes, "ensemble": ensemble}, controller, decoder)
    made.model.load_state_dict(copy.deepcopy(model.state_dict()), strict=False)
    return made.eval()


@torch.no_grad()
def play(agent: PlanningAgent, env: dict[str, Any], seeds: list[int], decisions: int) -> Played:
    """Episodes side by side, one a seed; what a plan promises is the model's prediction of its rewards alone."""
    tasks = [make_env(**env) for _ in seeds]
    obs = np.stack([task.reset(seed=seed)[0] for task, seed in zip(tasks, seeds, strict=True)])
    state, generator = agent.initial_state(len(seeds)), torch.Generator().manual_seed(seeds[0])
    rewards, predicted, seconds = [], [], 0.0
    for _ in range(decisions):
        start = time.process_time()
        belief = agent.update_belief(state, torch.as_tensor(obs, dtype=torch.float32))
        plan = agent.plan(belief, state, generator)
        seconds += time.process_time() - start
        predicted.append(agent.model.predict_rewards(belief, plan.actions[:, None]).sum(-1)[:, 0].numpy())
        action = plan.actions[:, 0]
        state = agent.next_state(belief, action, plan)
        steps = [task.step(u) for task, u in zip(tasks, action.numpy(), strict=True)]
        obs = np.stack([step[0] for step in steps])
        rewards.append([float(step[1]) for step in steps])
    for task in tasks:
        task.close()
    return Played(np.array(rewards).T, np.array(predicted).T, seconds / decisions / len(seeds))
