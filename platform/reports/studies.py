"""What the registry knows of a phase's algorithm: its report, and what it may stop at."""

from __future__ import annotations

from parsecrl.algorithms.registry.algorithm import Algorithm, RegistryError, algorithm_named, registered
from parsecrl.algorithms.reporting.study_report import StudyReport


def entry_of(algorithm: str, *, is_own: bool) -> Algorithm | None:
    """The registry's entry of an algorithm, as a run's spec says it; None of one that is not installed here.

    Unless this user made the run (is_own), what its spec names as module:NAME is not imported: None as well.
    """
    if algorithm not in registered() and not (is_own and ":" in algorithm):
        return None
    try:
        return algorithm_named(algorithm)
    except RegistryError:
        return None


def study_report_of(entry: Algorithm | None) -> StudyReport | None:
    """How the trials of an algorithm are shown; None of one without a report of its own."""
    report: StudyReport | None = entry.report() if entry else None
    return report
