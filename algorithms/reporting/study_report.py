"""What an algorithm without an agent to evaluate adds to a report: its own table, and its own sections.

Its module `report` ends with REPORT, a StudyReport over the tables that its analysis makes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from parsecrl.algorithms.registry.algorithm import ParallelMap

Tables = dict[str, pd.DataFrame]  # of the analysis, by name


def stacked(parts: Iterable[Tables]) -> Tables:
    """Put tables of one name, of several trials, below each other.

    Args:
        parts: Tables of each trial, by name; a trial may lack some.

    Returns:
        The tables by name, with new row numbers.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for tables in parts:
        for name, table in tables.items():
            found.setdefault(name, []).append(table)
    return {name: pd.concat(these, ignore_index=True) for name, these in found.items()}


def variation(searched: Mapping[str, Any], own_columns: Container[str]) -> str:
    """The end of a model's name: what its trial was searched over, by dotted key, and has no column of its own.

    Args:
        searched: Value by dotted key.
        own_columns: Dotted keys that have a column.

    Returns:
        ", key=value" for each of the others, with the key's last part alone.
    """
    return "".join(f", {key.rpartition('.')[2]}={value}" for key, value in searched.items() if key not in own_columns)


def tables_of_trials(
    analyse: Callable[[Any], Tables],
    own_columns: Container[str],
    checkpoints: Sequence[Any],
    parameters: Sequence[Mapping[str, Any]],
    parallel_map: ParallelMap = map,
    column: str = "model",
) -> Tables:
    """What `analyse` makes of each checkpoint, below each other.

    Args:
        analyse: A checkpoint -> its tables, each with the column `column`.
        own_columns: Dotted keys that have a column of their own.
        checkpoints: One a trial.
        parameters: What each trial was searched over, by dotted key; what is not in `own_columns` becomes part of the
            name in `column`.
        parallel_map: As the built-in map, in order.
        column: That names the variant.

    Returns:
        The tables by name.

    Raises:
        ValueError: There are not as many parameters as checkpoints.
    """
    parts = []
    for tables, searched in zip(parallel_map(analyse, checkpoints), parameters, strict=True):
        others = variation(searched, own_columns)
        parts.append({name: table.assign(**{column: table[column] + others}) for name, table in tables.items()})
    return stacked(parts)


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
