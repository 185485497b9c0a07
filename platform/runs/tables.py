"""The tables of an analysed phase: <run>/analysis/<phase>/<table>.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.storage import Location, write_atomically

FOLDER = "analysis"


def tables_folder(folder: RunFolder, phase: str) -> Location:
    """Where the tables of a phase are.

    Args:
        folder: Of the run.
        phase: Its name.

    Returns:
        <run>/analysis/<phase>, which may not exist yet.
    """
    return folder.path / FOLDER / phase


def write_tables(run_dir: Location, phase: str, tables: dict[str, pd.DataFrame]) -> None:
    """Write a CSV file a table.

    Args:
        run_dir: Of the run.
        phase: Its name.
        tables: By name, which the files get.
    """
    place = run_dir / FOLDER / phase
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_atomically(place / f"{name}.csv", table.to_csv(index=False))


def read_tables(run_dir: Path, phase: str) -> dict[str, pd.DataFrame]:
    """Read the tables of a phase.

    Args:
        run_dir: Of the run, on disk.
        phase: Its name.

    Returns:
        Tables by name; empty before the phase was analysed.
    """
    return {file.stem: pd.read_csv(file) for file in sorted((run_dir / FOLDER / phase).glob("*.csv"))}
