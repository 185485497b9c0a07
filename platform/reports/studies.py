"""What the registry knows of a phase's algorithm: its report, and what it may stop at."""

from __future__ import annotations

from parsecrl.algorithms.registry.algorithm import Algorithm
from parsecrl.algorithms.registry.lookup import RegistryError, algorithm_named, registered
from parsecrl.algorithms.reporting.study_report import StudyReport


def entry_of(algorithm: str, *, is_own: bool) -> Algorithm | None:
    """The registry's entry of an algorithm.

    Args:
        algorithm: As a run's spec says it.
        is_own: Whether this user made the run: what its spec names as module:NAME may be imported.

    Returns:
        The entry; None of an algorithm that is not installed here, or whose code may not be imported.
    """
    if algorithm not in registered() and not (is_own and ":" in algorithm):
        return None
    try:
        return algorithm_named(algorithm)
    except RegistryError:
        return None


def study_report_of(entry: Algorithm | None) -> StudyReport | None:
    """How the trials of an algorithm are shown.

    Args:
        entry: None of one that is not known here.

    Returns:
        The report; None of an algorithm without one of its own.
    """
    report: StudyReport | None = entry.report() if entry else None
    return report
