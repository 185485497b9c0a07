"""What a run does about failures: whether and how often a trial starts again, and how long it waits in vain."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from parsecrl.algorithms.training.user_errors import is_lasting, sentence_of
from parsecrl.platform.cluster.nodes import Cluster, resources
from parsecrl.platform.errors import RunFailed
from parsecrl.platform.terminal import StatusLine

# A longer step of the driver counts as so many seconds of waiting: it was held up itself, as by a store that is away.
LONGEST_STEP_S = 10.0


class FaultRules(tune.Callback):
    """Restarts without end for a trial that gets on, few for one that does not; and an end to waiting in vain.

    What code raised, and would raise again, ends the trial at once (`judged`). A trial that lost a process, or met
    another fault of the machine, goes on from its last checkpoint.

    Args:
        phase: Its name, for messages.
        max_failures: So many times in a row a trial may fail, at least 0. Each new checkpoint starts the count again:
            what a long run on unreliable nodes meets does not add up.
        patience_s: For so many seconds the phase may go without a result of any trial. Then RunFailed says what was
            asked for and what there is.
    """

    def __init__(self, phase: str, max_failures: int, patience_s: float):
        self.phase, self.max_failures, self.patience_s = phase, max_failures, patience_s
        self.waited_s = 0.0
        self._last_step: float | None = None
        self._knows_trials = False  # since this driver's first step
        self._sentences: dict[str, str] = {}  # trial -> what it met last
        self.line: StatusLine | None = None
        self._cluster = Cluster()

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks
        own: dict[str, Any] = {
            "_last_step": None,
            "_knows_trials": False,
            "_sentences": {},
            "line": None,
            "_cluster": Cluster(),
        }
        return {**self.__dict__, **own}

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """As Tune asks: remember what the cluster has."""
        self._cluster.look()

    def judged(self) -> AbstractContextManager[None]:
        """Within it, Tune asks these rules about every failure."""
        from parsecrl.platform.cluster.tune_private import failures_judged

        return failures_judged(self._is_lasting)

    def _is_lasting(self, trial: Trial, error: Exception | None) -> bool:
        if error is None:
            return False
        self._sentences[trial.trial_id] = sentence_of(error)
        return is_lasting(error)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """In the first step, give every trial the limit of failures, and count anew."""
        if self._knows_trials:
            return
        self._knows_trials = True
        for trial in trials:  # of a restored experiment, which brings along how often they failed
            trial.max_failures = self.max_failures
            trial.run_metadata.num_failures = 0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Give the trial the limit of failures."""
        trial.max_failures = self.max_failures  # a restored experiment brings along what it began with

    def reason_of(self, trial_id: str) -> str | None:
        """Why a trial failed last, in a sentence; None of one that has not."""
        return self._sentences.get(trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Say which trial of several failed, and why."""
        if self.line is not None and len(trials) > 1:  # of a single one the phase's end says it
            name = PurePosixPath(trial.path or trial.trial_id).name
            self.line.note(f"{self.phase}: {name} failed: {self._sentences.get(trial.trial_id, 'no reason known')}")

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """Count the trial's failures anew."""
        trial.run_metadata.num_failures = 0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Count the waiting anew."""
        self.waited_s = 0.0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Raise RunFailed where no trial has told a result for `patience_s`."""
        now = time.monotonic()
        self.waited_s += min(now - (now if self._last_step is None else self._last_step), LONGEST_STEP_S)
        self._last_step = now
        if self.waited_s > self.patience_s:
            raise RunFailed(
                f"phase {self.phase} got no result for resources.no_progress_timeout_s={self.patience_s:g} s: "
                f"{self._state_of(trials)}; {self._cluster.describe()}; the same command continues, and a larger "
                f"timeout waits longer"
            )

    def _state_of(self, trials: list[Trial]) -> str:
        parts = []
        waiting = [trial for trial in trials if trial.status == Trial.PENDING]
        if running := sum(trial.status == Trial.RUNNING for trial in trials):
            parts.append(f"{running} trial{'s run' if running > 1 else ' runs'} and told nothing")
        if waiting:
            asked = waiting[0].placement_group_factory
            bundles = " + ".join(f"({resources(bundle)})" for bundle in asked.bundles)
            together = f", each {bundles} on one node" if len(asked.bundles) > 1 else ""
            parts.append(
                f"{len(waiting)} trial{'s wait' if len(waiting) > 1 else ' waits'} for "
                f"{resources(asked.required_resources)}{together}"
            )
        return ", ".join(parts) or "no trial is left"

    def lost_nodes(self) -> str:
        """In words, with a semicolon before them; empty if none was lost since the phase began."""
        lost = self._cluster.lost()
        return f"; the cluster lost {', '.join(lost)}" if lost else ""
