"""How far a run is, where the Ray dashboard and `parsec jobs` show it: in the job's own record on the head.

Ray has no call to change a job's message and metadata after the submission. The record is JSON in Ray's key-value
store; the job's supervisor writes it before the driver starts and after it ended, so in between the driver can. A run
that starts Ray itself has no supervisor, and makes its record itself: Ray ends with the run, so that no record stays.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's supervisor for the driver of a job
PROJECT = "parsecrl"  # in a job's metadata
RUN_BEGINS = "run folder: "  # begins the line that a run prints once nothing was wrong with it
SECONDS_BETWEEN = 5.0
logger = logging.getLogger(__name__)
_own: str | None = None  # of `begin`


def submission_id() -> str | None:
    """Of the Ray job that this process is the driver of; None for a run that was not submitted."""
    try:
        return json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
    except (KeyError, TypeError, ValueError):
        return None


def begin(name: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
    """Make the record of this process on the Ray that it has started.

    Args:
        name: Of the job.
        entrypoint: The command, as people would give it.
        metadata: As a submitted job has it.
    """
    global _own
    from parsecrl.platform.cluster import ray_private

    try:
        ray_private.write_job(name, "RUNNING", entrypoint=entrypoint, metadata=dict(metadata))
        _own = name
    except Exception as error:  # a run does not end because nobody could watch it
        logger.debug("no record of the run was made: %s", error)


@contextmanager
def end_told() -> Iterator[None]:
    """Say in the record that `begin` made how what is inside ended; nothing where there is none.

    Yields:
        Nothing.
    """
    try:
        yield
    except BaseException as error:
        _end("FAILED", message=f"{type(error).__name__}: {error}")
        raise
    _end("SUCCEEDED")


def _end(status: str, **told: str) -> None:
    global _own
    if _own is None:
        return
    from parsecrl.platform.cluster import ray_private

    try:
        ray_private.write_job(_own, status, **told)
    except Exception as problem:
        logger.debug("the end of the run was not published: %s", problem)
    _own = None


def publisher() -> Callable[[str], None] | None:
    """A function that publishes the status line, at most every few seconds; None where there is no record."""
    job = submission_id() or _own
    return _Publisher(job) if job else None


class _Publisher:
    def __init__(self, job: str):
        self.job, self.shown, self.phase = job, -math.inf, ""

    def __call__(self, text: str) -> None:
        phase, _, rest = text.partition(": ")
        if phase == self.phase and time.monotonic() - self.shown < SECONDS_BETWEEN:
            return
        self.phase, self.shown = phase, time.monotonic()
        progress = rest.partition(" | dashboard ")[0]
        try:
            from parsecrl.platform.cluster import ray_private

            ray_private.publish_progress(self.job, phase, progress)
        except Exception as error:  # a run does not end because nobody could watch it
            logger.debug("progress was not published: %s", error)
