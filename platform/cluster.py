"""The connection to Ray: start or join a cluster quietly, and see that it has what a spec asks for."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from parsecrl.platform.errors import RunFailed, UserError

LOCAL = "local"


def quiet_ray() -> None:
    """Before Ray is imported: keep its hints and its tables to itself."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # no return before the first episode ends
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with verbose=0 the old output is silent, the new one is not
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a spec names its loggers
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the command at once; it can be continued
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")  # what a kill can cost, beyond the time since a checkpoint
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")
    for name in ("ray._common.deprecation", "ray.rllib", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors come back as results


def run_on_head_node(address: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function on the head node of the cluster at a ray:// address; what it prints comes through."""
    connect(address, log_to_driver=True)
    import ray

    head = {"node:__internal_head__": 0.001}
    task = ray.remote(function).options(num_cpus=0, resources=head, max_retries=0)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError | RunFailed) else error from None


def connect(address: str | None = LOCAL, *, dashboard: bool = True, log_to_driver: bool = False) -> str:
    """Start Ray here (`local`), or join the cluster at `address`. Returns the dashboard's URL, or "" without one.

    Raises UserError when no cluster answers there.
    """
    quiet_ray()
    import ray

    from parsecrl.envs import choose_rendering_backend

    choose_rendering_backend()
    if not ray.is_initialized():
        passed_on = {key: os.environ[key] for key in ("MUJOCO_GL", "OMP_NUM_THREADS") if key in os.environ}
        _check_reachable(address)
        options: dict[str, Any] = {"include_dashboard": dashboard} if address in {None, LOCAL} else {}
        try:
            ray.init(
                address=address or LOCAL,
                log_to_driver=log_to_driver,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": passed_on},
                **options,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"no Ray cluster answers at {address!r} ({reason}); start one, or use --address local"
            ) from None
    quiet_ray()
    url = getattr(ray._private.worker._global_node, "webui_url", None) if _is_driver_node() else None
    return f"http://{url}" if url else ""


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


def _is_driver_node() -> bool:
    import ray

    return getattr(ray._private.worker, "_global_node", None) is not None


def check_resources(needed: Mapping[str, float], what: str) -> None:
    """Raise UserError when the cluster will never have `needed`, for which Tune would wait without end."""
    import ray

    available = ray.cluster_resources()
    for kind, amount in needed.items():
        if amount > available.get(kind, 0.0) + 1e-6:
            have = f"{available.get(kind, 0.0):g}"
            remedy = "resources.num_env_runners, num_learners" if kind == "CPU" else "resources.num_gpus_per_*"
            raise UserError(
                f"{what} needs {amount:g} {kind} and the Ray cluster has {have}; "
                f"lower {remedy} in the spec (or with --set), or use a larger --address"
            )
