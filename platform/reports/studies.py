"""Phases without an agent to evaluate: their algorithm's own table and sections of the report."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from markupsafe import Markup

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.study_report import StudyReport, Tables

STUDIES = ("energy_regression", "cartpole_embedding", "latent_planning", "open_loop", "latent_sac")


def study_report_of(algorithm: str) -> StudyReport | None:
    """How the algorithm's trials are shown; None of one whose checkpoints hold an agent to evaluate."""
    if algorithm not in STUDIES:
        return None
    report: StudyReport = import_module(f"parsecrl.algorithms.{algorithm}.report").REPORT
    return report


def sections_of(algorithm: str, phase: str, title: str, tables: Tables, folder: Path, note: str = "") -> list[Markup]:
    """A phase's part of a page.

    Args:
        algorithm: One of STUDIES.
        phase: Its name, which links and the figures' files have in theirs.
        title: What the page calls it.
        tables: Of its analysis; they may come from several runs.
        folder: Figures are drawn into it.
        note: Below the table.

    Returns:
        Sections of HTML.
    """
    report = study_report_of(algorithm)
    if not tables or report is None:
        return [markup.section(phase, title, markup.paragraph("Nothing was analysed yet."))]
    found = report.result_table(tables)
    results = markup.section(
        f"results-{phase}",
        f"Results of {title}",
        markup.table(found.headings, found.rows),
        *(markup.paragraph(text, "soft small") for text in (found.note, note) if text),
    )
    return [results, *map(Markup, report.sections(phase, tables, folder))]
