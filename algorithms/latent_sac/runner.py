"""Whole episodes of a policy; a discrete one has no forward pass for what was seen before."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate, islice
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.models.squashed_gaussian import squashed_mean, squashed_sample
from parsecrl.algorithms.training.episodes import play_episode
from parsecrl.algorithms.training.rllib_private import count_episodes
from parsecrl.algorithms.training.seeding import derive_seed

REMEMBERED = 10_000  # observations whose action probabilities are kept; they hold until the weights change
EXPECTED = 256  # of the last observations that were seen the probabilities are computed together, before an episode


class WholeEpisodeRunner(SingleAgentEnvRunner):
    """An EnvRunner that also plays its environments one after the other, each to an episode's end.

    The policy of Algorithm 1 stays the same within an episode, and a grid world has few observations. So the action
    probabilities of each are computed once, and those of the last EXPECTED ones together. RLlib's own `sample`, with
    its connectors at every step, still works.

    Args:
        **kwargs: RLlib's.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._recent: dict[bytes, np.ndarray] = {}  # what was seen last, the oldest first

    def play(self, weights: Any, seed: int, explore: bool = True, counted: bool = True) -> list[SingleAgentEpisode]:
        """Play an episode in each environment.

        Args:
            weights: Of the RLModule, that act.
            seed: Of all that is drawn, the resets among it.
            explore: Draw actions; otherwise the most probable one is taken.
            counted: Whether the runner's metrics count the episodes.

        Returns:
            The episodes.
        """
        self.set_state({"rl_module": weights})
        envs: list[gymnasium.Env] = self.env.unwrapped.envs
        known: dict[bytes, list[float]] = {}
        if self._recent and not self.module.continuous:
            rows = self._cumulative(np.stack(list(self._recent.values())), explore)
            known = dict(zip(self._recent, rows, strict=True))
        episodes = [self._episode(env, derive_seed(seed, "episode", i), explore, known) for i, env in enumerate(envs)]
        for episode in episodes if not self.module.continuous else ():
            for obs in episode.get_observations():
                key = obs.tobytes()
                self._recent.pop(key, None)
                self._recent[key] = obs
        self._recent = dict(islice(self._recent.items(), max(0, len(self._recent) - EXPECTED), None))
        if counted:
            count_episodes(self, episodes)
        return episodes

    def _episode(
        self, env: gymnasium.Env, seed: int, explore: bool, known: dict[bytes, list[float]]
    ) -> SingleAgentEpisode:
        rng = np.random.default_rng(seed)
        uniform = rng.random

        def act_continuously(obs: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
            raw = self._raw(obs[None], explore)
            eps = rng.standard_normal((1, raw.shape[-1] // 2), dtype=np.float32)
            drawn = squashed_sample(raw, torch.from_numpy(eps))[0] if explore else squashed_mean(raw)
            return drawn[0].numpy()

        def act(obs: np.ndarray, info: Mapping[str, Any]) -> int:
            key = obs.tobytes()
            cumulative = known.get(key)
            if cumulative is None:
                if len(known) >= REMEMBERED:
                    known.clear()
                (cumulative,) = self._cumulative(obs[None], explore)
                known[key] = cumulative
            return bisect_right(cumulative, uniform())

        played = play_episode(env, seed, act_continuously if self.module.continuous else act)
        return SingleAgentEpisode(
            observations=played.observations,
            actions=played.actions if self.module.continuous else [np.int64(action) for action in played.actions],
            rewards=played.rewards,
            terminated=played.terminated,
            truncated=played.truncated,
            t_started=0,
            len_lookback_buffer=0,
        )

    @torch.no_grad()
    def _cumulative(self, observations: np.ndarray, explore: bool) -> list[list[float]]:
        """Cumulative probabilities [A - 1] of each of [B, O].

        The number of those that are not above a uniform draw is the action.
        """
        logits = self._raw(observations, explore).double()  # [B, A]
        if not explore:
            best, A = logits.argmax(-1).tolist(), logits.shape[-1]
            return [[0.0 if a < b else 1.0 for a in range(A - 1)] for b in best]
        return [list(accumulate(row))[:-1] for row in logits.softmax(-1).tolist()]

    @torch.no_grad()
    def _raw(self, observations: np.ndarray, explore: bool) -> torch.Tensor:
        """What the module makes of [B, O], on the CPU."""
        device = next(self.module.parameters()).device
        batch = {Columns.OBS: torch.from_numpy(np.asarray(observations, np.float32)).to(device)}
        forward = self.module.forward_exploration if explore else self.module.forward_inference
        return forward(batch)[Columns.ACTION_DIST_INPUTS].cpu()
