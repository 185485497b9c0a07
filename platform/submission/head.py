"""The connection to a cluster's head, over HTTP to its dashboard; nothing of Ray runs here."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import UserError, text_line
from parsecrl.platform.submission.tokens import read_token

quiet_ray()  # before Ray is imported, which sets loggers up; the modules beside this one take Ray's names from here

import requests  # noqa: E402
from ray.exceptions import AuthenticationError  # noqa: E402
from ray.job_submission import JobDetails as JobDetails  # noqa: E402
from ray.job_submission import JobStatus as JobStatus  # noqa: E402
from ray.job_submission import JobSubmissionClient  # noqa: E402

from parsecrl.platform.cluster.ray_private import JobRequests  # noqa: E402

TIMEOUT_S = (8, 12)  # to connect, and between two bytes of the answer
UPLOAD_TIMEOUT_S = (8, 300)


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
