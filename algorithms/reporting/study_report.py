"""What an algorithm without an agent to evaluate adds to a report: its own table, and its own sections.

Its module `report` ends with REPORT, a StudyReport over the tables that its analysis makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

Tables = dict[str, pd.DataFrame]  # of the analysis, by name


@dataclass(frozen=True)
class ResultTable:
    """What was found, beside what the paper reports.

    Attributes:
        headings: Of the columns.
        rows: Text, a cell for each heading.
        note: What the columns mean, and where the paper's numbers come from.
    """

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True)
class StudyReport:
    """How an algorithm's trials are shown.

    Attributes:
        result_table: Tables of the analysis -> the table that ends a run and begins its part of the page.
        sections: (phase's name, tables, folder) -> sections of HTML, made with `markup`; figures and films are drawn
            into the folder, with the phase's name in theirs.
        trial_columns: The columns that name a trial, where every row of every table belongs to one. Tables of several
            runs can then be put below each other.
    """

    result_table: Callable[[Tables], ResultTable]
    sections: Callable[[str, Tables, Path], list[str]]
    trial_columns: tuple[str, ...] = ()
