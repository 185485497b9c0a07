"""A job seen from outside: whether its run begins, its log until it ends, and how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import sys
import time
from collections.abc import Callable

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.cluster.job_record import RUN_BEGINS
from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError, text_line
from parsecrl.platform.runs.status import status_text
from parsecrl.platform.storage import location_of
from parsecrl.platform.submission.head import Client, JobDetails, JobStatus
from parsecrl.platform.submission.jobs import find, printable, table

STOPPED_EXIT_CODE = 130
BEGIN_WAIT_S = 20.0  # for the driver to take the job up or to refuse it; a cluster may have it wait for longer
LOST_S = 60.0  # a head that is silent for so long while its log is followed is taken for lost


def await_begin(client: Client, job: str) -> int:
    """Wait for a job's run to begin, for BEGIN_WAIT_S at most.

    Only the head knows whether its storage can be used: credentials for an object store are in the nodes' environment.

    Args:
        client: Of the head.
        job: Its id.

    Returns:
        0, or the exit status of a job that ended before.

    Raises:
        UserError: The driver refuses the run: what it says.
        RunFailed: The job failed otherwise.
    """
    deadline = time.monotonic() + BEGIN_WAIT_S
    while time.monotonic() < deadline:
        details, log = None, ""
        with contextlib.suppress(RuntimeError, UserError):  # a head that stalls; the job is there all the same
            details = client.get_job_info(job)
        with contextlib.suppress(RuntimeError, UserError):  # no log before the driver starts
            log = client.get_job_logs(job)
        if RUN_BEGINS in log:
            return 0
        if details is not None and details.status.is_terminal():
            code = _exit_status(details)
            told = [line.removeprefix("parsec: ") for line in log.splitlines() if line.startswith("parsec: ")]
            if code in {1, 2} and told:
                raise (UserError if code == 2 else RunFailed)(printable(told[-1]))
            return code
        time.sleep(0.5)
    return 0


def follow(client: Client, job: str, write: Callable[[str], object] = sys.stdout.write) -> int:
    """Print the log of a job until it ends.

    Args:
        client: Of the head.
        job: Its id.
        write: Gets each piece of the log.

    Returns:
        Its exit status: 0, that of its driver, or 130 if it was stopped.

    Raises:
        RunFailed: The head is silent for a minute.
    """
    quiet_ray()  # aiohttp's deprecation warnings
    log = _LogPrinter(client, job, write)
    lost = math.inf  # since when
    while True:
        try:
            asyncio.run(log.print_on())
            details = client.get_job_info(job)
            lost = math.inf
            if details.status.is_terminal():
                return _exit_status(details)
        except (OSError, RuntimeError, UserError) as error:  # aiohttp's errors are OSErrors here
            now = time.monotonic()
            lost = now if log.heard > lost else min(lost, now)
            if now - lost > LOST_S:
                raise RunFailed(
                    f"the head at {client.get_address()} answers no more ({text_line(error)}); "
                    f"the job {job} may still run"
                ) from None
        time.sleep(1.0)


class _LogPrinter:
    """Prints a job's log from where it got to, over as many connections as it takes."""

    def __init__(self, client: Client, job: str, write: Callable[[str], object]):
        self.client, self.job, self.write = client, job, write
        self.printed = 0  # characters
        self.heard = -math.inf  # when the head last sent something

    async def print_on(self) -> None:
        """Until the connection ends or is silent for LOST_S: a head that lost its power says no goodbye."""
        import aiohttp

        seen, pieces = 0, self.client.tail_job_logs(self.job)  # from the log's beginning
        try:
            while True:
                text = await asyncio.wait_for(pieces.__anext__(), LOST_S)
                self.heard = time.monotonic()
                new = text[max(0, self.printed - seen) :]
                seen += len(text)
                self.printed = max(self.printed, seen)
                if new:
                    self.write(new)
                    sys.stdout.flush()
        except (StopAsyncIteration, asyncio.TimeoutError):  # not the built-in before Python 3.11
            return
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from None


def _exit_status(details: JobDetails) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return STOPPED_EXIT_CODE
    if details.driver_exit_code is None:  # it never came to running
        raise RunFailed(f"the job {details.submission_id} failed: {text_line(details.message)}")
    return max(details.driver_exit_code, 0) or 1  # negative: killed by a signal


def job_status(client: Client, job: str) -> str:
    """How a job stands.

    Args:
        client: Of the head.
        job: Its id or its name.

    Returns:
        Lines: the job's row, and how its run stands, or where only the cluster can read its folder.

    Raises:
        UserError: There is no such job.
    """
    found = find(client, job)
    lines = [table([found])]
    with contextlib.suppress(RuntimeError, UserError):  # no log before the driver starts
        log = client.get_job_logs(str(found.submission_id))
        if begins := re.search(rf"^{re.escape(RUN_BEGINS)}(.+)$", log, re.MULTILINE):
            lines.append(_run(begins[1].strip()))
    return "\n\n".join(lines)


def _run(folder: str) -> str:
    try:
        return status_text(location_of(folder))
    except (UserError, StorageUnreachable):
        return f"{folder} is not to be read from here; on a machine that can: parsec status {folder}"
