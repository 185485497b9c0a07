"""What a trial asks of its runners beside RLlib's own metrics: simulator steps, whole returns, rewards, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback

from parsecrl.algorithms.rllib.runner import failure_of
from parsecrl.algorithms.training.rllib_phase import simulator_steps

STEPS, DECISIONS, RETURNS = "simulator_steps", "decisions", "ended_returns"
LOW, HIGH, AT_BOUNDS, ENTRIES = "reward_low", "reward_high", "actions_at_bounds", "action_entries"


class EpisodeCounts(RLlibCallback):
    """Logs sums of a sample; the trial adds them up, so that they go on from a checkpoint."""

    def __init__(self) -> None:
        self._running: dict[str, float] = {}  # return so far, by episode

    def on_sample_end(self, *, env_runner: Any, metrics_logger: Any, samples: Any, **kwargs: Any) -> None:
        """Count the pieces of episodes that a runner hands on."""
        for piece in samples:
            rewards = np.asarray(piece.get_rewards(), dtype=float)
            if not len(rewards):
                continue
            action_repeat = env_runner.config.env_config.get("action_repeat", 1)
            metrics_logger.log_value(STEPS, simulator_steps(piece, action_repeat), reduce="sum")
            metrics_logger.log_value(DECISIONS, len(rewards), reduce="sum")
            metrics_logger.log_value(LOW, float(rewards.min()), reduce="min")
            metrics_logger.log_value(HIGH, float(rewards.max()), reduce="max")
            actions = np.asarray(piece.get_actions())
            metrics_logger.log_value(AT_BOUNDS, int((np.abs(actions) > 0.99).sum()), reduce="sum")
            metrics_logger.log_value(ENTRIES, actions.size, reduce="sum")
            total = self._running.pop(piece.id_, 0.0) + float(rewards.sum())
            if piece.is_done:
                metrics_logger.log_value(RETURNS, total, reduce="item_series")
            else:
                self._running[piece.id_] = total

    def on_env_runners_recreated(self, *, env_runner_group: Any, env_runner_indices: Any, **kwargs: Any) -> None:
        """Raise what a runner met before RLlib asks that runner again; one whose process was lost goes on."""
        found = env_runner_group.foreach_env_runner(
            failure_of, local_env_runner=False, remote_worker_ids=list(env_runner_indices)
        )
        for failure in found:
            if failure is not None:
                failure.reraise()
