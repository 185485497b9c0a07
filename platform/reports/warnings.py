"""What is wrong with a run, for its table, its page and its summary: the rules of `reporting.diagnostics`, by phase."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from parsecrl.algorithms.reporting.diagnostics import Finding, Returns, diagnose, evaluated, series_of
from parsecrl.platform.reports.loaded_run import Phase, Run
from parsecrl.platform.runs.random_policy import CHECKS, random_policy
from parsecrl.platform.runs.run_folder import STATE_FILE


class RunWarning(NamedTuple):
    """phase: "" where the warning is of the task, before the run. rule: as `Finding.rule`, or "task"."""

    phase: str
    rule: str
    sentence: str

    @property
    def text(self) -> str:
        """The sentence, with the phase's name before it."""
        return f"{self.phase}: {self.sentence}" if self.phase else self.sentence


def warnings_of(run: Run) -> list[RunWarning]:
    """What is wrong with a run. An evaluation's word on returns is the last one.

    Args:
        run: That was loaded.

    Returns:
        Warnings of the task, then those of each phase's chosen trial.
    """
    states = _states(run)
    found = [RunWarning("", "task", sentence) for sentence in states.get(CHECKS, {}).get("warnings", [])]
    for phase in run.phases:
        found += [RunWarning(phase.name, finding.rule, finding.sentence) for finding in _findings(run, phase, states)]
    return found


def _findings(run: Run, phase: Phase, states: dict[str, Any]) -> list[Finding]:
    random = random_policy(states, phase.name, [acting.name for acting in run.acting], run.random.returns)
    found = diagnose(series_of(phase.best.column), random) if phase.best is not None else []
    own, base = Returns.of(phase.returns), Returns.of(run.random.returns) or random
    if own is None or base is None:
        return found
    beside = evaluated(own, base)
    return ([beside] if beside else []) + [finding for finding in found if finding.rule != "worse_than_random"]


def _states(run: Run) -> dict[str, Any]:
    try:
        states = json.loads((run.folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}
