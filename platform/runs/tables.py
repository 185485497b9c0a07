"""The tables of an analysed phase: <run>/analysis/<phase>/<table>.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.storage import Location, write_atomically

FOLDER = "analysis"


def tables_folder(folder: RunFolder, phase: str) -> Location:
    """Where the tables of a phase are."""
    return folder.path / FOLDER / phase


def write_tables(run_dir: Location, phase: str, tables: dict[str, pd.DataFrame]) -> None:
    """Write a CSV file a table, by its name."""
    place = run_dir / FOLDER / phase
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_atomically(place / f"{name}.csv", table.to_csv(index=False))


def read_tables(run_dir: Path, phase: str) -> dict[str, pd.DataFrame]:
    """Table name -> table; empty before the phase was analysed."""
    return {file.stem: pd.read_csv(file) for file in sorted((run_dir / FOLDER / phase).glob("*.csv"))}
