"""What comes of the trials of a phase that has no agent to evaluate: tables, in <run>/analysis/<phase>/<table>.csv."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.running.configs import phase_config
from parsecrl.platform.runs.results import fraction_done
from parsecrl.platform.runs.run_folder import STATE_FILE, RunFolder
from parsecrl.platform.runs.tables import tables_folder, write_tables
from parsecrl.platform.runs.trained_trials import trained_trials
from parsecrl.platform.runs.user_code import causes_told
from parsecrl.platform.specs import Phase, load_spec
from parsecrl.platform.terminal import StatusLine


def in_ray_tasks(
    function: Callable[[Any], Any], items: Iterable[Any], patience_s: float | None = None
) -> Iterator[Any]:
    """`map`, each item a Ray task of one CPU, as many at a time as the cluster has; a lost one is tried again.

    Args:
        function: Called with one item.
        items: Its arguments.
        patience_s: Longest wait for the next one to end, in seconds; None waits on.

    Yields:
        The results, in the order of the items.

    Raises:
        RunFailed: The patience ends.
    """
    import ray

    from parsecrl.platform.cluster.nodes import wait_for_any

    task = ray.remote(function).options(num_cpus=1, max_retries=3)
    running = all_of_them = [task.remote(item) for item in items]
    while running:
        _, running = wait_for_any(running, patience_s, "the analysis")
    yield from ray.get(all_of_them)


def analyse_ended_trials(run_dir: Path) -> list[str]:
    """Make the tables of phases that have not come to their end from their trials that have.

    The run may be going on: it makes all tables anew when a phase ends. Of a run that was made elsewhere nothing is
    analysed: its spec may name code.

    Args:
        run_dir: Of the run, on disk.

    Returns:
        A line on each phase that was analysed.
    """
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
        goals, known = phase.stop.conditions, phase.stop_conditions
        ended = [trial for trial in trials if fraction_done(goals, known, trial.metrics) >= 1.0]
        if ended:
            write_tables(run_dir, phase.name, _tables(phase, phase.entry.analyse(ended, map)))
            lines.append(f"{phase.name}: not at its end; {len(ended)} trials are, of which this is the report")
    return lines


def unanalysed(folder: RunFolder) -> list[Phase]:
    """The phases without agents that have ended and whose tables are missing, or older than their trials.

    Args:
        folder: Of the run.

    Returns:
        Phases, in the spec's order.
    """

    def is_current(name: str) -> bool:
        made = folder.state(f"analysis of {name}")
        return made.get("of") == folder.state(name) and tables_folder(folder, name).is_dir()

    ended = [phase for phase in folder.spec.phases if not phase.acts and folder.is_finished(phase)]
    return [phase for phase in ended if not is_current(phase.name)]


def analyse(folder: RunFolder, line: StatusLine) -> None:
    """Make the tables of the phases that have no agent to evaluate.

    Args:
        folder: Of the run; open.
        line: Says how far it is.

    Raises:
        RunFailed: An analysis stopped.
    """
    parallel_map = functools.partial(in_ray_tasks, patience_s=folder.spec.resources.no_progress_timeout_s)
    for phase in unanalysed(folder):
        line.show(f"analysis of {phase.name}")
        trials = trained_trials(folder.path / phase.name, phase_config(folder, phase))
        with causes_told(f"analysis of {phase.name}", folder.path / phase.name / "analysis_error.txt"):
            tables = _tables(phase, phase.entry.analyse(trials, parallel_map))
        write_tables(folder.path, phase.name, tables)
        # With its time, so that a report is drawn anew where tables were taken away and made once more.
        folder.record(f"analysis of {phase.name}", {"of": folder.state(phase.name), "made_at": round(time.time())})
        line.show(f"analysis of {phase.name}: {len(trials)} trials", final=True)


def _tables(phase: Phase, found: Any) -> dict[str, pd.DataFrame]:
    if not isinstance(found, dict) or not all(isinstance(table, pd.DataFrame) for table in found.values()):
        raise TypeError(f"analyse() of {phase.algorithm} must return tables (pandas.DataFrame) by name, got {found!r}")
    return found


def analyse_early(folder: RunFolder, line: StatusLine) -> None:
    """`analyse` before later phases, whose hours shall keep nobody from a report; what fails is tried at the end.

    Args:
        folder: Of the run; open.
        line: Says how far it is, and what failed.
    """
    try:
        analyse(folder, line)
    except StorageUnreachable:
        raise
    except Exception as error:
        line.note(f"analysis: not made yet ({error}); it is tried again after the last phase")
