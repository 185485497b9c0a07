"""Optuna's TPE as a phase's search; its study is a journal in the phase's folder.

The journal is ahead of what Tune saves: a trial is written there before Tune hears of it. After a kill, a trial that
only the journal knows was never started, and counts as failed; what both know goes on.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState
from ray.tune.search import SearchGenerator
from ray.tune.search.optuna import OptunaSearch

from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.runs.stored_checkpoints import SCORE
from parsecrl.platform.specs import Phase
from parsecrl.platform.specs.groups import Domain, in_order
from parsecrl.platform.storage import Location, RemotePath, write_atomically

JOURNAL = "optuna.journal"  # of Optuna's own format, a line an operation
STUDY = "parsec"
TRIAL = "trial"  # attribute of a study's trial: its id in Tune


class Journal(BaseJournalBackend):
    """A journal for one process: the run's lock keeps others away, and a lock that a kill left would keep this one.

    Args:
        file: On disk, where lines are added, or in an object store, where it is written anew.
    """

    def __init__(self, file: Location):
        self.file = file
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a kill in mid-write leaves half a line
        if whole != text:
            write_atomically(file, whole)
        self.lines = whole.splitlines()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """As Optuna asks."""
        return [json.loads(line) for line in self.lines[log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """As Optuna asks."""
        new = [json.dumps(log, separators=(",", ":")) for log in logs]
        self.lines += new
        if isinstance(self.file, RemotePath):
            write_atomically(self.file, "".join(f"{line}\n" for line in self.lines))
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in new)


class Tpe(OptunaSearch):
    """Tune's search with Optuna, whose study is a journal.

    Args:
        phase: Of the spec.
        folder: Of the phase.
        seed: Of the draws; a study that goes on draws others.
    """

    _ot_trials: dict[str, Any]  # Tune's id -> the study's trial, or its number

    def __init__(self, phase: Phase, folder: Location, seed: int):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(Journal(folder / JOURNAL))
        known = optuna.get_all_study_names(storage)
        asked = len(optuna.load_study(study_name=STUDY, storage=storage).trials) if STUDY in known else 0
        sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, f"study {asked}"))
        super().__init__(
            _space(phase.search), metric=SCORE, mode="max", sampler=sampler, study_name=STUDY, storage=storage
        )
        for trial in self._ot_study.get_trials(deepcopy=False):
            if name := trial.user_attrs.get(TRIAL):
                self._ot_trials[name] = trial.number
                if trial.state.is_finished():
                    self._completed_trials.add(name)

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its searches; the journal holds all of it
        return {}

    def forget_all_but(self, trials: Collection[str]) -> None:
        """Close the trials that Tune does not know: they were drawn, and never started.

        Args:
            trials: Ids of those that it knows.
        """
        for trial in self._ot_study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and trial.user_attrs.get(TRIAL) not in trials:
                self._ot_study.tell(trial.number, state=TrialState.FAIL)
        self._ot_trials = {name: number for name, number in self._ot_trials.items() if name in trials}

    @property
    def drawn(self) -> int:
        """How many trials there are."""
        return len(self._ot_trials)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """As Tune asks."""
        settings = super().suggest(trial_id)
        self._ot_trials[trial_id].set_user_attr(TRIAL, trial_id)
        return settings

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """As Tune tells; TPE looks at trials that ended."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """As Tune tells; of a trial that went on after its end the first score stays."""
        if trial_id not in self._completed_trials:
            score = (result or {}).get(SCORE)
            told = isinstance(score, int | float) and math.isfinite(score)
            super().on_trial_complete(trial_id, result if told else None, error=not told)

    def save(self, checkpoint_path: str) -> None:
        """As Tune asks, which looks for the file; the journal is written already."""
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """As Tune asks; the journal was read."""


class Study(SearchGenerator):
    """Trials of a study, until there are as many as the spec says.

    Args:
        searcher: The study.
        num_trials: How many.
    """

    def __init__(self, searcher: Tpe, num_trials: int):
        super().__init__(searcher)
        self.num_trials = num_trials

    def is_finished(self) -> bool:
        """By the study: what Tune saved of its own count may be older."""
        return self.searcher.drawn >= self.num_trials


def _space(search: Mapping[str, Domain]) -> Any:
    """What Optuna asks of each trial, with "/" between keys as Tune has them."""
    order = in_order(search)

    def draw(trial: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for key in order:
            if search[key].applies(chosen):
                chosen[key] = _suggest(trial, key.replace(".", "/"), search[key])
        return {key.replace(".", "/"): value for key, value in chosen.items()}

    return draw


def _suggest(trial: Any, name: str, domain: Domain) -> Any:
    if domain.is_list:
        if all(isinstance(value, str | int | float | bool | None) for value in domain.values):
            return trial.suggest_categorical(name, domain.values)
        return domain.values[trial.suggest_categorical(name, list(range(len(domain.values))))]
    low, high = domain.values
    log, step = "log" in domain.kind, domain.arguments[2:] or [None]
    if "int" in domain.kind:
        return trial.suggest_int(name, low, high, log=log, step=step[0] or 1)
    return trial.suggest_float(name, low, high, log=log, step=step[0])
