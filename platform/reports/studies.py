"""Phases without an agent to evaluate: their algorithm's own table and sections of the report.

Each module in MODULES has two functions over the tables of `parsecrl.platform.analysis`:

    result_table(tables) -> ResultTable                           the end of `parsec run`, and the first section
    sections(phase, tables, folder) -> list[str]                  HTML; figures are drawn into `folder`
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from parsecrl.platform.analysis import read_tables
from parsecrl.platform.reports import markup
from parsecrl.platform.reports.data import Phase, Run

MODULES: dict[str, str] = {  # algorithm -> module
    "energy_regression": "parsecrl.platform.reports.energy_regression",
    "cartpole_embedding": "parsecrl.platform.reports.cartpole_embedding",
    "latent_planning": "parsecrl.platform.reports.latent_planning",
    "open_loop": "parsecrl.platform.reports.open_loop",
    "latent_sac": "parsecrl.platform.reports.latent_sac",
}


@dataclass(frozen=True)
class ResultTable:
    """What was found, beside what the paper reports."""

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def result_table(run: Run, phase: Phase) -> ResultTable | None:
    """None before the phase was analysed."""
    tables = _tables(run, phase)
    return import_module(MODULES[phase.algorithm]).result_table(tables) if tables else None


def sections(run: Run, phase: Phase, folder: Path) -> list[str]:
    """The phase's part of the report."""
    tables, found = _tables(run, phase), result_table(run, phase)
    if found is None:
        return [markup.section(phase.name, phase.name, markup.paragraph("Nothing was analysed yet."))]
    results = markup.section(
        f"results-{phase.name}",
        f"Results of {phase.name}",
        markup.table(found.headings, found.rows),
        markup.paragraph(found.note, "soft small"),
    )
    return [results, *import_module(MODULES[phase.algorithm]).sections(phase, tables, folder)]


def _tables(run: Run, phase: Phase) -> dict[str, pd.DataFrame]:
    return read_tables(run.folder, phase.name)
