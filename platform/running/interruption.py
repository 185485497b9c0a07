"""Stopping a run: the first SIGINT or SIGTERM lets its trials write a checkpoint, the second ends it at once.

    with handled():                    # the whole run
        with awaiting_checkpoints():   # a phase; elsewhere the first signal ends the run, which loses nothing there
            tuner.fit()                # its callback asks requested() and calls end_experiment()

Signals belong to the process, and so does what is kept here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nparsec: stopping; each trial writes a checkpoint after its iteration (once more: end at once)\n"

_requested: int | None = None
_phase_is_running = False


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop by a signal, and can be continued.

    Args:
        number: Of the signal.

    Attributes:
        exit_code: 128 + number.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Take SIGINT and SIGTERM over, from Ray as well, which installs its own when it starts."""
    global _requested
    _requested = None
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to no other
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested = None


@contextlib.contextmanager
def awaiting_checkpoints() -> Iterator[None]:
    """In here the first signal only asks; it is raised as Interrupted at the end."""
    global _phase_is_running
    _phase_is_running = True
    try:
        yield
    finally:
        _phase_is_running = False
    if _requested is not None:
        raise Interrupted(_requested)


def requested() -> bool:
    """Whether the phase that runs shall end after the next checkpoints."""
    return _requested is not None


def end_experiment() -> None:
    """End Tune's loop after this step: it then saves its state, with the trials as unfinished."""
    if callable(signal.getsignal(signal.SIGUSR1)):  # Tune's own handler for that, ray 2.60
        signal.raise_signal(signal.SIGUSR1)


def _on_signal(number: int, frame: Any) -> None:
    global _requested
    if _phase_is_running and _requested is None:
        _requested = number
        with contextlib.suppress(OSError):
            os.write(2, NOTICE)  # the stream may be in the middle of a write
        return
    raise Interrupted(number)
