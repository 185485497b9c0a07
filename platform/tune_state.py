"""Tune's own state files, made safe against a kill in mid-write.

Tune copies its state over the old one every few seconds, in place: a kill in that moment leaves half a file, and
the whole experiment could not be restored. `back_up` keeps a copy of the last state that was whole; `repair` puts it
back. Neither depends on what the files say. In an object store a file is whole or absent, and there is nothing to mend.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from parsecrl.platform.storage import Location, RemotePath

EXPERIMENT = "experiment_state-*.json"
PATTERNS = (
    EXPERIMENT,
    "basic-variant-state-*.json",
    "search_gen_state-*.json",
    "searcher-state-*.pkl",
    "callback-states-*.pkl",
)
BACKUP, TUNER = ".last_good", "tuner.pkl"


def back_up(folder: Location) -> None:
    """Copy the newest state files aside if they changed since, and are whole."""
    if isinstance(folder, RemotePath):
        return
    newest = _newest(folder)
    state = newest.get(EXPERIMENT)
    copy = folder / BACKUP
    if state is None or not all(_is_whole(file) for file in newest.values()):
        return
    marker = copy / state.name
    if marker.exists() and marker.stat().st_mtime_ns == state.stat().st_mtime_ns:
        return
    copy.mkdir(exist_ok=True)
    for file in sorted(newest.values(), key=lambda f: f.name == state.name):  # the marker last
        unfinished = copy / f".{file.name}.tmp"
        shutil.copy2(file, unfinished)
        os.replace(unfinished, copy / file.name)


def repair(folder: Location) -> bool:
    """Make the newest state files whole again. False when there is nothing to restore an experiment from."""
    if isinstance(folder, RemotePath):
        return next(folder.glob(EXPERIMENT), None) is not None and (folder / TUNER).exists()
    for pattern in PATTERNS:
        for file in folder.glob(pattern):
            if not _is_whole(file):
                good = folder / BACKUP / file.name
                if good.exists() and _is_whole(good):
                    shutil.copy2(good, file)
                else:
                    file.unlink()
    return EXPERIMENT in _newest(folder) and _is_whole(folder / TUNER)


def _newest(folder: Path) -> dict[str, Path]:
    """Pattern -> the latest file; Tune puts the time into their names."""
    return {pattern: max(found) for pattern in PATTERNS if (found := list(folder.glob(pattern)))}


def _is_whole(file: Path) -> bool:
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
            return True
        return file.read_bytes().endswith(b".")  # the pickle protocol's last opcode
    except (OSError, ValueError):
        return False
