"""Trials of studies put together: of one phase in several runs, parts of a sweep; of one run's worlds, its phases."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from parsecrl.platform.analysis import FOLDER, read_tables
from parsecrl.platform.reports import studies
from parsecrl.platform.reports.data import Phase, Run

NOT_SETTINGS = ("search", "seed", "checkpoint_every", "num_cpus_per_trial", "num_gpus_per_trial")


@dataclass(frozen=True)
class Pool:
    """A phase as several runs have it.

    phase: as the first of them. spec: the phase's spec, with all that they searched. tables: each trial's rows once.
    runs: their names. repeated: how many trials came more than once, of which the first run's was kept.
    """

    phase: Phase
    spec: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    runs: tuple[str, ...]
    repeated: int


@dataclass(frozen=True)
class Study:
    """What is shown together: a pool, or those of one algorithm in worlds of their own.

    phase: as the first of them, with the names of all.
    """

    phase: Phase
    tables: dict[str, pd.DataFrame]
    pools: tuple[Pool, ...]

    @property
    def names(self) -> str:
        return ", ".join(pool.phase.name for pool in self.pools)

    @property
    def repeated(self) -> int:
        return sum(pool.repeated for pool in self.pools)


def studies_of(runs: Sequence[tuple[str, Run]]) -> list[Study]:
    """The studies of one run or of several, each with a name.

    Phases of an algorithm are one study where each has worlds that no other has: the paper's comparison in three worlds
    is one table then, and one figure with three panels.
    """
    groups: list[list[Pool]] = []
    for pool in pools(runs):
        group = next((g for g in groups if _fits(pool, g)), None)
        if group is None:
            groups.append([pool])
        else:
            group.append(pool)
    return [_study(group) for group in groups]


def _fits(pool: Pool, group: Sequence[Pool]) -> bool:
    def worlds(one: Pool) -> set[str]:
        return {env for table in one.tables.values() for env in table["env"]}

    first = group[0]
    if "env" not in studies.trial_columns(pool.phase) or pool.phase.algorithm != first.phase.algorithm:
        return False
    return pool.runs == first.runs and not any(worlds(pool) & worlds(other) for other in group)


def _study(group: Sequence[Pool]) -> Study:
    tables: dict[str, list[pd.DataFrame]] = {}
    for pool in group:
        for name, table in pool.tables.items():
            tables.setdefault(name, []).append(table)
    phase = replace(group[0].phase, name="-".join(pool.phase.name for pool in group))
    return Study(phase, {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}, tuple(group))


def pools(runs: Sequence[tuple[str, Run]]) -> list[Pool]:
    """The studies of runs, each with a name: those of one phase that differ in what they searched alone are pooled.

    Studies whose tables have rows of no trial or of several stay apart, as do those with other settings or another run
    seed, which make another experiment of the same trial.
    """
    groups: dict[str, list[tuple[str, Run, Phase]]] = {}
    for label, run in runs:
        for phase in run.studies:
            key = [phase.name, run.spec.get("seed", 0), _settings(phase.spec)]
            if not studies.trial_columns(phase):
                key.append(label)
            groups.setdefault(json.dumps(key, sort_keys=True), []).append((label, run, phase))
    return [_pool(members) for members in groups.values()]


def write_pools(folder: Path, name: str, spec: dict[str, Any], pooled: Sequence[Pool]) -> None:
    """Make of a folder what can be reported on, compared and pooled like a run: its spec and its tables."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**spec, "name": name, "phases": [pool.spec for pool in pooled]}
    (folder / "spec.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    for pool in pooled:
        place = folder / FOLDER / pool.phase.name
        place.mkdir(parents=True, exist_ok=True)
        for table, rows in pool.tables.items():
            rows.to_csv(place / f"{table}.csv", index=False)


def _pool(members: Sequence[tuple[str, Run, Phase]]) -> Pool:
    columns = list(studies.trial_columns(members[0][2]))
    kept: dict[str, list[pd.DataFrame]] = {}
    seen: set[tuple[Any, ...]] = set()
    repeated = 0
    for _, run, phase in members:
        tables = read_tables(run.folder, phase.name)
        here = {trial for table in tables.values() for trial in _trials(table, columns)}
        repeated += len(here & seen)
        for name, table in tables.items():
            is_new = [trial not in seen for trial in table[columns].itertuples(index=False, name=None)]
            kept.setdefault(name, []).append(table[is_new] if columns else table)
        seen |= here
    phase = members[0][2]
    spec = copy.deepcopy(phase.spec)
    for _, _, other in members[1:]:
        for key, domain in (other.spec.get("search") or {}).items():
            own = spec["search"][key]
            if "grid" in domain and "grid" in own:
                own["grid"] = [*own["grid"], *(value for value in domain["grid"] if value not in own["grid"])]
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in kept.items()}
    return Pool(phase, spec, joined, tuple(label for label, _, _ in members), repeated)


def _trials(table: pd.DataFrame, columns: list[str]) -> set[tuple[Any, ...]]:
    return set(table[columns].itertuples(index=False, name=None)) if columns else set()


def _settings(spec: dict[str, Any]) -> dict[str, Any]:
    """What makes trials comparable: all but what is searched, of which the keys count."""
    own = copy.deepcopy({key: value for key, value in spec.items() if key not in NOT_SETTINGS})
    searched = sorted(spec.get("search") or {})
    for path in searched:
        node: Any = own
        *parents, last = path.split(".")
        for key in parents:
            node = node.get(key, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node.pop(last, None)
    return {**own, "searched": searched}
