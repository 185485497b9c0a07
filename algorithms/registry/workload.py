"""What a trial asks of runners, cores, memory and storage, as `parsec capacity` asks it. Neither Ray nor torch.

Seconds are of one core, or of a GPU where the spec gives one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Constants:
    """One machine. Measured on two cores of an AMD EPYC without a GPU, 20 November 2026; see docs/capacity.md."""

    matrix_flops: float = 220e9  # FLOP/s of a core in [500, 200] x [200, 600]
    plan_flops: float = 155e9  # FLOP/s of a core in the matrix products of plans
    plan_step_s: float = 0.22e-3  # a model step of a plan, besides its FLOP
    update_flops: float = 97e9  # FLOP/s of a core in an update
    update_s: float = 65e-3  # an update, besides its FLOP
    gpu_flops: float | None = None  # the same for a whole GPU; none was at hand
    gpu_step_s: float = 0.12e-3
    env_step_s: float = 0.035e-3  # a simulator step
    decision_s: float = 0.72e-3  # a decision in one environment, besides its plan and its simulator steps
    store_s: float = 0.01e-3  # a decision, to take it from a runner into the replay
    request_s: float = 4.2e-3  # a request to a runner: weights out, fragment back
    sample_s: float = 2.5e-3  # a batch from the replay
    replay_bytes: float = 354.0  # a decision in memory
    stored_bytes: float = 96.0  # a decision in replay.npz
    stored_s: float = 0.38e-6  # a decision, to write it there
    checkpoint_s: float = 0.015  # a checkpoint without a replay
    checkpoint_bytes: float = 4.1e6
    weights_bytes: float = 2.0e6
    decision_bytes: float = 1200.0  # a decision on its way through the object store
    start_s: float = 10.0  # a trial, from its grant to its first rollout
    result_s: float = 1.5e-3  # the driver, for one result
    driver_checkpoint_s: float = 1.6e-3  # the driver, for one checkpoint
    state_s: float = 0.6e-3  # the driver, for each trial whenever it saves the experiment's state
    state_period_s: float = 5.0  # between two of these
    state_bytes: float = 123e3  # a trial in that state
    driver_bytes: float = 0.24e6  # a trial in the driver's memory
    storage_bytes_per_s: float = 200e6  # what the storage takes from all trials together: set it, it is not measured


class Sizes(NamedTuple):
    """What the environment fixes."""

    obs_size: int
    action_size: int
    episode_decisions: int  # of an episode


class Stage(NamedTuple):
    """A trial of one phase, as the queues see it; times in seconds, all of one core unless a GPU does them.

    A runner gathers a fragment, the main process learns from it. They overlap unless the phase learns between rounds.
    """

    name: str
    runners: int  # 0: the main process gathers too
    cores: float  # granted to the trial
    gather_s: float  # a fragment, by one runner
    gather_core_s: float  # the part of it that needs a core and no GPU
    learn_s: float  # its updates, storing it and fetching it
    learn_core_s: float
    fragment_steps: float  # environment steps in it
    fragments: float  # in the whole trial
    overlaps: bool
    per_iteration: float  # fragments between two results
    iterations_per_checkpoint: int
    checkpoint_s: float  # mean over the trial
    checkpoint_bytes: float  # likewise
    updates_per_step: float  # per environment step
    overhead_s: float  # start, seed episodes, updates without rollouts
    replay_bytes: float  # at the trial's end
    flight_bytes: float  # in the object store
    gpus: float
    evaluation_s: float = 0.0  # evaluations while training, a fragment's share of them; training waits


class Workplace(NamedTuple):
    """Where the work of a spec is done, and how quickly.

    action_repeat: Simulator steps of a decision. resources: The spec's group. constants: Of the machine.
    """

    sizes: Sizes
    action_repeat: int
    resources: Any
    constants: Constants

    @property
    def gpus(self) -> float:
        """GPUs of a trial."""
        r = self.resources
        return r.num_env_runners * r.num_gpus_per_env_runner + max(r.num_learners, 1) * r.num_gpus_per_learner

    @property
    def acting_s(self) -> float:
        """A decision in one environment, besides its plan."""
        return self.action_repeat * self.constants.env_step_s + self.constants.decision_s

    def plan_s(self, flop: float, steps: int, *, learner: bool = False) -> float:
        """How long a plan takes.

        Args:
            flop: Of its matrix products.
            steps: Model steps, one after the other.
            learner: Whether the learner makes it, not a runner.

        Returns:
            Seconds.

        Raises:
            ValueError: A GPU makes it, whose speed is not known.
        """
        r, c = self.resources, self.constants
        share = r.num_gpus_per_learner if learner else r.num_gpus_per_env_runner
        if not share:
            return flop / c.plan_flops + steps * c.plan_step_s
        return flop / (self._gpu_flops * min(share, 1.0)) + steps * c.gpu_step_s

    def update_s(self, flop: float) -> float:
        """How long a gradient update of a model takes, in seconds. Raises ValueError as `plan_s`."""
        share = self.resources.num_gpus_per_learner
        rate = self._gpu_flops * min(share, 1.0) if share else self.constants.update_flops
        return flop / rate + self.constants.update_s

    @property
    def _gpu_flops(self) -> float:
        if not self.constants.gpu_flops:
            raise ValueError(
                "the speed of a GPU is needed, as the spec's resources ask for one, and none was measured; "
                "give --gpu-flops, such as what `make bench` prints there for a plan (FLOP a second)"
            )
        return self.constants.gpu_flops
