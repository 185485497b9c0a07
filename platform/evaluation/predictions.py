"""What an agent's world model predicts along an episode, beside what came: observations, rewards and returns.

Predictions follow the actions that were then taken, from the belief before them, so that what is apart is the model's
error, and not that the agent plans anew at each decision.

Axes: T decisions of the episode, H horizon, O observation, A action.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parsecrl.algorithms.controllers.acting import PlanningPolicy, planning_noise
from parsecrl.envs import make_env
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.lockstep import Controller, check_sizes, episode_seed, play, resolve, torch_threads

ROWS = 512  # beliefs of a pass through the model


@dataclass(frozen=True)
class Predictions:
    """An episode, and what was predicted in it.

    obs: [T + 1, O], the first before any decision. rewards: [T]. predicted_obs [T, H, O] and predicted_rewards [T, H]:
    of decision t and the H - 1 after it, NaN beyond the episode's end. promised: [T] rewards of each plan, over its
    horizon. seed: Of the environment. is_whole: Whether the episode came to its end.
    """

    obs: np.ndarray
    rewards: np.ndarray
    predicted_obs: np.ndarray
    predicted_rewards: np.ndarray
    promised: np.ndarray
    seed: int
    is_whole: bool

    @property
    def horizon(self) -> int:
        """H."""
        return self.predicted_rewards.shape[1]

    @property
    def achieved(self) -> np.ndarray:
        """Sums [T] of the rewards over the horizon after each decision; NaN where the episode ended before."""
        T, H = self.predicted_rewards.shape
        total = np.concatenate([[0.0], np.cumsum(self.rewards)])
        sums = np.full(T, np.nan)
        sums[: max(T - H + 1, 0)] = total[H:] - total[:-H] if T >= H else []
        return sums

    @property
    def explained(self) -> tuple[np.ndarray, np.ndarray]:
        """The shares of the variance that are predicted 1 to H decisions ahead: of rewards, and of observations [H].

        One minus the squared error over the squared deviation from the mean; of observations the mean over the entries
        that vary. NaN where nothing varies.
        """
        T, H = self.predicted_rewards.shape
        shares: list[tuple[float, float]] = []
        for ahead in range(H):
            known = T - ahead
            reward = _share(self.rewards[ahead:, None], self.predicted_rewards[:known, ahead, None])
            shares.append((reward, _share(self.obs[1 + ahead :], self.predicted_obs[:known, ahead])))
        rewards, observations = np.array(shares).T
        return rewards, observations

    def shown_entries(self, most: int) -> list[int]:
        """The entries of observations that vary most.

        Args:
            most: How many at most.

        Returns:
            Their numbers, rising.
        """
        order = np.argsort(-self.obs.std(0), kind="stable")
        return sorted(int(i) for i in order[:most] if self.obs[:, i].std() > 0)


def _share(real: np.ndarray, predicted: np.ndarray) -> float:
    deviation = ((real - real.mean(0)) ** 2).sum(0)
    error = ((real - predicted) ** 2).sum(0)
    varies = deviation > 1e-12 * len(real)
    return float((1 - error[varies] / deviation[varies]).mean()) if varies.any() else float("nan")


def predict_episode(
    controller: Controller,
    env: Mapping[str, Any] | None,
    seed: int,
    *,
    episode: int = 0,
    decisions: int | None = None,
    trust: bool | Collection[str] = False,
    patience_s: float | None = None,
    render_mode: str | None = None,
    draw: Callable[[Any], None] | None = None,
) -> Predictions | None:
    """Play an evaluation episode, and predict along it.

    Args:
        controller: As `evaluate` takes it.
        env: As `evaluate` takes it; None: that of the checkpoint.
        seed: The spec's, at least 0.
        episode: Its number, from 0.
        decisions: At most so many, at least 2; None: to the episode's end.
        trust: As `evaluate` has it.
        patience_s: As `evaluate` has it.
        render_mode: Of the environment, for `draw`.
        draw: Called with the environment after its reset and after each decision.

    Returns:
        The episode; None of an agent that plans in no world model.

    Raises:
        UserError: As `evaluate`, or the episode has fewer than two decisions.
        RunFailed: The patience ends.
    """
    policy, env = resolve(controller, env, trust, seed)
    check_sizes(policy, env, controller)
    if not isinstance(policy, PlanningPolicy):
        return None
    agent, horizon = policy.agent, policy.agent.controller.horizon
    noise, state = planning_noise(agent, seed), agent.initial_state(1)
    beliefs: list[Any] = []
    actions: list[np.ndarray] = []
    promised: list[float] = []

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal state
        belief = agent.update_belief(state, torch.as_tensor(obs))
        plan = agent.plan(belief, state, noise=noise)
        action = plan.actions[:, 0]
        state = agent.next_state(belief, action, plan)
        rewards = agent.model.predict_rewards(belief, plan.actions[:, None])
        beliefs.append(belief)
        promised.append(float(rewards.sum()))
        actions.append(action[0].numpy())
        return action.numpy()

    task = make_env(**env, render_mode=render_mode)
    seen: list[np.ndarray] = []
    rewards: list[float] = []
    is_whole, own_seed = False, episode_seed(seed, episode)
    try:
        with torch_threads(1):
            played = play(act, {0: task}, {0: own_seed}, 1, patience_s)
            for obs, steps in itertools.islice(played, None if decisions is None else decisions + 1):
                seen.append(obs[0].copy())
                rewards += [step.reward for step in steps]
                is_whole = any(step.is_over for step in steps)
                if draw is not None:
                    draw(task)
            if len(rewards) < 2:
                raise UserError(
                    f"predictions need an episode of two decisions or more, got {len(rewards)}; "
                    f"choose another environment"
                )
            predicted = _predicted(agent.model, beliefs, np.stack(actions), horizon)
    finally:
        task.close()
    return Predictions(np.stack(seen), np.array(rewards), *predicted, np.array(promised), own_seed, is_whole)


@torch.no_grad()
def _predicted(model: Any, beliefs: list[Any], actions: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T, H, O] and rewards [T, H] that follow actions [T, A] from each belief, NaN beyond the end."""
    T, A = actions.shape
    padded = np.concatenate([actions, np.zeros((horizon, A), actions.dtype)])
    ahead = torch.from_numpy(np.stack([padded[t : t + horizon] for t in range(T)])).clamp(-1, 1)  # [T, H, A]
    parts = []
    for start in range(0, T, ROWS):
        several = type(beliefs[0])(*(torch.cat(part) for part in zip(*beliefs[start : start + ROWS], strict=True)))
        parts.append(model.predict(several, ahead[start : start + ROWS, None]))
    obs, rewards = (torch.cat([part[i][:, 0] for part in parts]).double().numpy() for i in range(2))
    beyond = np.arange(T)[:, None] + np.arange(horizon) >= T
    obs[beyond], rewards[beyond] = np.nan, np.nan
    return obs, rewards
