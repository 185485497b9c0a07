"""Trials of studies put together: of one phase in several runs, parts of a sweep; of one run's worlds, its phases."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from parsecrl.algorithms.reporting.study_report import Tables
from parsecrl.platform.errors import UserError
from parsecrl.platform.reports.loaded_run import Phase, Run
from parsecrl.platform.reports.studies import study_report_of
from parsecrl.platform.runs.run_folder import POOLED_FILE, STATE_FILE
from parsecrl.platform.runs.tables import read_tables, write_tables
from parsecrl.platform.specs import set_path
from parsecrl.platform.storage import write_atomically

NOT_SETTINGS = ("search", "seed", "checkpoint_every", "num_cpus_per_trial", "num_gpus_per_trial")


@dataclass(frozen=True)
class Pool:
    """A phase as several runs have it.

    phase: as the first of them. spec: the phase's spec, with all that they searched. tables: each trial's rows once.
    runs: their names. repeated: how many trials came more than once, of which the first run's was kept.
    """

    phase: Phase
    spec: dict[str, Any]
    run_seed: int
    tables: Tables
    runs: tuple[str, ...]
    repeated: int


@dataclass(frozen=True)
class Study:
    """What is shown together: a pool, or those of one algorithm in worlds of their own.

    phase: as the first of them, with the names of all.
    """

    phase: Phase
    tables: Tables
    pools: tuple[Pool, ...]

    @property
    def names(self) -> str:
        """The phases' names."""
        return ", ".join(pool.phase.name for pool in self.pools)

    @property
    def title(self) -> str:
        """The phases' names, and the runs'."""
        runs = dict.fromkeys(run for pool in self.pools for run in pool.runs)
        return f"{self.names} of {', '.join(runs)}"

    @property
    def note(self) -> str:
        """How many trials came more than once; empty where none did."""
        repeated = sum(pool.repeated for pool in self.pools)
        return f"{repeated} trials came more than once; the first run's are shown." if repeated else ""


def studies_of(runs: Sequence[tuple[str, Run]]) -> list[Study]:
    """The studies of one run or of several.

    Phases of an algorithm are one study where each has worlds that no other has and a run links them, which has both:
    the paper's comparison in three worlds is one table then, and one figure with three panels.

    Args:
        runs: Each with a name.

    Returns:
        The studies with their tables, pooled over the runs.
    """
    groups: list[list[Pool]] = []
    for pool in _pools(runs):
        group = next((g for g in groups if _fits(pool, g)), None)
        if group is None:
            groups.append([pool])
        else:
            group.append(pool)
    return [_study(group) for group in groups]


def write_pools(folder: Path, shown: Sequence[Study], origins: Sequence[str]) -> None:
    """Make of a folder what can be reported on, compared and pooled like a run: a spec, and the tables.

    Args:
        folder: Is made where it is missing.
        shown: The studies.
        origins: The runs that they are of.

    Raises:
        UserError: The folder is a run's own, or no one spec can have all the phases.
    """
    pools = [pool for study in shown for pool in study.pools]
    if (folder / STATE_FILE).exists():
        raise UserError(f"--out must not be a run's own folder, got {folder}; give another one")
    names = [pool.phase.name for pool in pools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        apart = " and ".join("+".join(pool.runs) for pool in pools if pool.phase.name == twice)
        raise UserError(
            f"phase {twice} is not the same experiment in {apart}, so that a folder cannot hold it; make the settings "
            f"equal, or give --out FILE.html"
        )
    seeds = {pool.run_seed for pool in pools}
    if len(seeds) > 1:
        raise UserError(f"a folder holds runs of one seed, got {sorted(seeds)}; give --out FILE.html")
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"name": folder.name, "seed": seeds.pop(), "phases": [pool.spec for pool in pools]}
    for pool in pools:
        write_tables(folder, pool.phase.name, pool.tables)
    write_atomically(folder / "spec.yaml", yaml.safe_dump(spec, sort_keys=False))
    write_atomically(folder / POOLED_FILE, json.dumps({"runs": list(origins)}, indent=1))


