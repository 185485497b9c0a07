"""What comes of the trials of a phase that has no agent to evaluate: tables, in <run>/analysis/<phase>/<table>.csv."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from parsecrl.platform.checkpoints import Stored, stored_checkpoints
from parsecrl.platform.errors import UserError
from parsecrl.platform.run_folder import STATE_FILE, RunFolder, write_atomically
from parsecrl.platform.specs import set_path
from parsecrl.platform.storage import Location

FOLDER = "analysis"
ParallelMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # as the built-in map, in order


@dataclass(frozen=True)
class TrainedTrial:
    """One trial at its end. parameters: what the phase searched over, by dotted key; config: all of its settings."""

    name: str
    parameters: dict[str, Any]
    config: dict[str, Any]
    checkpoint: Location  # the last one
    metrics: dict[str, Any]  # at that checkpoint


def trained_trials(phase_folder: Location, config: dict[str, Any]) -> list[TrainedTrial]:
    """The trials that left a checkpoint, by name. config: the phase's, before the search."""
    last: dict[str, Stored] = {}
    for stored in stored_checkpoints(phase_folder):
        if stored.trial not in last or stored.written >= last[stored.trial].written:
            last[stored.trial] = stored
    trials = []
    for name, stored in sorted(last.items()):
        own = copy.deepcopy(config)
        parameters = dict(stored.metrics.get("parameters", {}))
        for path, value in parameters.items():
            set_path(own, path.split("."), value)
        trials.append(TrainedTrial(name, parameters, own, stored.path, stored.metrics))
    return trials


def in_ray_tasks(
    function: Callable[[Any], Any], items: Iterable[Any], patience_s: float | None = None
) -> Iterator[Any]:
    """`map`, each item a Ray task of one CPU, as many at a time as the cluster has; a lost one is tried again.

    Raises RunFailed when none ends within patience_s.
    """
    import ray

    from parsecrl.platform.faults import wait_for_any

    task = ray.remote(function).options(num_cpus=1, max_retries=3)
    running = all_of_them = [task.remote(item) for item in items]
    while running:
        _, running = wait_for_any(running, patience_s, "the analysis")
    yield from ray.get(all_of_them)


def tables_folder(folder: RunFolder, phase: str) -> Location:
    return folder.path / FOLDER / phase


def write_tables(folder: RunFolder, phase: str, tables: dict[str, pd.DataFrame]) -> None:
    place = tables_folder(folder, phase)
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_atomically(place / f"{name}.csv", table.to_csv(index=False))


def read_tables(run_dir: Path, phase: str) -> dict[str, pd.DataFrame]:
    """Table name -> table; empty before the phase was analysed."""
    return {file.stem: pd.read_csv(file) for file in sorted((run_dir / FOLDER / phase).glob("*.csv"))}


def analyse_ended_trials(run_dir: Path) -> list[str]:
    """Make the tables of phases that have not come to their end from their trials that have; a line on each phase.

    The run may be going on: it makes all tables anew when a phase ends. Of a run that was made elsewhere nothing is
    analysed: its spec may name code.
    """
    from parsecrl.platform.phases import phase_config
    from parsecrl.platform.progress import fraction_done
    from parsecrl.platform.specs import load_spec
    from parsecrl.platform.trainables import ALGORITHMS

    if not (run_dir / "spec.yaml").is_file() or not (run_dir / STATE_FILE).is_file():
        return []
    try:
        spec = load_spec(run_dir / "spec.yaml")
    except UserError:  # of another version, or damaged: a report still shows what it can
        return []
    folder, lines = RunFolder(run_dir, spec), []
    for phase in folder.spec.phases if folder.is_own else ():
        if phase.acts or folder.is_finished(phase) or not (run_dir / phase.name).is_dir():
            continue
        trials = trained_trials(run_dir / phase.name, phase_config(folder, phase))
        ended = [trial for trial in trials if fraction_done(phase.stop.conditions, trial.metrics) >= 1.0]
        make_tables = ALGORITHMS[phase.algorithm].analyse
        if ended and make_tables is not None:
            write_tables(folder, phase.name, make_tables(ended, map))
            lines.append(f"{phase.name}: not at its end; {len(ended)} trials are, of which this is the report")
    return lines
