"""The connection to Ray: start or join a cluster quietly, and see that it has what a spec asks for."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parsecrl.platform.cluster import job_record
from parsecrl.platform.cluster.job_record import JOB_CONFIG
from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError, last_line, text_line
from parsecrl.platform.shipping import own_code

logger = logging.getLogger(__name__)
LOCAL = "local"
CLIENT_ATTEMPTS = 3  # of Ray Client to be served
# From this process's environment to the workers'. Never credentials: Ray shows a job's environment to all who can look.
PASSED_ON = (
    *("MUJOCO_GL", "OMP_NUM_THREADS", "PARSEC_STORAGE_RETRY_S", "PARSEC_PRODUCTS"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "CLOUD_STORAGE_EMULATOR_ENDPOINT",
)


def quiet_ray() -> None:
    """Before Ray is imported: keep its hints and its tables to itself."""
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    os.environ.setdefault("RAY_AUTH_MODE", "token" if has_token else "disabled")  # Ray wants to be told
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # no return before the first episode ends
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with verbose=0 the old output is silent, the new one is not
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a spec names its loggers
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # interruption.py has its own
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")  # what a kill can cost, beyond the time since a checkpoint
    # Tune would otherwise keep every checkpoint's whole result in the state that it writes every few seconds.
    os.environ.setdefault("TUNE_ONLY_STORE_CHECKPOINT_SCORE_ATTRIBUTE", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")
    for name in ("ray._common.deprecation", "ray.rllib", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors come back as results


def run_on_head_node(
    address: str, function: Callable[..., Any], *arguments: Any, env_vars: Mapping[str, str] | None = None
) -> Any:
    """Call a function on the head node of a cluster; what it prints comes through.

    Args:
        address: ray://host:port.
        function: That is called there.
        arguments: By position.
        env_vars: As in `connect`; the head's process is connected already and can give none to the workers.

    Returns:
        What the function returns.

    Raises:
        UserError: No cluster answers at the address, or the function raised it, as it may RunFailed and
            StorageUnreachable.
    """
    connect(address, log_to_driver=True, env_vars=env_vars)
    import ray

    head = {"node:__internal_head__": 0.001}
    task = ray.remote(function).options(num_cpus=0, resources=head, max_retries=0)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        own = isinstance(error.cause, UserError | RunFailed | StorageUnreachable)
        raise error.cause if own else error from None


def connect(
    address: str | None = LOCAL,
    *,
    dashboard: bool = True,
    log_to_driver: bool = False,
    env_vars: Mapping[str, str] | None = None,
    job: Mapping[str, str] | None = None,
) -> str:
    """Start Ray here, or join a cluster. Code that this process was given by --code goes to a cluster's nodes.

    Args:
        address: "local" or None starts Ray here.
        dashboard: Whether a Ray that starts here serves its dashboard.
        log_to_driver: Whether what workers print comes through.
        env_vars: For this process and all workers.
        job: Name, spec and project of the run, which the dashboard of a Ray that starts here shows as a job.

    Returns:
        The dashboard's URL, or "" without one.

    Raises:
        UserError: No cluster answers at the address.
    """
    quiet_ray()
    if address in {None, LOCAL}:
        _stay_on_loopback()
    import ray

    from parsecrl.envs import choose_rendering_backend

    choose_rendering_backend()
    if ray.is_initialized():
        _check_connected_to(address)
    else:
        os.environ.update(env_vars or {})
        names = {name for name in PASSED_ON if "@" not in os.environ.get(name, "")}  # an endpoint with a key in it
        names = {*names, *(env_vars or {})} - _given_to_the_job()
        passed_on = {key: os.environ[key] for key in sorted(names) if key in os.environ}
        _check_reachable(address)
        options: dict[str, Any] = {"include_dashboard": dashboard} if address in {None, LOCAL} else {}
        is_shown = dashboard and address in {None, LOCAL} and job is not None and JOB_CONFIG not in os.environ
        if is_shown and job is not None:
            options["job_config"] = ray.job_config.JobConfig(metadata={**job, "job_submission_id": job["name"]})
        try:
            with _wheels(address) as wheels:
                _init(
                    address=address or LOCAL,
                    log_to_driver=log_to_driver,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": passed_on, **wheels},
                    **options,
                )
        except UserError:
            raise
        except Exception as error:  # Ray raises bare ones too, as where a machine is so busy that its start times out
            reason = _reason(error)
            if "AF_UNIX" in reason:  # the longest path that a socket can have
                raise UserError(f"Ray's temporary folder has too long a path ({reason}); set RAY_TMPDIR=/tmp") from None
            if address in {None, LOCAL}:
                raise UserError(
                    f"Ray did not start on this machine ({reason}); give the same command again when it is less busy"
                ) from None
            if isinstance(error, ray.exceptions.AuthenticationError):
                raise _refused(address, reason) from None
            raise UserError(
                f"no Ray cluster answers at {address!r} ({reason}); start one, or use --address local"
            ) from None
        if is_shown and job is not None:
            job_record.begin(job["name"], f"parsec run {job['spec']} --name {job['name']}", job)
    quiet_ray()
    from parsecrl.platform.cluster import ray_private

    return ray_private.dashboard_url()


def _check_connected_to(address: str | None) -> None:
    """A process has one Ray: the address of another is not passed over in silence."""
    if address in {None, LOCAL, "auto"}:
        return
    import ray

    _check_reachable(address)
    if str(address).startswith("ray://"):
        is_this = ray.util.client.ray.is_connected()
        connected = "another address"
    else:
        connected = ray.get_runtime_context().gcs_address
        is_this = (
            str(address).rpartition(":")[2] == connected.rpartition(":")[2]
        )  # a host has many names, a Ray one port
    if not is_this:
        raise UserError(
            f"this process is connected to a Ray at {connected}, not to the one at {address!r}; "
            f"call ray.shutdown() first"
        )


@contextlib.contextmanager
def _wheels(address: str | None) -> Iterator[dict[str, list[str]]]:
    """What Ray is to install on the nodes: a Ray that is started here inherits the path, and a job has them already."""
    codes = own_code.on_path() if address not in {None, LOCAL} and JOB_CONFIG not in os.environ else []
    with tempfile.TemporaryDirectory(prefix="parsec-code-") as folder:
        yield {"py_modules": [str(code.wheel(Path(folder))) for code in codes]} if codes else {}


def _init(**options: Any) -> None:
    """ray.init, again where Ray Client's server fails to start for this client.

    It takes a port that was free a moment before, and a head answers before its node has registered.
    """
    import ray

    for attempt in range(1, CLIENT_ATTEMPTS + 1):
        try:
            ray.init(**options)
        except ConnectionAbortedError as error:
            if attempt == CLIENT_ATTEMPTS:
                raise
            logger.warning("the head could not serve this client (%s); trying again", _reason(error))
            time.sleep(2)
        else:
            return


def _reason(error: object) -> str:
    """A sentence of Ray's; of a head's traceback the last line, which says what was wrong."""
    return last_line(error) if "Traceback" in str(error) else text_line(error)


def _stay_on_loopback() -> None:
    """A Ray that is started here is for this machine alone; by itself it listens on every interface.

    Ray has this for macOS and Windows, where it spares the firewall's questions, and takes the same switch elsewhere.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if "ray" in sys.modules:  # read at its import
        from parsecrl.platform.cluster import ray_private

        ray_private.listen_on_loopback_alone()


def _given_to_the_job() -> set[str]:
    """Names of the variables that a Ray job was submitted with; Ray refuses to be given them again."""
    return set(json.loads(os.environ.get(JOB_CONFIG, "{}")).get("runtime_env", {}).get("env_vars", {}))


def _check_reachable(address: str | None) -> None:
    """Ray itself would try for minutes."""
    host, separator, port = (address or LOCAL).removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({error.strerror or error}); start one, or use --address local"
        ) from None
    if (address or LOCAL).startswith("ray://"):
        from parsecrl.platform.cluster import ray_private

        refusal = ray_private.refusal_by(f"{host}:{port}")
        if refusal is not None:
            raise _refused(address, _reason(refusal))


def _refused(address: Any, reason: str) -> UserError:
    return UserError(
        f"the Ray cluster at {address!r} refuses this process ({reason.rstrip('.')}); set RAY_AUTH_TOKEN_PATH to a "
        f"file with its token"
    )
