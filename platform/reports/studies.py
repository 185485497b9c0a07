"""The reports of algorithms without an agent to evaluate, each in its algorithm's folder."""

from __future__ import annotations

from importlib import import_module

from parsecrl.algorithms.reporting.study_report import StudyReport

STUDIES = ("energy_regression", "cartpole_embedding", "latent_planning", "open_loop", "latent_sac")


def study_report_of(algorithm: str) -> StudyReport | None:
    """How the algorithm's trials are shown; None of one whose checkpoints hold an agent to evaluate."""
    if algorithm not in STUDIES:
        return None
    report: StudyReport = import_module(f"parsecrl.algorithms.{algorithm}.report").REPORT
    return report
