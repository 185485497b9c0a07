"""Gathering rollouts from remote runners while the learner updates."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any, NamedTuple

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.training.measurements import RolloutTimes
from parsecrl.algorithms.training.rllib_private import seed_runner
from parsecrl.algorithms.training.user_errors import Failure


class Rollout(NamedTuple):
    """What one request to a runner brings back; `failure` is what went wrong in it, if anything did."""

    episodes: list[SingleAgentEpisode]
    metrics: dict[str, Any]
    times: RolloutTimes
    failure: Failure | None = None


def collect(
    runner: SingleAgentEnvRunner,
    weights: Any,
    seed: int,
    play: Callable[[SingleAgentEnvRunner], list[SingleAgentEpisode]] = methodcaller("sample"),
) -> Rollout:
    """Sample one fragment with given weights; runs inside the runner.

    The weights travel with the request: a runner acts with those of the moment when it was asked, also when it has
    just been restarted. So does the seed, which restarts the runner's random numbers. Environments are seeded by their
    first request only.

    Args:
        runner: Its module has `plan_log` and `seed`, as PlanetRLModule.
        weights: Of the module.
        seed: Of the module's draws.
        play: Has the runner play.

    Returns:
        The fragment; an exception inside a remote runner is its `failure`.

    Raises:
        Exception: What the task or the planner raises, where the runner is not remote.
    """
    module: Any = runner.module
    module.plan_log.begin()
    runner.set_state({"rl_module": weights})
    module.seed(seed)
    seed_runner(runner, seed)
    try:
        episodes = play(runner)
    except Exception as error:  # whatever the task or the planner raises
        if runner.worker_index == 0:
            raise
        # RLlib would take an exception for a lost runner, and ask it again without a word.
        return Rollout([], {}, RolloutTimes(), Failure.of(error))
    return Rollout(episodes, runner.get_metrics(), module.plan_log.finish())
