"""Gathering rollouts from remote runners while the learner updates."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


class Rollout(NamedTuple):
    """What one request to a runner brings back."""

    episodes: list[SingleAgentEpisode]
    metrics: dict[str, Any]
    seconds: float
    planning_seconds: float
    num_decisions: int


def collect(runner: SingleAgentEnvRunner, weights: Any, seed: int) -> Rollout:
    """Sample one fragment with these weights; runs inside the runner.

    The weights travel with the request, so that a runner acts with those of the moment when it was asked, also when it
    has just been restarted; so does the seed, which restarts the runner's random numbers. Environments are seeded by
    their first request only.
    """
    runner.set_state({"rl_module": weights})
    module: Any = runner.module
    module.seed(seed)
    runner._seed = seed
    module.planning_seconds, module.num_decisions = 0.0, 0
    start = time.perf_counter()
    episodes = runner.sample()
    seconds = time.perf_counter() - start
    return Rollout(episodes, runner.get_metrics(), seconds, module.planning_seconds, module.num_decisions)
