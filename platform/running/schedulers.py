"""Tune's schedulers, whose state is kept with the experiment's: a driver that was killed decides as if it had not been.

Tune saves trials and searches, not what a scheduler knows. `SchedulerState` is the callback that adds this.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from parsecrl.platform.cluster.tune_private import keep_searched, save_now
from parsecrl.platform.running.search_space import clipped, mutations
from parsecrl.platform.runs.stored_checkpoints import SCORE
from parsecrl.platform.specs import Phase

SHARE = 10  # a trial is judged first, or changed each time, after this part of its goal
REDUCTION, BRACKETS = 3, 3
LEAST_OTHERS = 3  # trials that the median is taken of


class SavedAtOnce:
    """Put before a scheduler whose trials cannot be made again: Tune saves each before it starts, and when it ends."""

    unsaved = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """As Tune asks."""
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        self.unsaved = True

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """As Tune asks."""
        super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]
        self.unsaved = True

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As Tune asks, before a trial starts."""
        if self.unsaved:
            self.unsaved = False
            save_now(tune_controller)
        return super().choose_trial_to_run(tune_controller)  # type: ignore[misc]


class Fifo(FIFOScheduler):
    """Trials in their order, to their ends; there is nothing to keep."""

    def kept(self) -> dict[str, Any]:
        """Plain data, for `bring_back`."""
        return {}

    def bring_back(self, state: dict[str, Any], trials: dict[str, Trial]) -> None:
        """Take over what `kept` gave in an earlier process, for the trials by their ids."""


class Asha(AsyncHyperBandScheduler):
    """ASHA in one bracket or several; keeps the scores at its rungs."""

    def kept(self) -> dict[str, Any]:
        """As `Fifo`."""
        of = {trial: self._brackets.index(bracket) for trial, bracket in self._trial_info.items()}
        return {"rungs": [dict(bracket._rungs) for bracket in self._brackets], "brackets": of}

    def bring_back(self, state: dict[str, Any], trials: dict[str, Trial]) -> None:
        """As `Fifo`. Rungs that are no more, after another goal, are left out."""
        for bracket, rungs in zip(self._brackets, state["rungs"], strict=False):
            for milestone, recorded in bracket._rungs:
                recorded.update(rungs.get(milestone, {}))
        for trial, number in state["brackets"].items():
            if trial in self._trial_info and number < len(self._brackets):
                self._trial_info[trial] = self._brackets[number]


