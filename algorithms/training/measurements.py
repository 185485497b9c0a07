"""What an algorithm measures of itself while it runs: how long plans take, and where the time goes.

Seconds are wall time. A runner plans, steps (everything else that it does for a rollout: environment, connectors,
loading weights) or waits for the next request. The main process learns, waits for rollouts, or does something else
(replay, results, checkpoints). Without remote runners the main process gathers them itself: its waiting is then the
runner's planning and stepping, and the runner's waiting is the main process's learning and the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # `parsec status` and the table of metrics import this module, and torch takes seconds
    from torch import Tensor

PREDICT_EVERY = 10  # plans of a rollout


class PlanTime(NamedTuple):
    """One call of a planner, which decides for a batch of environments."""

    seconds: float  # per decision: those of the call, over the batch's size
    decisions: int


class RolloutTimes(NamedTuple):
    """What a runner measured from the end of one rollout to the end of the next."""

    seconds: float = 0.0  # of the rollout itself
    planning_seconds: float = 0.0  # within it, with the belief's update
    waiting_seconds: float = 0.0  # before it
    num_decisions: int = 0  # random ones too
    plans: tuple[PlanTime, ...] = ()
    trajectories: int = 0  # candidate plans that the model rolled out
    entropy: float = float("nan")  # nats, mean over the plans of the last iteration's selection
    predicted_reward: float = float("nan")  # of a decision in a plan, mean over some plans and their horizon


class PlanLog:
    """Kept by a module that plans for a runner; nothing in it waits for a device until `finish`."""

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._begin(0.0)

    def _begin(self, waiting_seconds: float) -> None:
        self._waiting_seconds = waiting_seconds
        self._seconds, self._decisions = 0.0, 0
        self._plans: list[PlanTime] = []
        self._trajectories = 0
        self._entropies: list[Tensor] = []
        self._predicted: list[Tensor] = []

    @property
    def wants_prediction(self) -> bool:
        """Whether the next plan's own rewards are to be told: one more pass through the model, so not of every plan."""
        return len(self._plans) % PREDICT_EVERY == 0

    def begin(self) -> None:
        """A rollout begins."""
        self._started = time.perf_counter()
        self._begin(self._started - self._idle_since if self._idle_since is not None else 0.0)

    def add(
        self, seconds: float, decisions: int, trajectories: int, entropy: Tensor | None, predicted: Tensor | None = None
    ) -> None:
        """Count one call that decided for a batch of environments.

        Args:
            seconds: Wall time of the call.
            decisions: Size of the batch, >= 1.
            trajectories: Candidates that the model rolled out, in all; 0 for random actions, which are no plans.
            entropy: [B] nats of the selection, see `Solution.entropy`; None where nothing is selected.
            predicted: [B, H] rewards that the plans promise; None where nobody asked.
        """
        self._seconds += seconds
        self._decisions += decisions
        if trajectories:
            self._plans.append(PlanTime(seconds / decisions, decisions))
            self._trajectories += trajectories
        if entropy is not None:
            self._entropies.append(entropy.mean())
        if predicted is not None:
            self._predicted.append(predicted.mean())

    def finish(self) -> RolloutTimes:
        """The rollout has ended. Reads the device once."""
        entropy, predicted = _mean(self._entropies), _mean(self._predicted)
        self._idle_since = time.perf_counter()
        return RolloutTimes(
            self._idle_since - self._started,
            self._seconds,
            self._waiting_seconds,
            self._decisions,
            tuple(self._plans),
            self._trajectories,
            entropy,
            predicted,
        )


def _mean(values: Sequence[Tensor]) -> float:
    return float(sum(values) / len(values)) if values else float("nan")


class Measurements:
    """Gathered in the main process from one result to the next."""

    def __init__(self) -> None:
        self._last_result = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._main = {"learning": 0.0, "waiting": 0.0}
        self._rollouts: list[RolloutTimes] = []

    @contextmanager
    def time(self, activity: str) -> Iterator[None]:
        """Count what runs inside as "learning" or "waiting"."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._main[activity] += time.perf_counter() - start

    def add(self, rollout: RolloutTimes) -> None:
        """Count a runner's rollout in the next `take`."""
        self._rollouts.append(rollout)

    def take(self) -> dict[str, Any]:
        """What was measured since the last call, and begin anew.

        time_shares: process -> activity -> share, sum 1 for each process. plans: every `PlanTime`; planning_seconds:
        their mean, p50 and p95 over the decisions; soft_top_k_entropy: nats; predicted_reward: what plans promise for
        a decision. Without rollouts, the main process's shares alone.
        """
        now = time.perf_counter()
        main = {**self._main, "other": max(0.0, now - self._last_result - sum(self._main.values()))}
        rollouts = self._rollouts
        taken: dict[str, Any] = {"time_shares": {"main": _shares(main)}}
        if rollouts:
            planning = sum(r.planning_seconds for r in rollouts)
            runner = {
                "planning": planning,
                "stepping": sum(r.seconds for r in rollouts) - planning,
                "waiting": sum(r.waiting_seconds for r in rollouts),
            }
            taken["time_shares"]["runner"] = _shares(runner)
        plans = [plan for rollout in rollouts for plan in rollout.plans]
        if plans:
            taken["plans"] = plans
            taken["planning_seconds"] = summary(plans)
        for name, found in (
            ("soft_top_k_entropy", [r.entropy for r in rollouts if np.isfinite(r.entropy)]),
            ("predicted_reward", [r.predicted_reward for r in rollouts if np.isfinite(r.predicted_reward)]),
        ):
            if found:
                taken[name] = float(np.mean(found))
        self._last_result = now
        self._clear()
        return taken


def _shares(seconds: dict[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {activity: value / total for activity, value in seconds.items()}


def summary(plans: Sequence[PlanTime]) -> dict[str, float]:
    """Mean, p50 and p95 of planning time over the decisions.

    Args:
        plans: One or more.

    Returns:
        Seconds per decision, as "mean", "p50" and "p95"; each call counts once for each of its decisions.
    """
    seconds = np.repeat([plan.seconds for plan in plans], [plan.decisions for plan in plans])
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return {"mean": float(seconds.mean()), "p50": float(p50), "p95": float(p95)}
