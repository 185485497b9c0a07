"""The jobs that a cluster's head knows: listed, found, stopped.

client = connect("http://head:8265", token_file="token")
follow(client, submit(client, load_spec("cheetah_run_quick"), "/mnt/runs"))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from parsecrl.platform.cluster.job_record import PROJECT
from parsecrl.platform.errors import RunFailed, UserError, text_line
from parsecrl.platform.submission.head import Client, JobDetails
from parsecrl.platform.terminal import text_table

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"  # read by the job's supervisor, in the job's own environment


def project_jobs(client: Client) -> list[JobDetails]:
    """The jobs of this project that the head knows.

    Args:
        client: Of the head.

    Returns:
        Jobs, oldest first.

    Raises:
        RunFailed: The head does not list its jobs.
    """
    try:
        jobs = client.list_jobs()
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunFailed(f"the Ray head at {client.get_address()} does not list its jobs: {text_line(error)}") from None
    own = [job for job in jobs if job.submission_id and (job.metadata or {}).get("project") == PROJECT]
    return sorted((job for job in own if "name" in job.metadata), key=lambda job: job.start_time or 0)


def table(jobs: Sequence[JobDetails]) -> str:
    """Jobs as text.

    Args:
        jobs: Of `project_jobs`.

    Returns:
        A row a job: id, name, spec, phase, progress, status.
    """
    rows = []
    for job in jobs:
        found = job.metadata or {}
        told = [found.get(key) or "-" for key in ("name", "spec", "phase", "progress")]
        rows.append((str(job.submission_id), *map(printable, told), str(job.status)))
    return text_table(("job", "name", "spec", "phase", "progress", "status"), rows)


def printable(text: str) -> str:
    """Take control characters out of what goes to the terminal: other people's jobs are listed too.

    Args:
        text: Any.

    Returns:
        The text, ? for each of them.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def stop(client: Client, job: str, write: Callable[[str], object] = print) -> None:
    """Ask a job to stop, and wait until it has: its trials write checkpoints first.

    Args:
        client: Of the head.
        job: Its id or its name.
        write: Gets each line that tells of it.

    Raises:
        UserError: There is no such job.
        RunFailed: The head did not stop it.
    """
    found = find(client, job)
    name = str(found.submission_id)
    if found.status.is_terminal():
        write(f"{name} has ended before: {found.status}")
        return
    try:
        client.stop_job(name)
    except RuntimeError as error:
        raise RunFailed(f"the head at {client.get_address()} did not stop {name}: {text_line(error)}") from None
    limit = ((found.runtime_env or {}).get("env_vars") or {}).get(STOP_WAIT, "?")
    write(f"stopping {name}: each trial writes a checkpoint after its iteration; killed after {limit} s")
    while not (status := client.get_job_info(name).status).is_terminal():
        time.sleep(0.5)
    write(f"{name}: {status}")


def find(client: Client, job: str) -> JobDetails:
    """The job of an id or a name.

    Args:
        client: Of the head.
        job: Its id, or its name, of which the last one is taken.

    Returns:
        The job.

    Raises:
        UserError: There is none.
    """
    jobs = project_jobs(client)
    by_name = [found for found in jobs if found.metadata["name"] == job]
    fitting = [found for found in jobs if found.submission_id == job] or by_name[-1:]
    if fitting:
        return fitting[0]
    running = ", ".join(str(found.submission_id) for found in jobs if not found.status.is_terminal()) or "none"
    raise UserError(f"no job {job!r} of {PROJECT} at {client.get_address()}; running: {running}")
