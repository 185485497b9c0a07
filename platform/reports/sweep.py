"""A sweep as a table, and what it says: the effect of each searched key, how important it is, what was best and spent.

A row is a trial. A searched key called `seed` is no setting: it tells which rows pair.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from parsecrl.algorithms.reporting.statistics import mean_interval, verdict_of
from parsecrl.platform.reports.loaded_run import Phase
from parsecrl.platform.runs.results import PARAMETERS
from parsecrl.platform.specs import set_path
from parsecrl.platform.specs.groups import LISTS

SCORE, SEEDS, TRIAL, STEPS, SECONDS = "score", "seeds", "trial", "env_steps", "seconds"
SEED_KEY = "seed"
GROUPS = 5  # that a range of values is cut into
MOST_VALUES = 8  # of a key that is not cut
TAKEN_OUT = ("search", "search_alg", "scheduler", "grace_period", "perturbation_interval", "num_samples")


class Effect(NamedTuple):
    """The score of the trials that have one value of a key, or one from a group of them.

    `difference`, `low`, `high`: from the first value of the key, and its 95 % interval; NaN of the first value.
    """

    key: str
    value: str
    trials: int
    mean: float
    mean_low: float
    mean_high: float
    difference: float
    low: float
    high: float
    verdict: str  # better, worse, not told apart; reference


@dataclass(frozen=True)
class Sweep:
    """The trials of a phase, of one chain or several.

    Attributes:
        phase: Its name.
        searched: Dotted keys.
        keys: Of these the ones that took several values, seeds aside.
        rows: A trial each: its keys by their names, SCORE, SEEDS, TRIAL, STEPS, SECONDS.
        failed: Trials without a score.
        spec: The phase as the run's spec has it.
    """

    phase: str
    searched: tuple[str, ...]
    keys: tuple[str, ...]
    rows: pd.DataFrame
    failed: int
    spec: Mapping[str, Any]

    @property
    def is_full_grid(self) -> bool:
        """Whether every combination of values and seeds is there equally often, so that trials pair."""
        sizes = self.rows.groupby([*self.keys, SEEDS], dropna=False).size()
        whole = math.prod(self.rows[column].nunique(dropna=False) for column in (*self.keys, SEEDS))
        return len(sizes) == whole and sizes.nunique() == 1

    def groups_of(self, key: str) -> pd.Series:
        """Each trial's value of a key; of a number with many values, the group that the value lies in."""
        values = self.rows[key]
        numbers = numbers_of(values)
        if values.nunique() > MOST_VALUES and numbers is not None:
            cut = pd.qcut(numbers, GROUPS, duplicates="drop")
            return cut.cat.rename_categories([f"{i.left:.4g} to {i.right:.4g}" for i in cut.cat.categories])
        domain = (self.spec.get("search") or {}).get(key) or {}
        listed = [_cell(value) for kind in LISTS for value in domain.get(kind) or ()]
        order = [value for value in listed if value in set(values)] or sorted(values.unique(), key=_order)
        return values.astype(pd.CategoricalDtype(order, ordered=True))

    @cached_property
    def effects(self) -> list[Effect]:
        """Of every key, value by value."""
        return [effect for key in self.keys for effect in self._effects_of(key)]

    def _effects_of(self, key: str) -> list[Effect]:
        groups, paired = self.groups_of(key), self.is_full_grid
        others = [other for other in (*self.keys, SEEDS) if other != key]
        scores = {value: self.rows.loc[groups == value].set_index(others)[SCORE] for value in groups.cat.categories}
        first = next(iter(scores.values()))
        found = []
        for value, own in scores.items():
            difference = (math.nan,) * 3
            if own is not first:
                difference = _paired(own, first) if paired else _unpaired(own, first)
            word = "reference" if own is first else verdict_of(*difference[1:])
            found.append(Effect(key, str(value), len(own), *mean_interval(own.to_numpy()), *difference, word))
        return found

    @cached_property
    def importance(self) -> dict[str, float] | None:
        """Key -> its share of the score's variance by fANOVA (Hutter et al. 2014), the largest first.

        None where there is one key, fewer than ten trials, or no Optuna with scikit-learn.
        """
        if len(self.keys) < 2 or len(self.rows) < 10 or self.rows[SCORE].nunique() < 2:
            return None
        try:
            import optuna
            import sklearn  # noqa: F401  # Optuna's forest
        except ImportError:
            return None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kinds: dict[str, Any] = {}
        columns: dict[str, list[Any]] = {}
        for key in self.keys:
            numbers = numbers_of(self.rows[key])
            if numbers is not None:
                kinds[key] = optuna.distributions.FloatDistribution(float(numbers.min()), float(numbers.max()))
                columns[key] = numbers.tolist()
            else:
                texts = self.rows[key].map(str)
                kinds[key] = optuna.distributions.CategoricalDistribution(sorted(texts.unique()))
                columns[key] = texts.tolist()
        study = optuna.create_study(direction="maximize")
        for i, score in enumerate(self.rows[SCORE]):
            chosen = {key: columns[key][i] for key in self.keys}
            study.add_trial(optuna.trial.create_trial(params=chosen, distributions=kinds, value=float(score)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of keys, those of the most important keys first."""
        order = list(self.importance or self.keys)
        return list(itertools.combinations(order, 2))

    def best(self, count: int = 5) -> pd.DataFrame:
        """The trials with the highest scores."""
        return self.rows.sort_values(SCORE, ascending=False, kind="stable").head(count)

    @property
    def reproduction(self) -> str:
        """Lines of a spec that trains with the best trial's settings alone."""
        best = self.best(1).iloc[0]
        settings: dict[str, Any] = {key: None for key in TAKEN_OUT if key in self.spec}
        for key in self.searched:
            set_path(settings, key.split("."), _plain(best[key]))
        return yaml.safe_dump({"phases": {self.phase: settings}}, sort_keys=False, default_flow_style=None, width=100)

    @property
    def budget(self) -> dict[str, float]:
        """What was spent: trials, failed ones, environment steps and hours of all trials together."""
        return {
            "trials": len(self.rows) + self.failed,
            "failed": self.failed,
            STEPS: float(self.rows[STEPS].sum(min_count=1)),
            "hours": float(self.rows[SECONDS].sum(min_count=1)) / 3600,
        }


def sweep_of(phases: Mapping[int, Phase]) -> Sweep | None:
    """The sweep of a phase.

    Args:
        phases: The phase by the seed of its chain; one or more, of the same search.

    Returns:
        The sweep; None where nothing was searched, or fewer than two trials have a score.
    """
    first = next(iter(phases.values()))
    searched = list(first.spec.get("search") or {})
    records, failed = [], 0
    for seed, phase in phases.items():
        for trial in phase.trials:
            score = trial.last(SCORE)
            if score is None:
                failed += 1
                continue
            own = {key: _cell(trial.parameters.get(key)) for key in searched}
            seeds = [own[key] for key in searched if _is_seed(key)]
            fixed = {SCORE: score, SEEDS: "/".join(map(str, [seed, *seeds])), TRIAL: trial.name}
            records.append({**own, **fixed, STEPS: trial.last("env_steps"), SECONDS: trial.last("time_total_s")})
    rows = pd.DataFrame(records)
    if len(rows) < 2 or not searched:
        return None
    rows = rows.astype({STEPS: float, SECONDS: float})
    keys = tuple(key for key in searched if not _is_seed(key) and rows[key].nunique(dropna=False) > 1)
    return Sweep(first.name, tuple(searched), keys, rows, failed, first.spec) if keys else None


def numbers_of(values: pd.Series) -> pd.Series | None:
    """A key's values as numbers.

    Args:
        values: Of each trial.

    Returns:
        Numbers; None where some value is none, or true or false.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    truths = any(isinstance(value, bool | np.bool_) for value in values)
    return None if truths or numbers.isna().any() else numbers.astype(float)


def schedules_of(phase: Phase, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """How a key's value changed while trials ran, as under population based training.

    Args:
        phase: With its trials.
        key: Dotted, of numbers.

    Returns:
        Environment steps and values of each trial; empty where values did not change.
    """
    found = []
    for trial in phase.trials:
        x, y = trial.column("env_steps"), trial.column(f"{PARAMETERS}/{key}")
        keep = np.isfinite(x) & np.isfinite(y)
        if keep.any():
            found.append((x[keep], y[keep]))
    return found


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == SEED_KEY


def _order(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return (not number, value if number else str(value))


def _cell(value: Any) -> Any:
    """A value that can be counted and sorted: a list becomes its text."""
    return json.dumps(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """What `_cell` made of a value, as a spec says it."""
    if isinstance(value, str) and value.startswith("["):
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value


def _paired(own: pd.Series, first: pd.Series) -> tuple[float, float, float]:
    """Of trials that differ in one key alone."""
    levels = list(range(own.index.nlevels))
    means = [scores.groupby(level=levels).mean() for scores in (own, first)]
    return mean_interval((means[0] - means[1]).to_numpy())


def _unpaired(own: pd.Series, first: pd.Series) -> tuple[float, float, float]:
    """Of trials whose other keys differ too: Welch's interval."""
    mean = float(own.mean() - first.mean())
    if min(len(own), len(first)) < 2:
        return mean, math.nan, math.nan
    interval: Any = stats.ttest_ind(own, first, equal_var=False).confidence_interval()
    return mean, float(interval.low), float(interval.high)


def frame_of(effects: Sequence[Effect]) -> pd.DataFrame:
    """The effects as a table of numbers.

    Args:
        effects: Of `Sweep.effects`.

    Returns:
        A row each.
    """
    return pd.DataFrame(effects, columns=list(Effect._fields))
