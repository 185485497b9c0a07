"""What a person sees while a phase runs: one line that is brought up to date."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, EVALUATED_UPDATES, EVALUATION, UNTRAINED, StopCondition
from parsecrl.algorithms.reporting.diagnostics import KEYS, Finding, Returns, diagnose
from parsecrl.platform.running import interruption
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.runs.progress_record import TRIALS_FILE, Throttled, TrialRecord
from parsecrl.platform.runs.results import FAILURE, PARAMETERS, finite, fraction_done
from parsecrl.platform.specs import get_path
from parsecrl.platform.storage import Location
from parsecrl.platform.terminal import StatusLine, duration

LONGEST_NAME, LONGEST_WORD = 120, 30  # characters


class ResultHistory:
    """What the rules of `diagnostics` look at, of a trial's results; of many results every second is dropped."""

    LIMIT = 400

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self._stride, self._passed = 1, 0  # every how manieth result is kept, and how many came since
        self._last: list[float] = []

    def add(self, result: Mapping[str, Any]) -> None:
        """Keep a result's values."""
        self._last = [finite(get_path(result, key.split("/")), math.nan) for key in KEYS]
        self._passed += 1
        if self._passed < self._stride:
            return
        self._passed = 0
        self.rows.append(self._last)
        if len(self.rows) > self.LIMIT:
            self.rows, self._stride = self.rows[::2], 2 * self._stride  # the last one stays: LIMIT is even

    def series(self) -> dict[str, np.ndarray]:
        """What `diagnose` takes."""
        rows = [*self.rows, self._last] if self._passed else self.rows
        return dict(zip(KEYS, np.array(rows).T, strict=True))


def trial_name(trial: Trial) -> str:
    """The name of a trial: that of its folder, with the values that were searched for it.

    Args:
        trial: Of Tune.

    Returns:
        trial_00000, or trial_00000_horizon=12_keep_replay=True.
    """
    if begun := getattr(trial.storage, "trial_dir_name", None):  # which keeps its folder
        return begun
    number = f"trial_{trial.trial_id.rpartition('_')[2]}"
    words = [f"{key.rpartition('/')[2]}={_word(value)}" for key, value in (trial.evaluated_params or {}).items()]
    return "_".join([number, *words])[:LONGEST_NAME].rstrip("._-=")


def _word(value: Any) -> str:
    """A searched value, of characters that every file system and store takes."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-")[:LONGEST_WORD]


class StopWhenReached(tune.Stopper):
    """Stop a trial at the first of the spec's conditions; one that has learned nothing by then has failed.

    Args:
        conditions: Goals by the key of `stop`, one or more.
        known: Where results count each.
    """

    def __init__(self, conditions: Mapping[str, float], known: Mapping[str, StopCondition]):
        self.conditions, self.known = dict(conditions), dict(known)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial has reached a goal, or never will; writes into the result where it ends in vain."""
        counted = {self.known[key].result_key: key for key in self.conditions}
        if counted.keys().isdisjoint(result):
            name, key = next(iter(counted.items()))
            result.setdefault(FAILURE, f"its results hold no {name!r}, which stop.{key} counts; report it in step()")
            return True
        reached = fraction_done(self.conditions, self.known, result) >= 1.0
        if reached and UNTRAINED in result:
            result.setdefault(FAILURE, f"it ended without an update: {result[UNTRAINED]}")
        return reached

    def stop_all(self) -> bool:
        """Never: each trial ends by itself."""
        return False


