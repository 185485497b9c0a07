"""Tune's own state files, made safe against a kill in mid-write.

Tune copies its state over the old one every few seconds, in place: a kill in that moment leaves half a file, and
the whole experiment could not be restored. `Backup` keeps a copy of the last state that was whole; `repair` puts it
back. Neither depends on what the files say.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parsecrl.platform.cluster.tune_private import updated_generator, updated_search, updated_state
from parsecrl.platform.errors import StorageUnreachable
from parsecrl.platform.storage import Location, RemotePath, for_tune, write_atomically

EXPERIMENT, SEARCH, DRAWN = "experiment_state-*.json", "basic-variant-state-*.json", "search_gen_state-*.json"
PATTERNS = (EXPERIMENT, SEARCH, DRAWN, "searcher-state-*.pkl", "callback-states-*.pkl")
BACKUP, TUNER = ".last_good", "tuner.pkl"
PICKLE = b"\x80"  # a pickle's first byte
# What ends the experiment's state. Inside of it such a line is quoted, with backslashes.
LAST_OF_STATE = re.compile(rb', "stats": \{[^{}\\]*\}\}$')


class Backup:
    """Copies the newest state files aside whenever they have changed, and are whole.

    It is asked after every step of Tune's, and both the files and the folder that they are in grow with the number of
    trials: as long as nothing has changed, it looks at one file's time and at nothing else.

    Args:
        folder: Of the phase; in an object store nothing is copied.
    """

    def __init__(self, folder: Location):
        self.folder = folder
        self._state: Path | None = None  # Tune writes to the same name as long as it runs
        self._copied = -1  # its time of change, nanoseconds

    def update(self) -> None:
        """Copy the newest state files where they have changed, and are whole."""
        folder = self.folder
        if isinstance(folder, RemotePath):
            return
        if self._state is None:
            self._state = _newest(folder).get(EXPERIMENT)
            if self._state is None:
                return
        try:
            changed = self._state.stat().st_mtime_ns
        except FileNotFoundError:
            self._state = None
            return
        if changed == self._copied:
            return
        newest = _newest(folder)
        self._state = newest.get(EXPERIMENT)
        if self._state is None or not all(_ends_well(file) for file in newest.values()):
            return
        copy = folder / BACKUP
        copy.mkdir(exist_ok=True)
        for file in newest.values():
            unfinished = copy / f".{file.name}.tmp"
            shutil.copy2(file, unfinished)
            os.replace(unfinished, copy / file.name)
        self._copied = changed


def repair(folder: Location) -> bool:
    """Make the newest state files whole again.

    A store too may hold half a file: one of a run on disk that was killed, and copied there.

    Args:
        folder: Of the phase.

    Returns:
        False where there is nothing to restore an experiment from.
    """
    for pattern in PATTERNS:
        for file in folder.glob(pattern):
            if not _is_whole(file):
                good = folder / BACKUP / file.name
                if _is_whole(good):
                    file.write_bytes(good.read_bytes())
                else:
                    file.unlink()
    return is_stored(folder)


def is_stored(folder: Location) -> bool:
    """Whether there is an experiment to go on with, after `repair`.

    Args:
        folder: Of the phase.

    Returns:
        False where it begins.
    """
    return EXPERIMENT in _newest(folder) and _is_whole(folder / TUNER)


def bring_up_to_date(folder: Location, space: dict[str, Any], searched: Iterable[str]) -> None:
    """Have a stored experiment go on with the settings of this process, and where its folder is now.

    What else in Tune's state says where the folder was, Tune corrects when it restores the state.

    Args:
        folder: Of the phase, whose state is whole.
        space: Of `param_space`, with the run's paths as `inner_paths.relative` has them.
        searched: Dotted keys, whose values each trial keeps.
    """
    newest = _newest(folder)
    state = newest[EXPERIMENT]
    write_atomically(state, updated_state(state.read_text(encoding="utf-8"), space, searched))
    if (search := newest.get(SEARCH)) is not None:
        search.write_bytes(updated_search(search.read_bytes(), space, searched, *for_tune(folder.parent)))
    if (drawn := newest.get(DRAWN)) is not None:
        drawn.write_bytes(updated_generator(drawn.read_bytes(), space, *for_tune(folder.parent)))


def trial_ids(folder: Location) -> list[str]:
    """The trials that a stored experiment knows.

    Args:
        folder: Of the phase, whose state is whole.

    Returns:
        Their ids in Tune.
    """
    state = json.loads(_newest(folder)[EXPERIMENT].read_text(encoding="utf-8"))
    return [json.loads(row[0])["trial_id"] for row in state["trial_data"]]


def _newest(folder: Location) -> dict[str, Any]:
    """Pattern -> the latest file; Tune puts the time into their names."""
    return {pattern: max(found) for pattern in PATTERNS if (found := list(folder.glob(pattern)))}  # type: ignore[type-var]


def _ends_well(file: Path) -> bool:
    """Whether a file that is written from its beginning to its end is there to its end, without reading all of it."""
    try:
        with file.open("rb") as stream:
            head = stream.read(1)
            stream.seek(max(0, file.stat().st_size - 200))
            end = stream.read()
    except OSError:
        return False
    return end.endswith(b".") if head == PICKLE else bool(LAST_OF_STATE.search(end)) or _is_whole(file)


def _is_whole(file: Location) -> bool:
    """By what the file holds, not by its name: Tune pickles a search's state into a .json."""
    try:
        data = file.read_bytes()
        if data[:1] == PICKLE:
            return data.endswith(b".")  # the protocol's last opcode
        json.loads(data)
        return True
    except StorageUnreachable:  # which says nothing of the file
        raise
    except (OSError, ValueError):
        return False
