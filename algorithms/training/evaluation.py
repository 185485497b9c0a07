"""Evaluation while a trial trains: the same episodes each time, without exploration, on seeds of their own.

The seeds are neither those of training nor those of `parsec evaluate`, so that a checkpoint that is chosen by them is
judged afterwards on episodes that had no part in the choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from parsecrl.algorithms.controllers.acting import ControlPolicy, PlanningPolicy
from parsecrl.algorithms.controllers.lockstep import episode_returns
from parsecrl.algorithms.registry.algorithm import EVALUATED_RETURN, EVALUATED_UPDATES, EVALUATION
from parsecrl.algorithms.training.owed import gather_owed
from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.algorithms.training.user_errors import Failure

ROLE = "evaluation"


class Evaluation:
    """When a trial is evaluated, and what came out last.

    Args:
        every: Simulator steps, or updates, between two evaluations; None: there is none.
        episodes: Of each.
        seed: Of the trial.
    """

    def __init__(self, every: int | None, episodes: int, seed: int):
        self.every, self.seed = every, seed
        self.seeds = [derive_seed(seed, ROLE, number) for number in range(episodes)]
        self._counted = 0  # at the last one
        self._updates = -1
        self._mean: float | None = None

    def results(
        self, counted: int, updates: int, training_return: float, play: Callable[[Sequence[int]], Sequence[float]]
    ) -> dict[str, Any]:
        """Evaluate where that is due.

        Args:
            counted: Simulator steps, or updates, so far.
            updates: So far; before the first there is no evaluation.
            training_return: The score where nothing was evaluated yet.
            play: Seeds of episodes -> their returns.

        Returns:
            For the trial's result: `score`, and with `every` mean and standard deviation of the returns, wall time in
            seconds. NaN where there was none. Of the last evaluation also the updates before it, and the mean again.
        """
        if self.every is None:
            return {"score": training_return}
        found = dict.fromkeys((EVALUATION, "evaluation_return_std", "evaluation_s"), float("nan"))
        if updates > 0 and counted // self.every > self._counted // self.every:
            began = time.perf_counter()
            returns = np.asarray(play(self.seeds), float)
            spread = float(returns.std(ddof=1)) if returns.size > 1 else float("nan")
            self._counted, self._updates, self._mean = counted, updates, float(returns.mean())
            found = dict(zip(found, (self._mean, spread, time.perf_counter() - began), strict=True))
        last = float("nan") if self._mean is None else self._mean
        score = training_return if self._mean is None else self._mean
        return {**found, EVALUATED_UPDATES: self._updates, EVALUATED_RETURN: last, "score": score}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"counted": self._counted, "updates": self._updates, "mean": self._mean}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
        self._counted, self._updates, self._mean = state["counted"], state["updates"], state["mean"]


class Evaluated(NamedTuple):
    """What a runner played: returns by the episodes' numbers."""

    returns: dict[int, float]
    failure: Failure | None = None


def returns_of_runners(algorithm: Any, seeds: Sequence[int]) -> list[float]:
    """Have an algorithm's runners play the agent of their modules, in environments of their own for it.

    Args:
        algorithm: Of RLlib; its modules have an `agent`, a PlanningAgent.
        seeds: Of the episodes.

    Returns:
        Their returns.

    Raises:
        Failed: As `gather_owed`.
        FailedForNow: As `gather_owed`.
        TimeoutError: As `gather_owed`.
    """
    config = algorithm.config
    request = partial(
        evaluate_in_runner,
        weights=algorithm.learner_group.get_weights(),
        seed=derive_seed(config.seed or 0, ROLE),
        seeds=list(seeds),
        patience_s=config.sample_timeout_s,
    )
    returns, _ = gather_owed(algorithm, len(seeds), request, lambda answer: answer.returns, "an evaluation")
    return returns


def evaluate_in_runner(
    runner: Any, weights: Any, seed: int, seeds: Sequence[int], patience_s: float, numbers: Sequence[int]
) -> Evaluated:
    """Play episodes; runs inside a runner, whose own episodes wait, and notice nothing.

    Args:
        runner: Its module has an `agent`.
        weights: Of the module.
        seed: Of the planner's candidates.
        seeds: Of all episodes.
        patience_s: The longest time that an episode may take.
        numbers: Of those that are played.

    Returns:
        Their returns; an exception inside a remote runner is the `failure`.

    Raises:
        Exception: What the task or the planner raises, where the runner is not remote.
    """
    module: Any = runner.module
    try:
        runner.set_state({"rl_module": weights})
        policy = PlanningPolicy(module.agent, seed)
        device = module.agent.trained.device
        policy.to(device)
        config = runner.config
        returns: list[float] = []
        size = max(1, config.num_envs_per_env_runner)  # as many as fit into the runner's memory otherwise
        for start in range(0, len(numbers), size):
            chosen = [seeds[number] for number in numbers[start : start + size]]
            returns += play_anew(policy, config.env, config.env_config, chosen, device, patience_s)
    except Exception as error:  # whatever the task or the planner raises
        if runner.worker_index == 0:
            raise
        return Evaluated({}, Failure.of(error))
    return Evaluated(dict(zip(numbers, returns, strict=True)))


def play_anew(
    policy: ControlPolicy, env: str, env_config: Mapping[str, Any], seeds: Sequence[int], device: Any, patience_s: float
) -> list[float]:
    """Play an episode of each seed in environments that are made for it.

    Args:
        policy: On the device.
        env: Gymnasium's id of the task.
        env_config: Its arguments.
        seeds: Of the episodes.
        device: Of the policy.
        patience_s: The longest time that an episode may take.

    Returns:
        The returns.

    Raises:
        RuntimeError: An episode takes longer.
    """
    began = time.monotonic()

    def check(decisions: int) -> None:
        if time.monotonic() - began > patience_s:
            raise RuntimeError(
                f"an episode of an evaluation did not end within sample_timeout_s={patience_s:g} s, after {decisions} "
                f"decisions; limit episodes by env.max_episode_steps, or raise resources.sample_timeout_s"
            )

    envs = [gymnasium.make(env, **env_config) for _ in seeds]
    try:
        return episode_returns(policy, envs, seeds, device, check)
    finally:
        for task in envs:
            task.close()
