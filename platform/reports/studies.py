"""Phases without an agent to evaluate: their algorithm's own table and sections of the report.

Each module in MODULES has two functions over the tables of `parsecrl.platform.running.analysis`:

    result_table(tables) -> ResultTable                           the end of `parsec run`, and the first section
    sections(phase, tables, folder) -> list[str]                  HTML; figures are drawn into `folder`

and, where every row of every table belongs to a trial, TRIAL: the columns that name it. Tables of several runs can then
be put below each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from parsecrl.platform.reports import markup
from parsecrl.platform.reports.data import Phase

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


def table_of(phase: Phase, tables: dict[str, pd.DataFrame]) -> ResultTable:
    """The phase's own table over tables that may come from several runs."""
    found: ResultTable = _module(phase).result_table(tables)
    return found


def trial_columns(phase: Phase) -> tuple[str, ...]:
    """The columns of a phase's tables that name a trial; none where rows are of several trials or of none."""
    columns: tuple[str, ...] = getattr(_module(phase), "TRIAL", ()) if phase.algorithm in MODULES else ()
    return columns


def sections_of(phase: Phase, title: str, tables: dict[str, pd.DataFrame], folder: Path, note: str = "") -> list[str]:
    """The phase's part of a report, over tables that may come from several runs."""
    if not tables:
        return [markup.section(phase.name, title, markup.paragraph("Nothing was analysed yet."))]
    found = table_of(phase, tables)
    results = markup.section(
        f"results-{phase.name}",
        f"Results of {title}",
        markup.table(found.headings, found.rows),
        *(markup.paragraph(text, "soft small") for text in (found.note, note) if text),
    )
    return [results, *_module(phase).sections(phase, tables, folder)]


def _module(phase: Phase) -> Any:
    return import_module(MODULES[phase.algorithm])
