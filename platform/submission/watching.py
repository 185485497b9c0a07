"""`parsec status` of a job: its record on the head, and its run's folder where this machine can read that."""

from __future__ import annotations

import contextlib
import re

from parsecrl.platform.cluster.job_record import RUN_BEGINS
from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.runs.status import status_text
from parsecrl.platform.storage import location_of
from parsecrl.platform.submission import jobs


def job_status(client: jobs.Client, job: str) -> str:
    """How a job stands.

    Args:
        client: Of the head.
        job: Its id or its name.

    Returns:
        Lines: the job's row, and how its run stands, or where only the cluster can read its folder.

    Raises:
        UserError: There is no such job.
    """
    found = jobs.find(client, job)
    lines = [jobs.table([found])]
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
