"""A spec submitted as a Ray job."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import RunFailed, UserError, text_line
from parsecrl.platform.runs.run_folder import check_name
from parsecrl.platform.shipping import own_code
from parsecrl.platform.specs import Spec, dump
from parsecrl.platform.storage import well_formed
from parsecrl.platform.submission import packing
from parsecrl.platform.submission.head import Client
from parsecrl.platform.submission.jobs import PROJECT, STOP_WAIT, project_jobs

DEFAULT_STORAGE = "~/parsec_runs"  # on the head
SPEC_FILE = "spec.yaml"
DEFAULT_STOP_WAIT_S = 600
REPORTS_AFTER_S = 120.0  # a head younger than this may not have reported its nodes yet
REPORT_WAIT_S = 12.0


def submit(
    client: Client,
    spec: Spec,
    storage: str = DEFAULT_STORAGE,
    name: str | None = None,
    fresh: bool = False,
    trust: bool = False,
    new_code: bool = False,
) -> str:
    """Submit a spec as a job. Code that this process was given by --code goes along.

    The driver runs on the head and asks for no CPU: the head is the one node whose loss ends the job in any case, so
    that no other node's does.

    Args:
        client: Of the head.
        spec: What is run.
        storage: A folder or URI as the cluster's nodes see it.
        name: Of the run folder in it; None: the spec's. With the name of an earlier job its run is continued.
        fresh: As `run_spec`.
        trust: As `run_spec`.
        new_code: As `run_spec`.

    Returns:
        The job's id, <name>-<attempt>.

    Raises:
        UserError: Something cannot be used; nothing was sent. Or another job took the name just now.
        RunFailed: The head refused the job.
    """
    name = name or spec.name
    check_name(name)
    _check_storage(storage)
    codes = own_code.on_path()
    with tempfile.TemporaryDirectory(prefix="parsec-submit-") as folder:
        wheels = [packing.build_wheel(Path(folder), packing.package_files())]
        wheels += [code.wheel(Path(folder)) for code in codes]
        attempt = _next_attempt(client, name)
        _check_cluster(client, spec)
        job = f"{name}-{attempt}"
        working_dir = Path(folder) / "work"
        working_dir.mkdir()
        (working_dir / SPEC_FILE).write_text(dump(spec), encoding="utf-8")
        metadata = {"project": PROJECT, "name": name, "spec": spec.name}
        try:
            return client.submit_job(
                entrypoint=entrypoint(storage, name, fresh, trust, new_code),
                submission_id=job,
                runtime_env={
                    "working_dir": str(working_dir),
                    "py_modules": [str(wheel) for wheel in wheels],
                    "env_vars": {STOP_WAIT: str(stop_wait_s()), **spec.runtime.env_vars},
                },
                metadata={**metadata, **({"code": own_code.described(codes)} if codes else {})},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise UserError(f"the name {name!r} was taken by another job just now; give another --name") from None
            raise RunFailed(f"the Ray head at {client.get_address()} refused the job: {text_line(error)}") from None


def entrypoint(storage: str, name: str, fresh: bool = False, trust: bool = False, new_code: bool = False) -> str:
    """The command of a job. Ray gives it to a shell, so what a user chose is quoted, and the rest is fixed words.

    Args:
        storage: As `submit` takes it.
        name: Of the run folder.
        fresh: As `run_spec`.
        trust: As `run_spec`.
        new_code: As `run_spec`.

    Returns:
        A line of shell.
    """
    words = ["python", "-m", "parsecrl", "run", SPEC_FILE, "--address=auto"]
    words += [f"--storage={storage}", f"--name={name}"]
    words += [*["--fresh"] * fresh, *["--trust"] * trust, *["--new-code"] * new_code]
    return "exec " + shlex.join(words)  # exec: signals reach the run, not a shell before it


def stop_wait_s() -> int:
    """Seconds between the request to stop and SIGKILL: the environment's RAY_JOB_STOP_WAIT_TIME_S, or ten minutes."""
    given = os.environ.get(STOP_WAIT, str(DEFAULT_STOP_WAIT_S))
    if not given.isdigit():
        raise UserError(f"{STOP_WAIT} must be a whole number of seconds, got {given!r}; set another")
    return int(given)


def _check_storage(storage: str) -> None:
    parts = urlsplit(storage)
    if not parts.scheme and not storage.startswith(("/", "~")):
        raise UserError(
            f"--storage must be absolute or a URI, as the cluster's nodes see it, got {storage!r}; "
            f"give a folder that they share, such as /mnt/runs"
        )
    if "@" in parts.netloc or parts.query:
        raise UserError(
            "--storage must hold no credentials, which the job's record would show; "
            "set them in the environment of the cluster's nodes"
        )
    well_formed(storage)  # whether the cluster can use it, its nodes know


def _next_attempt(client: Client, name: str) -> int:
    attempts = [0]
    for job in project_jobs(client):
        if job.metadata["name"] != name:
            continue
        if not job.status.is_terminal():
            raise UserError(
                f"the name {name!r} is in use by the job {job.submission_id}, which is {job.status}; give another "
                f"--name, or stop it with parsec stop {job.submission_id}"
            )
        number = str(job.submission_id).rpartition("-")[2]
        attempts.append(int(number) if number.isdigit() else 0)
    return max(attempts) + 1


def _check_cluster(client: Client, spec: Spec) -> None:
    """Raise UserError when the cluster will never have what a trial needs; one that grows by itself is not judged."""
    nodes = resources_of_nodes(client)
    if nodes is None:
        return
    from parsecrl.platform.running.preflight import check_trial_resources

    quiet_ray()  # RLlib sets its loggers up at its import
    check_trial_resources(spec, nodes)


def resources_of_nodes(client: Client) -> list[dict[str, float]] | None:
    """What each node of a cluster has.

    Args:
        client: Of the head.

    Returns:
        Amounts by the names of Ray's resources; None where the head does not say, or an autoscaler may add nodes.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        nodes = client.request("GET", "/api/v0/nodes?detail=1&limit=10000&timeout=10").json()["data"]["result"]
        alive = [node for node in nodes["result"] if node["state"] == "ALIVE"]
        young = time.time() - min(node["start_time_ms"] for node in alive) / 1000 < REPORTS_AFTER_S
        deadline = time.monotonic() + (REPORT_WAIT_S if young else 0.0)
        # A head by itself reports here and names each node's type after it; Kubernetes' autoscaler does neither.
        while (status := _autoscaler_status(client)) is None and time.monotonic() < deadline:
            time.sleep(0.5)
        kinds = (status or {})["autoscalerReport"].get("nodeTypeMapping") or {}  # KeyError: nobody reported
        if any(kind != f"node_{node}" for node, kind in kinds.items()):
            return None
        return [node["resources_total"] for node in alive]
    return None


def _autoscaler_status(client: Client) -> dict[str, Any] | None:
    return client.request("GET", "/api/cluster_status").json()["data"]["clusterStatus"]