class Median(MedianStoppingRule):
    """Median stopping; keeps of each trial's results the score and how far it was."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """As Tune asks."""
        return super().on_trial_result(tune_controller, trial, self._needed(result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """As Tune asks."""
        super().on_trial_complete(tune_controller, trial, self._needed(result))

    def _needed(self, result: dict[str, Any]) -> dict[str, Any]:
        return {key: result[key] for key in (self._time_attr, self._metric) if key in result}

    def kept(self) -> dict[str, Any]:
        """As `Fifo`."""
        return {
            "results": {trial.trial_id: rows for trial, rows in self._results.items()},
            "stopped": [trial.trial_id for trial in self._stopped_trials],
        }

    def bring_back(self, state: dict[str, Any], trials: dict[str, Trial]) -> None:
        """As `Fifo`."""
        for trial, rows in state["results"].items():
            if trial in trials:
                self._results[trials[trial]] = rows
        self._stopped_trials.update(trials[trial] for trial in state["stopped"] if trial in trials)


class Population(PopulationBasedTraining):
    """Population based training; keeps scores and times, and each trial's changed settings.

    Args:
        phase: Of the spec.
        options: Of Tune's class.
    """

    TIMES = ("last_score", "last_train_time", "last_perturbation_time", "last_result", "orig_tag")
    unsaved = False

    def __init__(self, phase: Phase, **options: Any):
        self.searched = tuple(phase.search)
        # Networks have the shapes and rates that they were built with: trials start anew with changed settings.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance")
        super().__init__(
            hyperparam_mutations=mutations(phase.search),
            custom_explore_fn=lambda config: clipped(config, phase.search),
            log_config=False,  # each result tells the settings
            require_attrs=False,
            **options,
        )

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        super()._exploit(tune_controller, trial, trial_to_clone)
        keep_searched(trial, self.searched)
        self.unsaved = True

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As Tune asks; what took over another's weights and settings is saved before it starts."""
        if self.unsaved:
            self.unsaved = False
            save_now(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def kept(self) -> dict[str, Any]:
        """As `Fifo`."""
        return {
            trial.trial_id: {
                **{key: getattr(state, key) for key in self.TIMES},
                "is_upper": state.last_checkpoint is not None,
            }
            for trial, state in self._trial_state.items()
        }

    def bring_back(self, state: dict[str, Any], trials: dict[str, Trial]) -> None:
        """As `Fifo`."""
        for trial, known in state.items():
            if trial in trials and trials[trial] in self._trial_state:
                here = self._trial_state[trials[trial]]
                for key in self.TIMES:
                    setattr(here, key, known[key])
                here.last_checkpoint = trials[trial].checkpoint if known["is_upper"] else None


class OneByOne(SavedAtOnce, Fifo):
    """`Fifo` for trials that cannot be made again."""


class OneByOneAsha(SavedAtOnce, Asha):
    """`Asha` for trials that cannot be made again."""


class OneByOneMedian(SavedAtOnce, Median):
    """`Median` for trials that cannot be made again."""


class SchedulerState(tune.Callback):
    """Saves a scheduler's state with Tune's own, and gives it back.

    Args:
        scheduler: One of this module.
        anew: Whether the scheduler forgets what an earlier process knew, as where trials that ended go on.
    """

    def __init__(self, scheduler: Any, anew: bool = False):
        self.scheduler, self.anew = scheduler, anew
        self._earlier: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks
        return {"scheduler": None, "anew": False, "_earlier": None}

    def get_state(self) -> dict[str, Any] | None:
        """As Tune asks whenever it saves."""
        kept = self._earlier if self._earlier is not None else self.scheduler.kept()
        return {"kept": kept} if kept else None

    def set_state(self, state: dict[str, Any]) -> None:
        """As Tune asks when it restores, before there are trials."""
        self._earlier = None if self.anew else state["kept"]

    def on_step_begin(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """In the first step after a restart, give the state back."""
        if self._earlier is not None:
            self.scheduler.bring_back(self._earlier, {trial.trial_id: trial for trial in trials})
            self._earlier = None


def scheduler_of(phase: Phase) -> TrialScheduler:
    """The scheduler of a phase's trials.

    Args:
        phase: Of the spec.

    Returns:
        One of this module; it counts in units of the phase's first stop condition.
    """
    key, goal = phase.goal
    measured = {"time_attr": phase.stop_conditions[key].result_key, "metric": SCORE, "mode": "max"}
    first = phase.grace_period or max(1, int(goal) // SHARE)
    drawn = phase.search_alg == "optuna"
    if phase.search_alg == "pbt":
        interval = phase.perturbation_interval or max(1, int(goal) // SHARE)
        return Population(phase, perturbation_interval=interval, **measured)
    if phase.scheduler == "median":
        # A trial never yields its place before the median is known: it would be saved and started again each time.
        options = {"grace_period": first, "min_samples_required": LEAST_OTHERS, "min_time_slice": float("inf")}
        return (OneByOneMedian if drawn else Median)(**measured, **options)
    if phase.scheduler == "none":
        return (OneByOne if drawn else Fifo)()
    brackets = BRACKETS if phase.scheduler == "hyperband" else 1
    asha = OneByOneAsha if drawn else Asha
    return asha(max_t=int(goal), grace_period=first, reduction_factor=REDUCTION, brackets=brackets, **measured)