def _pools(runs: Sequence[tuple[str, Run]]) -> list[Pool]:
    """Phases that differ in what they searched alone are pooled.

    Those whose tables have rows of no trial or of several stay apart, as do those with other settings or another run
    seed, which make another experiment of the same trial.
    """
    groups: dict[str, list[tuple[str, Run, Phase]]] = {}
    for label, run in runs:
        for phase in run.studies:
            key = [phase.name, _run_seed(run), _settings(phase.spec)]
            if not _trial_columns(phase):
                key.append(label)
            groups.setdefault(json.dumps(key, sort_keys=True), []).append((label, run, phase))
    return [_pool(members) for members in groups.values()]


def _pool(members: Sequence[tuple[str, Run, Phase]]) -> Pool:
    _, first_run, phase = members[0]
    columns = _trial_columns(phase)
    kept: dict[str, list[pd.DataFrame]] = {}
    seen: set[tuple[Any, ...]] = set()
    repeated = 0
    for _, run, own in members:
        tables = read_tables(run.folder, own.name)
        here = {trial for table in tables.values() for trial in _trials(table, columns)}
        repeated += len(here & seen)
        for name, table in tables.items():
            is_new = np.array([trial not in seen for trial in _trials(table, columns)], dtype=bool)
            kept.setdefault(name, []).append(table[is_new] if columns else table)
        seen |= here
    spec = copy.deepcopy(phase.spec)
    for _, _, other in members[1:]:
        for key, domain in (other.spec.get("search") or {}).items():
            own_domain = spec["search"][key]
            if "grid" in domain and "grid" in own_domain:
                values = own_domain["grid"]
                own_domain["grid"] = [*values, *(value for value in domain["grid"] if value not in values)]
    labels = tuple(label for label, _, _ in members)
    return Pool(phase, spec, _run_seed(first_run), _joined(kept), labels, repeated)


def _study(group: Sequence[Pool]) -> Study:
    tables: dict[str, list[pd.DataFrame]] = {}
    for pool in group:
        for name, table in pool.tables.items():
            tables.setdefault(name, []).append(table)
    phase = replace(group[0].phase, name="-".join(pool.phase.name for pool in group))
    return Study(phase, _joined(tables), tuple(group))


def _fits(pool: Pool, group: Sequence[Pool]) -> bool:
    def worlds(one: Pool) -> set[str]:
        return {env for table in one.tables.values() for env in table["env"]}

    first = group[0]
    if "env" not in _trial_columns(pool.phase) or pool.phase.algorithm != first.phase.algorithm:
        return False
    if not pool.tables or not first.tables or not any(set(pool.runs) & set(other.runs) for other in group):
        return False
    return not any(worlds(pool) & worlds(other) for other in group)


def _joined(parts: dict[str, list[pd.DataFrame]]) -> Tables:
    """Each table's parts below each other; those without rows would make numbers into objects."""
    full = {name: [table for table in tables if len(table)] or tables[:1] for name, tables in parts.items()}
    return {name: pd.concat(tables, ignore_index=True) for name, tables in full.items()}


def _trial_columns(phase: Phase) -> list[str]:
    """The columns of a phase's tables that name a trial; none where rows are of several trials or of none."""
    report = study_report_of(phase.entry)
    return list(report.trial_columns) if report else []


def _trials(table: pd.DataFrame, columns: list[str]) -> list[tuple[Any, ...]]:
    """The trial of each row."""
    return list(table[columns].itertuples(index=False, name=None)) if columns else []


def _run_seed(run: Run) -> int:
    return int(run.spec.get("seed", 0))


def _settings(spec: dict[str, Any]) -> dict[str, Any]:
    """What makes trials comparable: all but what is searched, of which the keys count."""
    own = copy.deepcopy({key: value for key, value in spec.items() if key not in NOT_SETTINGS})
    searched = sorted(spec.get("search") or {})
    for path in searched:
        set_path(own, path.split("."), None)
    return {**own, "searched": searched}
