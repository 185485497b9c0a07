"""A run from its spec to its report: phases in order, evaluation, summary, table.

    run_spec(load_spec("cheetah_run_quick"), storage="runs")

Everything that is done is on disk, so the same call after an interruption goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging

from parsecrl.platform.cluster import job_record
from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError
from parsecrl.platform.running import interruption
from parsecrl.platform.running.analysis import analyse, analyse_early, unanalysed
from parsecrl.platform.running.configs import resolved
from parsecrl.platform.running.evaluating import evaluate_agents, evaluated_phases, record_videos, wanted
from parsecrl.platform.running.loggers import check_loggers
from parsecrl.platform.running.preflight import check_environment, check_trial_resources
from parsecrl.platform.running.summary import write_summary
from parsecrl.platform.runs import trust as trust_record
from parsecrl.platform.runs.random_policy import CHECKS
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.shipping import own_code
from parsecrl.platform.specs import Phase, Spec
from parsecrl.platform.storage import Location
from parsecrl.platform.terminal import StatusLine

logger = logging.getLogger(__name__)


def run_spec(
    spec: Spec,
    storage: str | Location = "runs",
    name: str | None = None,
    address: str | None = "local",
    fresh: bool = False,
    *,
    dashboard: bool = True,
    trust: bool = False,
    new_code: bool = False,
) -> Location:
    """Run or continue `spec` and return the run folder.

    storage: a folder, or an address in an object store; the run's own is `name` in it, by default the spec's. fresh:
    into a new folder (name-2, ...). address: of the Ray cluster; "local" starts one. trust: continue a run that was
    made elsewhere. new_code: continue a run with other code than it began with. Raises UserError before anything is
    written, RunFailed where a phase cannot go on, Interrupted where it was asked to stop.
    """
    check_loggers(spec.loggers)
    folder = RunFolder.choose(spec, storage, name, fresh, trust, new_code)  # says where its own code is missing
    line = StatusLine()
    checked = check_environment(spec)
    for warning in checked.warnings:
        line.note(f"warning: {warning}")
    url = _connect_if_needed(folder, address, dashboard)
    line.publish = job_record.publisher()
    folder.open()
    try:
        line.note(f"{job_record.RUN_BEGINS}{folder.path}")
        if codes := own_code.on_path():
            line.note(f"code: {own_code.described(codes)}")
        if not folder.state(CHECKS):
            folder.record(CHECKS, {"warnings": checked.warnings, "random_returns": checked.random_returns})
        if trust_record.is_unsigned(trust_record.record_in(folder.path)) and (why := trust_record.why_unsigned()):
            line.note(why)
        with interruption.handled():
            _run_phases(folder, url, line)
            evaluate_agents(folder, line)
            analyse(folder, line)
            record_videos(folder, line)
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
    new_code: bool = False,
    *,
    check_here: bool = True,
    dashboard: bool = True,
) -> str:
    """`run_spec`, and what ends it: the table and where the report is.

    With a ray:// address the run itself goes to the cluster's head node, where the storage path is then meant.
    check_here: play the environments in this process first; the head does it in any case, before the first phase.
    """
    if address and address.startswith("ray://"):
        if check_here:
            check_environment(spec)
        from parsecrl.platform.cluster.connection import run_on_head_node

        arguments = (spec, str(storage), name, None, fresh, trust, new_code)
        return run_on_head_node(address, run_for_table, *arguments, env_vars=spec.runtime.env_vars)
    if not check_here:
        raise UserError(
            f"--check-on-cluster goes with the address of a cluster's head, ray://..., got {address!r}; leave it out"
        )
    from parsecrl.platform.reports import format_table

    run_dir = run_spec(spec, storage, name, address, fresh, dashboard=dashboard, trust=trust, new_code=new_code)
    report = run_dir / "report" / "index.html"
    return format_table(run_dir) + (f"\n\nreport: {report}" if report.exists() else "")


def _connect_if_needed(folder: RunFolder, address: str | None, dashboard: bool) -> str:
    """Connect, and check what the phases to come ask of the cluster; both before anything is written."""
    waiting = [phase for phase in folder.spec.phases if not folder.is_finished(phase)]
    if not waiting and evaluated_phases(folder) == wanted(folder.spec) and not unanalysed(folder):
        return ""
    from parsecrl.platform.cluster.connection import connect

    url = connect(address, dashboard=dashboard, env_vars=folder.spec.runtime.env_vars)
    if waiting:
        check_trial_resources(folder.spec)
    return url


def _run_phases(folder: RunFolder, url: str, line: StatusLine) -> None:
    for phase in folder.spec.phases:
        if folder.is_finished(phase):
            line.note(f"{phase.name}: finished before{_origin_moved(folder, phase)}")
            analyse_early(folder, line)
            continue
        from parsecrl.platform.running import tune_phase

        if (wanted := phase.entry.episodes(resolved(folder, phase))) is not None:
            from parsecrl.platform.running.collection import collect

            collect(wanted, line, folder.spec.resources.no_progress_timeout_s)
        outcome = tune_phase.run_phase(folder, phase, url, line)
        if outcome["failed_trials"]:
            failed = f"{outcome['failed_trials']} of {outcome['trials']} trials failed"
            line.note(f"{phase.name}: {failed}, the first because {outcome['first_failure']}")
        write_summary(folder)
        analyse_early(folder, line)


def _origin_moved(folder: RunFolder, phase: Phase) -> str:
    """Said of a phase whose predecessor was prolonged afterwards: the one does not follow the other by itself."""
    began = folder.state(phase.name).get("start_from")
    if began is None or phase.start_from is None or began == folder.state(phase.start_from).get("checkpoint"):
        return ""
    return f", from an earlier checkpoint of {phase.start_from} than its present best; --fresh trains all phases anew"


def _report(folder: RunFolder, line: StatusLine) -> None:
    """The page is built again where something is new since it was; one that cannot be built does not fail the run."""
    from parsecrl.platform.reports import build_report
    from parsecrl.platform.reports.loaded_run import load_run
    from parsecrl.platform.reports.warnings import warnings_of

    write_summary(folder)
    states = json.dumps({name: state for name, state in folder.states().items() if name != "report"}, sort_keys=True)
    of = hashlib.sha256(states.encode()).hexdigest()
    if folder.state("report").get("of") != of or not (folder.path / "report" / "index.html").exists():
        line.show("report")
        try:
            run = load_run(folder.path)
            build_report(run)
            folder.record("report", {"of": of, "warnings": [warning._asdict() for warning in warnings_of(run)]})
            write_summary(folder)
        except (RunFailed, StorageUnreachable):
            raise
        except Exception as error:
            line.note(f"report: not built ({type(error).__name__}: {error}); try `parsec report {folder.path}`")
    line.show("done", final=True)
