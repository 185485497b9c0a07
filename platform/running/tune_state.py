"""Tune's own state files: stored so that a kill at any moment leaves a state to go on from.

Tune's driver copies its files over the stored ones every few seconds, in place, all of them. A kill in that moment
would leave half a file, also of trials that ended long ago. `Store` copies in Tune's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parsecrl.platform.cluster.tune_private import updated_generator, updated_search, updated_state
from parsecrl.platform.errors import StorageUnreachable
from parsecrl.platform.storage import (
    Location,
    RemotePath,
    for_tune,
    in_parallel,
    of_tune,
    write_atomically,
    write_bytes_atomically,
)

EXPERIMENT, SEARCH, DRAWN = "experiment_state-*.json", "basic-variant-state-*.json", "search_gen_state-*.json"
PATTERNS = (EXPERIMENT, SEARCH, DRAWN, "searcher-state-*.pkl", "callback-states-*.pkl")
TUNER = "tuner.pkl"
PICKLE = b"\x80"  # a pickle's first byte


class Store:
    """Stores what Tune's driver has written: what has changed, each file whole, the experiment's state last.

    The state is read first. So the stored files of trials may know more than the state that is stored with them, and
    never less.
    """

    def __init__(self) -> None:
        self._stored: dict[Path, tuple[int, int]] = {}  # file -> its time of change, nanoseconds, and its size

    def __call__(self, source: str, path: str, filesystem: Any) -> None:
        """Store the files of a folder.

        Args:
            source: Folder of Tune's driver.
            path: Of the experiment, as Tune takes it.
            filesystem: As Tune takes it.
        """
        local, target = Path(source), of_tune(path, filesystem)
        own = {file: file.read_bytes() for file in sorted(local.iterdir()) if file.is_file()}
        of_trials = [file for folder in local.iterdir() if folder.is_dir() for file in folder.rglob("*")]
        in_parallel(lambda file: self._store(file, target / file.relative_to(local).as_posix()), of_trials)
        for file in sorted(own, key=lambda file: file.match(EXPERIMENT)):
            write_bytes_atomically(target / file.name, own[file])

    def _store(self, file: Path, target: Location) -> None:
        if not file.is_file():
            return
        found = file.stat()
        signature = found.st_mtime_ns, found.st_size
        if self._stored.get(file) == signature:
            return
        if not isinstance(target, RemotePath):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(target, file.read_bytes())
        self._stored[file] = signature


def repair(folder: Location) -> bool:
    """Take out state files that are not whole, as a copy of the run that was broken off leaves them.

    Args:
        folder: Of the phase.

    Returns:
        False where there is nothing to restore an experiment from.
    """
    for pattern in PATTERNS:
        for file in folder.glob(pattern):
            if not _is_whole(file):
                file.unlink()
    if isinstance(folder, Path):  # what a driver was writing when it was killed; a store has whole objects alone
        for file in folder.rglob(".*.tmp"):
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
