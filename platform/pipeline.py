"""A run from its spec to its report: phases in order, evaluation, summary, table.

    run_spec(load_spec("cheetah_run_quick"), storage="runs")

Everything that is done is on disk, so the same call after an interruption goes on where it stopped.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from parsecrl.algorithms.checkpoint_files import StorageUnreachable
from parsecrl.platform import interruption, job_progress
from parsecrl.platform.analysis import tables_folder
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.loggers import check_loggers
from parsecrl.platform.open_loop_phase import OpenLoopPhase, collect_episodes
from parsecrl.platform.run_folder import RunFolder, write_atomically
from parsecrl.platform.spec_models import Phase
from parsecrl.platform.specs import Spec
from parsecrl.platform.status_line import StatusLine
from parsecrl.platform.storage import Location

VIDEO_SECONDS = 10.0
logger = logging.getLogger(__name__)


def check_environment(spec: Spec) -> None:
    """Raise UserError when an environment cannot be made or has actions of another kind."""
    from parsecrl.platform.worlds import check_worlds

    check_worlds(spec)
    if spec.env is None:
        return
    from parsecrl.envs import make_env

    try:
        make_env(spec.env.id, spec.env.action_repeat).close()
    except ValueError as error:
        raise UserError(f"env.id: {error}") from None


def run_spec(
    spec: Spec,
    storage: str | Location = "runs",
    name: str | None = None,
    address: str | None = "local",
    fresh: bool = False,
    *,
    dashboard: bool = True,
    trust: bool = False,
) -> Location:
    """Run or continue `spec` and return the run folder.

    storage: a folder, or an address in an object store; the run's own is `name` in it, by default the spec's. fresh:
    into a new folder (name-2, ...). address: of the Ray cluster; "local" starts one. trust: continue a run that was
    made elsewhere. Raises UserError before anything is written, RunFailed where a phase cannot go on, Interrupted where
    it was asked to stop.
    """
    check_loggers(spec.loggers)
    check_environment(spec)
    folder = RunFolder.choose(spec, storage, name, fresh, trust)
    line = StatusLine()
    url = _connect_if_needed(folder, address, dashboard)
    line.publish = job_progress.publisher()
    folder.open()
    try:
        line.note(f"{job_progress.RUN_BEGINS}{folder.path}")
        with interruption.handled():
            _run_phases(folder, url, line)
            _evaluate(folder, line)
            _analyse(folder, line)
            _videos(folder, line)
            _report(folder, line)
    finally:
        folder.close()
    return folder.path


def run_for_table(
    spec: Spec,
    storage: str | Location,
    name: str | None,
    address: str | None,
    fresh: bool,
    trust: bool = False,
    *,
    dashboard: bool = True,
) -> str:
    """`run_spec`, and what ends it: the table and where the report is.

    With a ray:// address the run itself goes to the cluster's head node, where the storage path is then meant.
    """
    if address and address.startswith("ray://"):
        check_environment(spec)
        from parsecrl.platform.cluster import run_on_head_node

        arguments = (spec, str(storage), name, None, fresh, trust)
        return run_on_head_node(address, run_for_table, *arguments, env_vars=spec.runtime.env_vars)
    from parsecrl.platform.reports import format_table

    run_dir = run_spec(spec, storage, name, address, fresh, dashboard=dashboard, trust=trust)
    report = run_dir / "report" / "index.html"
    return format_table(run_dir) + (f"\n\nreport: {report}" if report.exists() else "")


def _connect_if_needed(folder: RunFolder, address: str | None, dashboard: bool) -> str:
    """Connect, and check what the phases to come ask of the cluster; both before anything is written."""
    waiting = [phase for phase in folder.spec.phases if not folder.is_finished(phase)]
    if not waiting and _evaluated_phases(folder) == _wanted(folder.spec) and not _unanalysed(folder):
        return ""
    from parsecrl.platform.cluster import connect

    url = connect(address, dashboard=dashboard, env_vars=folder.spec.runtime.env_vars)
    if waiting:
        from parsecrl.platform import phases

        phases.check_trial_resources(folder.spec)
    return url


def _run_phases(folder: RunFolder, url: str, line: StatusLine) -> None:
    for phase in folder.spec.phases:
        if folder.is_finished(phase):
            line.note(f"{phase.name}: finished before{_origin_moved(folder, phase)}")
            _analyse_early(folder, line)
            continue
        from parsecrl.platform import phases

        if isinstance(phase, OpenLoopPhase):
            collect_episodes(folder.path, phase, line, folder.spec.resources.no_progress_timeout_s)
        outcome = phases.run_phase(folder, phase, url, line)
        if outcome["failed_trials"]:
            failed = f"{outcome['failed_trials']} of {outcome['trials']} trials failed"
            line.note(f"{phase.name}: {failed}, the first because {outcome['first_failure']}")
        _write_summary(folder)
        _analyse_early(folder, line)


def _origin_moved(folder: RunFolder, phase: Phase) -> str:
    """Said of a phase whose predecessor was prolonged afterwards: the one does not follow the other by itself."""
    began = folder.state(phase.name).get("start_from")
    if began is None or phase.start_from is None or began == folder.state(phase.start_from).get("checkpoint"):
        return ""
    return f", from an earlier checkpoint of {phase.start_from} than its present best; --fresh trains all phases anew"


def _env(spec: Spec) -> dict[str, Any]:
    return spec.env.model_dump() if spec.env else {}


# --- evaluation ----------------------------------------------------------------------------------------------------


def _wanted(spec: Spec) -> list[str]:
    return ["random"] * spec.evaluate.random + list(spec.evaluate.phases or [])


def _evaluated_phases(folder: RunFolder) -> list[str]:
    """Of the wanted ones, those whose episodes are all in evaluation.csv, from the checkpoint that is now the best."""
    table = _episodes(folder)
    done = []
    for name in _wanted(folder.spec):
        mark = folder.state(f"evaluation of {name}")
        current = {"checkpoint": _checkpoint_of(folder, name), "episodes": folder.spec.evaluate.episodes}
        if mark == current and int((table["phase"] == name).sum()) == current["episodes"]:
            done.append(name)
    return done


def _checkpoint_of(folder: RunFolder, name: str) -> str | None:
    return None if name == "random" else folder.state(name).get("checkpoint")


def _episodes(folder: RunFolder) -> pd.DataFrame:
    from parsecrl.platform.evaluation import COLUMNS

    file = folder.path / "evaluation.csv"
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(io.StringIO(file.read_text(encoding="utf-8")))


def _evaluate(folder: RunFolder, line: StatusLine) -> None:
    """Evaluate what is not evaluated yet."""
    from parsecrl.platform.evaluation import evaluate

    spec = folder.spec
    done = _evaluated_phases(folder)
    waiting = [name for name in _wanted(spec) if name not in done]
    for name in waiting:
        stored = _checkpoint_of(folder, name)
        rows = evaluate(
            "random" if stored is None else folder.path / stored,
            _env(spec),
            episodes=spec.evaluate.episodes,
            seed=spec.seed,
            phase=name,
            num_workers=spec.resources.num_env_runners,
            num_gpus_per_worker=spec.resources.num_gpus_per_env_runner,
            progress=_show_progress(line, name),
            patience_s=spec.resources.no_progress_timeout_s,
        )
        line.show(f"evaluation of {name}: {len(rows)} episodes, median {rows.episode_return.median():.1f}", final=True)
        others = _episodes(folder)
        table = pd.concat([others[others["phase"] != name], rows]) if len(others) else rows
        table = (
            table.sort_values("phase", key=lambda p: p.map(_wanted(spec).index), kind="stable")
            if (set(table["phase"]) <= set(_wanted(spec)))
            else table
        )
        write_atomically(folder.path / "evaluation.csv", table.to_csv(index=False))
        folder.record(f"evaluation of {name}", {"checkpoint": stored, "episodes": len(rows)})
        _write_summary(folder)


def _unanalysed(folder: RunFolder) -> list[Phase]:
    """The phases without agents that have ended and whose tables are missing, or older than their trials."""

    def is_current(name: str) -> bool:
        made = folder.state(f"analysis of {name}")
        return made.get("of") == folder.state(name) and tables_folder(folder, name).is_dir()

    ended = [phase for phase in folder.spec.phases if not phase.acts and folder.is_finished(phase)]
    return [phase for phase in ended if not is_current(phase.name)]


def _analyse(folder: RunFolder, line: StatusLine) -> None:
    """Make the tables of the phases that have no agent to evaluate."""
    waiting = _unanalysed(folder)
    for phase in waiting:
        from parsecrl.platform import analysis, phases
        from parsecrl.platform.trainables import ALGORITHMS

        line.show(f"analysis of {phase.name}")
        trials = analysis.trained_trials(folder.path / phase.name, phases.phase_config(folder, phase))
        make_tables = ALGORITHMS[phase.algorithm].analyse
        assert make_tables is not None, f"{phase.algorithm} has neither an agent nor an analysis"
        patience_s = folder.spec.resources.no_progress_timeout_s
        parallel_map = functools.partial(analysis.in_ray_tasks, patience_s=patience_s)
        analysis.write_tables(folder, phase.name, make_tables(trials, parallel_map))
        # With its time, so that a report is drawn anew where tables were taken away and made once more.
        folder.record(f"analysis of {phase.name}", {"of": folder.state(phase.name), "made_at": round(time.time())})
        line.show(f"analysis of {phase.name}: {len(trials)} trials", final=True)


def _analyse_early(folder: RunFolder, line: StatusLine) -> None:
    """`_analyse` before later phases, whose hours shall keep nobody from a report; what fails is tried at the end."""
    try:
        _analyse(folder, line)
    except StorageUnreachable:
        raise
    except Exception as error:
        line.note(f"analysis: not made yet ({type(error).__name__}: {error}); it is tried again after the last phase")


def _show_progress(line: StatusLine, name: str) -> Callable[[int, int], None]:
    line.show(f"evaluation of {name}: starting")
    return lambda done, total: line.show(f"evaluation of {name}: {done} of {total} episodes")


def _videos(folder: RunFolder, line: StatusLine) -> None:
    if not folder.spec.evaluate.videos:
        return
    from parsecrl.platform.videos import record_video

    spec = folder.spec
    for name in spec.evaluate.phases or []:
        stored, file = _checkpoint_of(folder, name), folder.path / "videos" / f"{name}.mp4"
        if stored is None or (file.exists() and folder.state(f"video of {name}").get("checkpoint") == stored):
            continue
        line.show(f"video of {name}")
        made = record_video(folder.path / stored, _env(spec), spec.seed, file, max_seconds=VIDEO_SECONDS)
        if made is None:
            line.note("videos: none, because this machine cannot draw (see `parsec doctor`)")
            return
        folder.record(f"video of {name}", {"checkpoint": stored})


def _report(folder: RunFolder, line: StatusLine) -> None:
    """The page is built again where something is new since it was; one that cannot be built does not fail the run."""
    from parsecrl.platform.reports import build_report

    _write_summary(folder)
    states = json.dumps({name: state for name, state in folder.states().items() if name != "report"}, sort_keys=True)
    shown = {"of": hashlib.sha256(states.encode()).hexdigest()}
    if folder.state("report") != shown or not (folder.path / "report" / "index.html").exists():
        line.show("report")
        try:
            build_report(folder.path)
            folder.record("report", shown)
        except (RunFailed, StorageUnreachable):
            raise
        except Exception as error:
            line.note(f"report: not built ({type(error).__name__}: {error}); try `parsec report {folder.path}`")
    line.show("done", final=True)


# --- summary -------------------------------------------------------------------------------------------------------


def _write_summary(folder: RunFolder) -> None:
    spec = folder.spec
    table = _episodes(folder)
    phases: dict[str, Any] = {}
    if (table["phase"] == "random").any():
        phases["random"] = {"algorithm": None, "controller": "random", **_statistics(table, "random")}
    for phase in spec.phases:
        state = folder.state(phase.name)
        if state.get("status") != "finished":
            continue
        agent = _read_json(folder.path / state["checkpoint"] / "agent.json") if phase.acts else {}
        phases[phase.name] = {
            "algorithm": phase.algorithm,
            "controller": agent.get("controller", {}).get("kind"),
            "best_trial": state["trial"],
            "checkpoint": str(folder.path / state["checkpoint"]),
            "checkpoint_metrics": state["checkpoint_metrics"],
            "env_steps": state["env_steps"],
            "wall_time_s": state["wall_time_s"],
            "failed_trials": state["failed_trials"],
            **_statistics(table, phase.name),
        }
    summary = {
        "name": folder.path.name,
        "spec": json.loads(spec.model_dump_json(exclude_none=True)),
        "env": _env(spec),
        "machine": machine(),
        "phases": phases,
    }
    write_atomically(folder.path / "summary.json", json.dumps(summary, indent=1))


def _statistics(table: pd.DataFrame, name: str) -> dict[str, Any]:
    from parsecrl.platform.statistics import summarize

    rows = table[table["phase"] == name]
    if rows.empty:
        return {}
    measured = summarize(rows["episode_return"].to_numpy())._asdict()
    return {**measured, "planning_ms": float(rows["planning_ms"].median())}


def _read_json(file: Location) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    versions: dict[str, str | None] = {}
    for package in ("parsec-rl", "torch", "ray", "gymnasium", "dm_control", "mujoco", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    import torch

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


__all__ = ["RunFailed", "check_environment", "machine", "run_for_table", "run_spec"]
