"""Paths in a run folder as Tune stores them there: `run-folder://planet/trial_00000/checkpoint_000003`.

They are relative to the folder, which may therefore be moved, and become absolute where they are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parsecrl.platform.storage import Location, RemotePath

PREFIX = "run-folder://"
TEXT = f"text:{PREFIX}"  # of a path that was a text


def relative(config: Any, run_folder: Location) -> Any:
    """A copy of a config with the folder's paths as `absolute` reads them.

    Args:
        config: Dicts, down to values.
        run_folder: Whose paths they are.

    Returns:
        The copy; other values are as they were.
    """
    if isinstance(config, dict):
        return {key: relative(value, run_folder) for key, value in config.items()}
    if isinstance(config, str | Path | RemotePath) and str(config).startswith(f"{run_folder}/"):
        return (TEXT if isinstance(config, str) else PREFIX) + str(config).removeprefix(f"{run_folder}/")
    return config


def absolute(config: Any, run_folder: Location) -> Any:
    """A copy of a config with the paths that `relative` made, as they are in this folder.

    Args:
        config: Dicts, down to values.
        run_folder: Where the run is now.

    Returns:
        The copy; what was text is text again, other paths are paths.
    """
    if isinstance(config, dict):
        return {key: absolute(value, run_folder) for key, value in config.items()}
    if isinstance(config, str) and config.startswith(TEXT):
        return f"{run_folder}/{config.removeprefix(TEXT)}"
    if isinstance(config, str) and config.startswith(PREFIX):
        return run_folder / config.removeprefix(PREFIX)
    return config
