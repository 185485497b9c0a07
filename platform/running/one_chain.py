"""One chain from its phases to its report: whatever of it is missing.

Everything that is done is on disk, so the same call after an interruption goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parsecrl.algorithms.training.lasting_imports import lasting_imports
from parsecrl.platform.errors import RunFailed, StorageUnreachable
from parsecrl.platform.running import interruption
from parsecrl.platform.running.analysis import analyse, analyse_early, unanalysed
from parsecrl.platform.running.configs import resolved
from parsecrl.platform.running.evaluating import evaluate_agents, evaluated_phases, record_videos, wanted
from parsecrl.platform.running.preflight import Checked
from parsecrl.platform.running.summary import write_summary
from parsecrl.platform.runs.progress_record import RunProgress
from parsecrl.platform.runs.random_policy import CHECKS
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import Phase
from parsecrl.platform.terminal import StatusLine


@contextmanager
def opened(folder: RunFolder, line: StatusLine, *publishers: Callable[[str], object]) -> Iterator[None]:
    """Have a run folder for this process alone, with signals handled and what the line says told in the folder.

    Args:
        folder: Of the run.
        line: Of its status.
        publishers: That are told what the line says too.

    Yields:
        Nothing.
    """
    folder.open()
    progress = RunProgress(folder.path)
    line.publishers = [progress.tell, *publishers]
    ended: BaseException | None = None
    try:
        with interruption.handled():
            yield
    except BaseException as error:
        ended = error
        raise
    finally:
        progress.end(ended)
        folder.close()


def work_through(folder: RunFolder, url: str, line: StatusLine, checked: Checked) -> None:
    """Phases in order, evaluation, summary, report.

    Args:
        folder: Open; Ray is connected where `needs_ray`.
        url: Of Ray's dashboard, or empty.
        line: Says how far it is.
        checked: What was found before; kept in the folder from the run's first start on.

    Raises:
        RunFailed: A phase cannot go on.
    """
    if not folder.state(CHECKS):
        folder.record(CHECKS, {"warnings": checked.warnings, "random_returns": checked.random_returns})
    _run_phases(folder, url, line)
    evaluate_agents(folder, line)
    analyse(folder, line)
    record_videos(folder, line)
    _report(folder, line)


def needs_ray(folder: RunFolder) -> bool:
    """Whether something is missing that Ray is needed for.

    Args:
        folder: Of the run.

    Returns:
        False where all phases are trained, evaluated and analysed.
    """
    trained = all(folder.is_finished(phase) for phase in folder.spec.phases)
    return not trained or evaluated_phases(folder) != wanted(folder.spec) or bool(unanalysed(folder))


def _run_phases(folder: RunFolder, url: str, line: StatusLine) -> None:
    for phase in folder.spec.phases:
        if folder.is_finished(phase):
            line.note(f"{phase.name}: finished before{_origin_moved(folder, phase)}")
            analyse_early(folder, line)
            continue
        with lasting_imports():
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
    """The page is built again where something is new since it was."""
    from parsecrl.platform.reports import build_report
    from parsecrl.platform.reports.loaded_run import load_run
    from parsecrl.platform.reports.warnings import warnings_of

    write_summary(folder)
    states = json.dumps({name: state for name, state in folder.states().items() if name != "report"}, sort_keys=True)
    of = hashlib.sha256(states.encode()).hexdigest()
    if folder.state("report").get("of") != of or not (folder.path / "report" / "index.html").exists():
        with reporting(folder, line):
            run = load_run(folder.path)
            build_report(run)
            folder.record("report", {"of": of, "warnings": [warning._asdict() for warning in warnings_of(run)]})
            write_summary(folder)
    line.show("done", final=True)


@contextmanager
def reporting(folder: RunFolder, line: StatusLine) -> Iterator[None]:
    """Within it a page is built; one that cannot be built does not fail the run.

    Args:
        folder: Of the run.
        line: Says how far it is, or why there is no page.

    Yields:
        Nothing.

    Raises:
        RunFailed: The run itself cannot go on.
        StorageUnreachable: Its store cannot be reached.
    """
    line.show("report")
    try:
        yield
    except (RunFailed, StorageUnreachable):
        raise
    except Exception as error:
        line.note(f"report: not built ({type(error).__name__}: {error}); try `parsec report {folder.path}`")
