"""How far a run is, in its own folder, so that another terminal or machine can tell: progress.json and trials.json.

    RUN/progress.json            what the status line says, and when it said so
    RUN/<phase>/trials.json      a record of each trial that has told something, and the time left

Both are small files that are written whole, on disk every few seconds, in an object store twice a minute.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from parsecrl.platform.errors import StorageUnreachable
from parsecrl.platform.storage import Location, RemotePath, read_json, write_atomically
from parsecrl.platform.terminal import begins

PROGRESS_FILE, TRIALS_FILE = "progress.json", "trials.json"
SECONDS_ON_DISK, SECONDS_IN_STORE = 5.0, 30.0
RUNNING, ENDED = "running", "ended"


class TrialRecord(NamedTuple):
    """A trial as `parsec status` shows it.

    name: Of its folder, with the searched values. status: As Tune says it. done: Fraction of the phase's goal.
    score: Of its last result. failure: Why it failed, in a sentence.
    """

    name: str
    status: str
    done: float
    score: float | None
    failure: str | None


class Throttled:
    """Writes a JSON file at most every few seconds; a run never ends because it could not.

    Args:
        file: That is written.
    """

    def __init__(self, file: Location):
        self.file = file
        self.pause = SECONDS_IN_STORE if isinstance(file, RemotePath) else SECONDS_ON_DISK
        self._next = -math.inf

    def write(self, make: Callable[[], dict[str, Any]], *, now: bool = False) -> None:
        """Write what `make` returns and the time, where it is due, or now."""
        start = time.monotonic()
        if not now and start < self._next:
            return
        with contextlib.suppress(OSError, StorageUnreachable):
            write_atomically(self.file, json.dumps({"at": round(time.time(), 1), **make()}))
        end = time.monotonic()
        self._next = end + max(self.pause, 19 * (end - start))  # at most a twentieth of the time


class RunProgress:
    """The status line of a run, in its folder.

    Args:
        folder: Of the run, which exists.
    """

    def __init__(self, folder: Location):
        self._file, self._text = Throttled(folder / PROGRESS_FILE), ""

    def tell(self, text: str) -> None:
        """What the status line says now."""
        self._text, before = text, self._text
        self._file.write(lambda: {"status": RUNNING, "text": text}, now=begins(text, before))

    def end(self, error: BaseException | None = None) -> None:
        """The process of the run ends, because of an error where there is one."""
        said = f"{type(error).__name__}: {error}" if error is not None else None
        self._file.write(lambda: {"status": ENDED, "text": self._text, "error": said}, now=True)


def read_progress(folder: Location) -> dict[str, Any]:
    """What a run last said of itself.

    Args:
        folder: Of the run.

    Returns:
        at (seconds since the epoch), status, text, error; empty before it said anything.
    """
    return read_json(folder / PROGRESS_FILE)


def read_trials(phase_folder: Location) -> tuple[list[TrialRecord], dict[str, Any]]:
    """What a phase last said of its trials.

    Args:
        phase_folder: In a run's folder.

    Returns:
        The trials that have told something, and the rest of the file: at, left_s, total; empty before.
    """
    found = read_json(phase_folder / TRIALS_FILE)
    return [TrialRecord(*row) for row in found.pop("trials", [])], found
