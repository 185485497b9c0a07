"""Runs as Ray jobs on a cluster: submit, list, follow, stop.

    client = connect("http://head:8265", token_file="token")
    follow(client, submit(client, load_spec("cheetah_run_quick"), "/mnt/runs"))

Everything goes over HTTP to the head's dashboard; nothing of Ray runs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.cluster.job_record import RUN_BEGINS
from parsecrl.platform.errors import RunFailed, UserError, text_line
from parsecrl.platform.runs.run_folder import check_name
from parsecrl.platform.shipping import own_code
from parsecrl.platform.specs import Spec, dump
from parsecrl.platform.storage import well_formed
from parsecrl.platform.submission import packing
from parsecrl.platform.terminal import text_table

quiet_ray()

import requests  # noqa: E402
from ray.exceptions import AuthenticationError  # noqa: E402
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # noqa: E402

from parsecrl.platform.cluster.ray_private import JobRequests  # noqa: E402

PROJECT = "parsecrl"
DEFAULT_STORAGE = "~/parsec_runs"  # on the head
SPEC_FILE = "spec.yaml"
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"  # read by the job's supervisor, in the job's own environment
DEFAULT_STOP_WAIT_S = 600
STOPPED_EXIT_CODE = 130
TIMEOUT_S = (8, 12)  # to connect, and between two bytes of the answer
UPLOAD_TIMEOUT_S = (8, 300)
REPORTS_AFTER_S = 120.0  # a head younger than this may not have reported its nodes yet
REPORT_WAIT_S = 12.0
BEGIN_WAIT_S = 20.0  # for the driver to take the job up or to refuse it; a cluster may have it wait for longer
LOST_S = 60.0  # a head that is silent for so long while its log is followed is taken for lost


# --- the connection ------------------------------------------------------------------------------------------------


class Client(JobRequests, JobSubmissionClient):
    """Ray's client, with time limits and with one sentence for what can be wrong."""

    def request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        """As Ray's, with a time limit; UserError says in one sentence what is wrong."""
        options.setdefault("timeout", UPLOAD_TIMEOUT_S if method == "PUT" else TIMEOUT_S)
        try:
            return super().request(method, endpoint, **options)
        except AuthenticationError as error:
            if "required" in str(error).partition(":")[0]:
                raise UserError(
                    f"the Ray head at {self.get_address()} asks for a token and got none; give --token-file, or set "
                    f"RAY_AUTH_TOKEN_PATH"
                ) from None
            raise UserError(
                f"the Ray head at {self.get_address()} refuses the token; give its own with --token-file"
            ) from None
        except requests.RequestException as error:
            raise UserError(
                f"no Ray head answers at {self.get_address()} ({_reason(error)}); give --address the URL of its "
                f"dashboard, such as http://head:8265"
            ) from None


def connect(address: str | None = None, token_file: str | Path | None = None) -> Client:
    """A client of a cluster's head.

    Args:
        address: URL of its dashboard; None: RAY_API_SERVER_ADDRESS.
        token_file: As `read_token` takes it.

    Returns:
        The client.

    Raises:
        UserError: No head answers there, it refuses the token, or it runs another Ray.
    """
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise UserError("no cluster was named; give --address the URL of its dashboard, such as http://head:8265")
    url = _checked_url(address)
    token = read_token(token_file)
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # with them Ray would ignore the address that is given
        try:
            client = Client(url, headers={"Authorization": f"Bearer {token}"} if token else None)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:  # an answer, but none of Ray's
            raise UserError(
                f"what answers at {url} is no Ray head ({text_line(error)}); give --address the URL of its dashboard"
            ) from None
    import ray

    theirs, ours = client.ray_version, ray.__version__
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise UserError(f"the cluster at {url} runs Ray {theirs} and this is for {ours}; use an image with Ray {ours}")
    return client


def read_token(token_file: str | Path | None = None) -> str | None:
    """The token to show to the head. It goes nowhere else.

    Args:
        token_file: That holds it; None: where Ray itself would look.

    Returns:
        The token; None where there is none to show.

    Raises:
        UserError: The file cannot be read, or holds no token.
    """
    if token_file is None:
        mode = os.environ.get("RAY_AUTH_MODE", "").lower()
        if mode == "disabled":
            return None
        if given := os.environ.get("RAY_AUTH_TOKEN"):
            return given.strip()
        default = Path.home() / ".ray" / "auth_token" if mode == "token" else None
        token_file = os.environ.get("RAY_AUTH_TOKEN_PATH") or default
        if token_file is None:
            return None
    try:
        token = Path(token_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"the token file {token_file} cannot be read ({reason}); give another --token-file") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"the token file {token_file} must hold one token in one line; give another --token-file")
    return token


def _checked_url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    try:
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:  # a port that is no number
        fine = False
    if not fine:
        shown = "one with a user or a password in it" if "@" in address else repr(address)
        raise UserError(f"--address must be the URL of the head's dashboard, such as http://head:8265, got {shown}")
    return url.rstrip("/")


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = str(error)
    known = ("Name or service not known", "name resolution", "Connection refused", "No route to host", "unreachable")
    return next((reason for reason in known if reason in text), "the connection failed")


# --- submitting ----------------------------------------------------------------------------------------------------


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
        kinds = status["autoscalerReport"].get("nodeTypeMapping") or {}  # type: ignore[index]
        if any(kind != f"node_{node}" for node, kind in kinds.items()):
            return None
        return [node["resources_total"] for node in alive]
    return None


def _autoscaler_status(client: Client) -> dict[str, Any] | None:
    return client.request("GET", "/api/cluster_status").json()["data"]["clusterStatus"]


# --- watching and stopping -----------------------------------------------------------------------------------------


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
        rows.append((str(job.submission_id), *map(_printable, told), str(job.status)))
    return text_table(("job", "name", "spec", "phase", "progress", "status"), rows)


def _printable(text: str) -> str:
    """Other people's jobs are listed too: no control characters into the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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
                raise (UserError if code == 2 else RunFailed)(_printable(told[-1]))
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