class PhaseProgress(tune.Callback):
    """Keeps the status line; asks for checkpoints, marks them as whole and prunes them; backs Tune's state up.

    Args:
        phase: Its name.
        folder: Of the phase, in the run's.
        conditions: Goals by the key of `stop`.
        known: Where results count each.
        checkpoint_every: Results between two checkpoints of a trial, at least 1.
        dashboard: Address of Ray's, or empty.
        searched: Dotted keys of the config.
    """

    def __init__(
        self,
        phase: str,
        folder: str | Location,
        conditions: Mapping[str, float],
        known: Mapping[str, StopCondition],
        checkpoint_every: int = 1,
        dashboard: str = "",
        searched: Iterable[str] = (),
    ):
        self.phase, self.conditions, self.dashboard = phase, dict(conditions), dashboard
        self.known = {"env_steps": ENV_STEPS, **known}  # env_steps are shown where results have them
        self.folder: Location = Path(folder) if isinstance(folder, str) else folder
        self.checkpoint_every = checkpoint_every
        self.max_checkpoint_age_s = math.inf
        self.checkpointed: dict[str, float] = {}  # trial -> when it last wrote a checkpoint, or was first heard of
        self.searched = tuple(searched)  # dotted keys of the config
        self.line: StatusLine | None = None
        self.check_lock: Callable[[], None] | None = None  # raises once the run folder is another process's
        self.protected: set[str] = set()  # checkpoints that are never pruned
        self.settings_change = False  # while a trial runs; it may go on from another's checkpoint
        self.total_trials = 1
        self.ended_before = 0  # trials that an earlier driver saw end
        self.results: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        self.recent: dict[str, deque[tuple[float, float]]] = {}
        self.unplanned: dict[str, tuple[float, float]] = {}  # trial -> fraction and time before it planned or learned
        self.record: Throttled | None = None  # trials.json
        self.reason_of: Callable[[str], str | None] | None = None  # why a trial failed
        self.rest: Callable[[float], float] | None = None  # seconds behind the phase, by those of a whole trial
        self.random: Returns | None = None  # the random policy's returns, where the results do not tell them
        self.histories: dict[str, ResultHistory] = {}
        self.told: set[str] = set()  # rules whose findings were told
        self.next_show = -math.inf
        self.awaited: set[str] | None = None  # trials that write a checkpoint before the run stops

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks
        none = dict.fromkeys(("line", "check_lock", "awaited", "record", "reason_of", "rest"))
        names = ("results", "recent", "checkpointed", "histories", "unplanned")
        empty: dict[str, Any] = {name: {} for name in names}
        return {**self.__dict__, **none, **empty, "told": set()}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        """As Tune asks: show that the phase starts."""
        self.total_trials = total_num_samples or 1
        self._show(f"{self.phase}: starting" + self._where())

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Check the lock, and end the experiment where it was asked to stop."""
        if self.check_lock is not None:
            self.check_lock()
        self._record(trials)
        if interruption.requested() and not self._await_checkpoints(trials):
            interruption.end_experiment()

    def _await_checkpoints(self, trials: list[Trial]) -> set[str]:
        """The trials that were running when the run was asked to stop, and still owe a checkpoint."""
        running = {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
        self.awaited = running if self.awaited is None else self.awaited & running
        return self.awaited

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Ask for a checkpoint where one is due, and show how far the phase is."""
        due = result.get("done") or result.get("training_iteration", 0) % self.checkpoint_every == 0
        due = due or interruption.requested() or math.isfinite(finite(result.get(EVALUATION), math.nan))
        since = self.checkpointed.setdefault(trial.trial_id, time.monotonic())
        due = due or time.monotonic() - since > self.max_checkpoint_age_s
        # Not Tune's own checkpoint_frequency: a trial that failed shall keep its last good checkpoint as its last.
        result["should_checkpoint"] = bool(due) and FAILURE not in result
        self.total_trials = max(self.total_trials, len(trials))
        self.results[trial.trial_id] = result
        self.names[trial.trial_id] = trial_name(trial)
        self.histories.setdefault(trial.trial_id, ResultHistory()).add(result)
        moments, done = (
            self.recent.setdefault(trial.trial_id, deque(maxlen=10)),
            fraction_done(self.conditions, self.known, result),
        )
        if result.get("num_updates") == 0:  # random steps cost next to nothing, and say nothing of planned ones
            moments.clear()
            self.unplanned[trial.trial_id] = (done, finite(result.get("time_total_s"), 0.0))
        else:
            moments.append((time.monotonic(), done))
        # The settings of a trial, which no result changes, are most of it: Tune would keep them with each checkpoint,
        # log them with each result, and write all of that every few seconds. They are in the trial's params.json.
        result.pop("config", None)
        if self.settings_change:
            result[PARAMETERS] = self._parameters(trial)
        self._show_progress(trials)

    def _show_progress(self, trials: list[Trial]) -> None:
        """Looks at all trials, so with thousands of them not at every result: at most a twentieth of the time."""
        start = time.monotonic()
        if start >= self.next_show:
            self.ended_before = sum(t.is_finished() and t.trial_id not in self.results for t in trials)
            self._show(self.describe(running=sum(t.status == Trial.RUNNING for t in trials)))
            now = time.monotonic()
            self.next_show = now + 19 * (now - start)

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """Mark the checkpoint as whole, and prune older ones."""
        self.checkpointed[trial.trial_id] = time.monotonic()
        trial_folder, name = PurePosixPath(checkpoint.path).parts[-2:]
        if interruption.requested():
            self._await_checkpoints(trials).discard(trial.trial_id)
        stored_checkpoints.mark_whole(self.folder / trial_folder / name, trial.last_result, self._parameters(trial))
        population = trials if self.settings_change else []
        needed = {self._address(other.checkpoint) for other in population if other.checkpoint is not None}
        stored_checkpoints.prune(self.folder, trial_folder, self.protected | needed)

    def _address(self, checkpoint: Any) -> str:
        trial_folder, name = PurePosixPath(checkpoint.path).parts[-2:]
        return str(self.folder / trial_folder / name)

    def _parameters(self, trial: Trial) -> dict[str, Any]:
        return {key: get_path(trial.config, key.split(".")) for key in self.searched}

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Show the last line."""
        self._record(trials, now=True)
        if self.results:
            self._show(self.describe(running=0), final=True)

    def _record(self, trials: list[Trial], *, now: bool = False) -> None:
        """Write trials.json where it is due."""
        self.record = self.record or Throttled(self.folder / TRIALS_FILE)
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        self.record.write(
            lambda: {
                "left_s": self.seconds_left(running) if running else None,
                "total": max(self.total_trials, len(trials)),
                "trials": [self._trial_record(t) for t in trials if t.status != Trial.PENDING],
            },
            now=now,
        )

    def _trial_record(self, trial: Trial) -> TrialRecord:
        result = self.results.get(trial.trial_id) or trial.last_result or {}
        score = finite(result.get(stored_checkpoints.SCORE), math.nan)
        reason = result.get(FAILURE) or (self.reason_of(trial.trial_id) if self.reason_of else None)
        if reason is None and trial.status == Trial.ERROR:
            reason = "no reason known"
        done = fraction_done(self.conditions, self.known, result)
        return TrialRecord(trial_name(trial), trial.status, done, None if math.isnan(score) else score, reason)

    def describe(self, running: int) -> str:
        """phase: env steps 4,000 of 12,000 | return 35 | 5.1 ms a plan | 12 min left | dashboard"""
        latest = list(self.results.values())
        leader = max(self.results, key=lambda t: finite(self.results[t].get(stored_checkpoints.SCORE), -math.inf))
        best = self.results[leader]
        furthest = max(latest, key=lambda r: fraction_done(self.conditions, self.known, r))
        parts = []
        acts = "env_steps" in furthest
        for key in dict.fromkeys(["env_steps"] * acts + list(self.conditions)):
            done = finite(furthest.get(self.known[key].result_key), 0.0)
            goal = f" of {self.conditions[key]:,.0f}" if key in self.conditions else ""
            parts.append(f"{done:,.0f}{goal} {self.known[key].label}")
        score = finite(best.get(stored_checkpoints.SCORE), math.nan)
        word = "score" if not acts else "evaluated return" if best.get(EVALUATED_UPDATES, -1) >= 0 else "return"
        parts.append(f"{word} {'-' if math.isnan(score) else f'{score:.4g}'}")
        if not math.isnan(planning := finite(furthest.get("planning_ms"), math.nan)):
            parts.append(f"{planning:.3g} ms a plan")
        if self.total_trials > 1:
            parts.append(f"best {self.names.get(leader, leader)}")
            ended = self.ended_before + sum(bool(r.get("done")) for r in latest)
            parts.append(f"{ended} of {self.total_trials} trials ended")
        if running and (left := self.seconds_left(running)) is not None:
            parts.append(f"{duration(left)} left{self._of_run(left)}")
        parts += [f"warning: {finding.label}" for finding in self._findings(leader)]
        return f"{self.phase}: " + " | ".join(parts) + self._where()

    def _of_run(self, left: float) -> str:
        """Said after the phase's time left: that of the run, where more than the phase is left of it."""
        trials_s = [1.0 / pace for pace in map(self._pace, self.results) if pace > 0.0]
        after = self.rest(sum(trials_s) / len(trials_s)) if self.rest and trials_s else 0.0
        return f", {duration(left + after)} of the run" if after > 0.0 else ""

    def _findings(self, trial_id: str) -> list[Finding]:
        """What is wrong with a trial so far; each rule's finding is told in full when it comes up first."""
        history = self.histories.get(trial_id)
        found = diagnose(history.series(), self.random) if history else []
        for finding in found:
            if finding.rule not in self.told and self.line is not None:
                self.told.add(finding.rule)
                self.line.note(f"{self.phase}: warning: {finding.sentence}")
        return found

    def seconds_left(self, running: int) -> float | None:
        """At the pace of each trial's last results since it plans or learns; trials yet to start take as long."""
        left, whole = [], []
        for trial_id, result in self.results.items():
            if (pace := self._pace(trial_id)) > 0.0:
                done = fraction_done(self.conditions, self.known, result)
                left.append(0.0 if result.get("done") else max(0.0, 1.0 - done) / pace)
                whole.append(1.0 / pace)
        if not left:
            return None
        waiting = max(0, self.total_trials - self.ended_before - len(left)) * sum(whole) / len(whole)
        return (sum(left) + waiting) / max(1, running)

    def _pace(self, trial_id: str) -> float:
        """The fraction of the goal that a trial reaches in a second; 0 before it plans or learns."""
        moments = self.recent[trial_id]
        if not moments:
            return 0.0
        pace = (moments[-1][1] - moments[0][1]) / max(moments[-1][0] - moments[0][0], 1e-9)
        if pace <= 0.0:
            result = self.results[trial_id]
            done_before, seconds_before = self.unplanned.get(trial_id, (0.0, 0.0))
            seconds = finite(result.get("time_total_s"), 0.0) - seconds_before
            pace = (fraction_done(self.conditions, self.known, result) - done_before) / max(seconds, 1e-9)
        return max(pace, 0.0)

    def _where(self) -> str:
        return f" | dashboard {self.dashboard}" if self.dashboard else ""

    def _show(self, text: str, *, final: bool = False) -> None:
        self.line = self.line or StatusLine()
        self.line.show(text, final=final)
