"""The reports of algorithms without an agent to evaluate, each in its algorithm's folder."""

from __future__ import annotations

from parsecrl.algorithms.registry.algorithm import Algorithm, algorithm_named, registered
from parsecrl.algorithms.reporting.study_report import StudyReport


def entry_of(algorithm: str) -> Algorithm | None:
    """The registry's entry; None of an algorithm that is not installed here."""
    return algorithm_named(algorithm) if algorithm in registered() else None


def study_report_of(algorithm: str) -> StudyReport | None:
    """How the algorithm's trials are shown; None of one that is not installed here, or has no report of its own."""
    entry = entry_of(algorithm)
    report: StudyReport | None = entry.report() if entry else None
    return report
