"""What is used of Ray without a public name, with the reason beside each; `tune_private` has Tune's. Nothing else here
uses such parts. Tune takes seconds to import, which commands on jobs need not wait for.

They may change with any version of Ray: after an update look here first. Import it after `quiet_ray`, as Ray itself.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import grpc
from ray._private import ray_constants, services
from ray._private.grpc_utils import init_grpc_channel
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc
from ray.exceptions import AuthenticationError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.util.client.common import GRPC_OPTIONS


def listen_on_loopback_alone() -> None:
    """Have a Ray that is started here serve this machine alone. Its switch is an environment variable, which Ray reads
    at its import: too early where something else imported Ray."""
    ray_constants.ENABLE_RAY_CLUSTER = False


def dashboard_url() -> str:
    """Of the cluster that this process is connected to, "" without one. Only `ray.init` tells it publicly, and a worker
    that drives a run has not called that."""
    url = services.get_webui_url_from_internal_kv()
    return f"http://{url}" if url else ""


def refusal_by(address: str) -> Exception | str | None:
    """Why Ray Client's server refuses this process.

    `ray.init` asks again for half a minute, and then says that nobody answered.

    Args:
        address: host:port.

    Returns:
        The reason; None where it does not refuse, or does not answer.
    """
    ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
    try:
        channel = init_grpc_channel(address, options=GRPC_OPTIONS, asynchronous=False)
        with contextlib.closing(channel):
            ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(ping, timeout=10)
    except AuthenticationError as error:  # this process has no token to show
        return error
    except grpc.RpcError as error:  # any other reason is ray.init's to find
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return error.details()
    return None


def may_grow() -> bool:
    """Whether an autoscaler may add nodes to the cluster that this process has joined. Ray publishes no answer."""
    if is_autoscaler_v2():
        return True
    status = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in kinds.items())  # a plain head names each node's kind after it


def publish_progress(job: str, phase: str, progress: str) -> None:
    """Write how far a running job is into its record: Ray has no call to change it after the submission.

    Args:
        job: Its id.
        phase: What it works at.
        progress: How far that is; may be empty.
    """
    from ray.dashboard.modules.job.common import JobInfoStorageClient  # slow, and no trial needs it

    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=job)
    stored = _internal_kv_get(key, namespace=ray_constants.KV_NAMESPACE_JOB)
    info = json.loads(stored) if stored else {}
    if info.get("status") != "RUNNING":
        return
    info["metadata"] = {**(info.get("metadata") or {}), "phase": phase, "progress": progress}
    info["message"] = f"{phase}: {progress}" if progress else phase
    _internal_kv_put(key, json.dumps(info), namespace=ray_constants.KV_NAMESPACE_JOB)


def write_job(job: str, status: str, **fields: Any) -> None:
    """Make or change the record of a driver that no supervisor watches; its own job config names it.

    Args:
        job: Its id.
        status: RUNNING, SUCCEEDED or FAILED.
        fields: Others of Ray's JobInfo: `entrypoint` and `metadata` of a new record, `message`.
    """
    from ray.dashboard.modules.job.common import JobInfoStorageClient  # slow, and no trial needs it

    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=job)
    stored = _internal_kv_get(key, namespace=ray_constants.KV_NAMESPACE_JOB)
    now = int(1000 * time.time())
    info = json.loads(stored) if stored else {"start_time": now, "runtime_env": {}, "message": status.lower()}
    info |= {**fields, "status": status, **({} if status == "RUNNING" else {"end_time": now})}
    _internal_kv_put(key, json.dumps(info), namespace=ray_constants.KV_NAMESPACE_JOB)


class JobRequests:
    """Put before `JobSubmissionClient`: a public `request`, through which all of its requests go. Ray sets no time
    limits, and has no call for the resources of a cluster's nodes."""

    def request(self, method: str, endpoint: str, **options: Any) -> Any:
        """The head's response to a request at a path of its dashboard. options: those of `requests.request`."""
        return super()._do_request(method, endpoint, **options)  # type: ignore[misc]

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return self.request(method, endpoint, **options)

    @property
    def ray_version(self) -> str:
        """Of the head, from the client's first request."""
        return str(self._server_ray_version)  # type: ignore[attr-defined]
