"""How a run stands, read from its folder alone: `parsec status`, from another terminal or machine while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import yaml

from parsecrl.platform.errors import UserError
from parsecrl.platform.metrics.table import CHAINS
from parsecrl.platform.runs.progress_record import ENDED, TrialRecord, read_progress, read_trials
from parsecrl.platform.runs.run_folder import CHAINS_FILE, FAILED, FINISHED, STATE_FILE
from parsecrl.platform.runs.trust import check_layout
from parsecrl.platform.storage import Location, read_json
from parsecrl.platform.terminal import duration, text_table

HEADINGS = ("chain", "phase", "state", "trials", "failed", "done", "best", "time left")
TRIAL_HEADINGS = ("trial", "status", "done", "score")
SILENT_S = 120.0  # without a word for so long, a run that has not ended may have been killed
MOST_TRIALS = 20  # of a phase that are listed, those that run and failed first
NOTHING = "-"


def status_text(folder: Location) -> str:
    """How a run stands.

    Args:
        folder: Of the run, on disk or in an object store; nothing is written.

    Returns:
        Lines: what the run last said and when, a table of chains and phases, trials of the phases that run, failures.

    Raises:
        UserError: The folder holds no run, or one of another layout.
    """
    if not (folder / "spec.yaml").is_file():
        raise UserError(f"{folder} holds no run; give a run folder, or its address in an object store")
    check_layout(folder)
    rows: list[tuple[str, ...]] = []
    trials: list[str] = []
    failures: list[str] = []
    for chain, place in _chains(folder):
        for phase in _phases(place):
            row, listed, failed = _phase(place, phase)
            rows.append((chain or NOTHING, *row))
            where = f"{chain}/{phase}" if chain else phase
            if listed:
                trials.append(f"{where}:\n{text_table(TRIAL_HEADINGS, listed, left=2)}")
            failures += [f"{where}/{line}" for line in failed]
    headings: tuple[str, ...] = HEADINGS
    if all(row[0] == NOTHING for row in rows):
        headings, rows = HEADINGS[1:], [row[1:] for row in rows]
    parts = [_headline(folder), text_table(headings, rows, left=len(headings) - 5), *trials]
    return "\n\n".join([*parts, *(["failures:\n" + "\n".join(failures)] if failures else [])])


def _chains(folder: Location) -> Iterator[tuple[str, Location]]:
    """Name and folder of each chain, whether it has begun or not; a run without chains is one without a name."""
    if not (folder / CHAINS_FILE).is_file():
        yield "", folder
        return
    for record in yaml.safe_load((folder / CHAINS_FILE).read_text(encoding="utf-8")):
        yield record["name"], folder / CHAINS / record["name"]


def _phases(place: Location) -> list[str]:
    """Name of each phase of a chain's spec; one without a name where the chain has not begun."""
    if not (place / "spec.yaml").is_file():
        return [NOTHING]
    spec = yaml.safe_load((place / "spec.yaml").read_text(encoding="utf-8"))
    return [phase["name"] for phase in spec["phases"]]


def _headline(folder: Location) -> str:
    """What the run last said, and how long ago."""
    said = read_progress(folder)
    if not said:
        return f"{folder}: nothing has been told yet"
    ago = max(0.0, time.time() - said["at"])
    if said["status"] == ENDED:
        error = said.get("error")
        how = f"stopped {duration(ago)} ago: {error}" if error else f"ended {duration(ago)} ago"
        return f"{folder}: {how}" + ("; the same command continues it" if error else "")
    silent = "; if its process is gone, the same command continues it" if ago > SILENT_S else ""
    return f"{folder}: said {duration(ago)} ago: {said['text']}{silent}"


def _phase(place: Location, name: str) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]:
    """The row of a phase, its trials where it runs, and its failures."""
    state: dict[str, Any] = read_json(place / STATE_FILE).get(name, {}) if name != NOTHING else {}
    known, more = read_trials(place / name) if state else ([], {})
    status = state.get("status", "waiting")
    ended = status in {FINISHED, FAILED}
    total = state.get("trials") or more.get("total")
    over = sum(trial.status in {"TERMINATED", "ERROR"} for trial in known)
    failed = [trial for trial in known if trial.failure]
    count = state.get("failed_trials", len(failed)) if ended or known else None
    scores = [trial.score for trial in known if trial.score is not None]
    best = (state.get("checkpoint_metrics") or {}).get("score", max(scores, default=None))
    done = 1.0 if status == FINISHED else sum(min(t.done, 1.0) for t in known) / total if known and total else None
    left = more.get("left_s") if status == "running" else None
    if left is not None:
        left = max(0.0, left - max(0.0, time.time() - more["at"]))
    row = (
        name,
        status,
        f"{total if status == FINISHED else over} of {total}" if total else NOTHING,
        NOTHING if count is None else str(count),
        NOTHING if done is None else f"{100 * done:.0f} %",
        NOTHING if best is None else f"{best:.4g}",
        NOTHING if left is None else duration(left),
    )
    lines = [f"{trial.name}: {trial.failure}" for trial in failed]
    if not lines and state.get("first_failure"):
        lines = [f"the first of {state['failed_trials']}: {state['first_failure']}"]
    return row, [] if ended else _listed(known), lines[:MOST_TRIALS]


def _listed(trials: list[TrialRecord]) -> list[tuple[str, ...]]:
    """Rows of the trials, those that run first, then those that failed."""
    order = {"RUNNING": 0, "ERROR": 1}
    chosen = sorted(trials, key=lambda trial: order.get(trial.status, 2))
    rows: list[tuple[str, ...]] = [
        (
            trial.name,
            "failed" if trial.failure else trial.status.lower(),
            f"{100 * min(trial.done, 1.0):.0f} %",
            NOTHING if trial.score is None else f"{trial.score:.4g}",
        )
        for trial in chosen[:MOST_TRIALS]
    ]
    rest = len(chosen) - MOST_TRIALS
    return [*rows, (f"and {rest} more", "", "", "")] if rest > 0 else rows
