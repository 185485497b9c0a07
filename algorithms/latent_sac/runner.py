"""Whole episodes of a discrete policy, without a forward pass for what was seen before."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.seeding import derive_seed

REMEMBERED = 10_000  # observations whose action probabilities are kept; they hold until the weights change


class WholeEpisodeRunner(SingleAgentEnvRunner):
    """An EnvRunner that also plays its environments one after the other, each to an episode's end.

    The policy of Algorithm 1 stays the same within an episode, and a world of cells has few observations: the action
    probabilities of each are computed once. RLlib's own `sample`, with its connectors at every step, still works.
    """

    def play(self, weights: Any, seed: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """An episode in each environment with these weights. seed: of all that is drawn, the resets among it.

        explore: draw actions; otherwise the most probable one is taken.
        """
        self.set_state({"rl_module": weights})
        envs: list[gymnasium.Env] = self.env.unwrapped.envs
        known: dict[bytes, list[float]] = {}
        episodes = [self._episode(env, derive_seed(seed, "episode", i), explore, known) for i, env in enumerate(envs)]
        self._done_episodes_for_metrics.extend(episodes)
        self._increase_sampled_metrics(sum(len(episode) for episode in episodes), len(episodes))
        return episodes

    def _episode(
        self, env: gymnasium.Env, seed: int, explore: bool, known: dict[bytes, list[float]]
    ) -> SingleAgentEpisode:
        uniform = np.random.default_rng(seed).random
        obs, _ = env.reset(seed=seed)
        observations, actions, rewards = [obs], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            key = obs.tobytes()
            cumulative = known.get(key)
            if cumulative is None:
                if len(known) >= REMEMBERED:
                    known.clear()
                cumulative = known[key] = self._cumulative(obs, explore)
            action = np.int64(bisect_right(cumulative, uniform()))
            obs, reward, terminated, truncated, _ = env.step(action)
            observations.append(obs)
            actions.append(action)
            rewards.append(float(reward))
        return SingleAgentEpisode(
            observations=observations,
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            t_started=0,
            len_lookback_buffer=0,
        )

    @torch.no_grad()
    def _cumulative(self, obs: np.ndarray, explore: bool) -> list[float]:
        """Cumulative probabilities [A - 1]; the number of those that are not above a uniform draw is the action."""
        batch = {Columns.OBS: torch.from_numpy(np.asarray(obs, np.float32))[None].to(self._device)}
        forward = self.module.forward_exploration if explore else self.module.forward_inference
        logits = forward(batch)[Columns.ACTION_DIST_INPUTS][0].double()  # [A]
        if not explore:
            return [0.0 if a < int(logits.argmax()) else 1.0 for a in range(len(logits) - 1)]
        return list(accumulate(logits.softmax(-1).tolist()))[:-1]
