"""Whether an object store can be used, in one sentence: credentials, bucket, network, rights."""

from __future__ import annotations

import http.client
import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from parsecrl.platform.errors import UserError, one_line
from parsecrl.platform.remote_path import RemotePath

if TYPE_CHECKING:
    from parsecrl.algorithms.object_store import RetryingHandler

PATIENCE = 5.0  # seconds that a first look at a store is tried again for


def _impatient(location: RemotePath) -> RetryingHandler:
    from parsecrl.algorithms.object_store import handler_of

    return handler_of(location.scheme, location.bucket, PATIENCE)


def check_writable(location: RemotePath) -> None:
    """Raise UserError where nothing can be written. Makes nothing that stays."""
    probe = location / f".parsec-{uuid.uuid4().hex}"
    with _explained(location):
        handler = _impatient(location)
        handler.upload(io.BytesIO(), probe.key)
        handler.delete_file(probe.key)


def check_reachable(location: RemotePath) -> None:
    """Raise UserError where this process has no credentials for the store, or it does not answer."""
    from pyarrow import fs

    from parsecrl.algorithms.object_store import retry_seconds

    with _explained(location):
        retry_seconds()  # a value that is none shall not be found in the first outage
        if not _has_credentials(location.scheme):
            wanted = (
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
                if location.scheme == "s3"
                else "GOOGLE_APPLICATION_CREDENTIALS"
            )
            raise UserError(f"there are no credentials for {location}; set {wanted} in the environment")
        handler = _impatient(location)
        if location.scheme == "gs":  # which lists all that lies below, see `_with_folders`
            handler.get_file_info([location.key])
        else:  # a store of S3's kind says here that there is no bucket
            handler.get_file_info_selector(fs.FileSelector(location.key, allow_not_found=True))


@contextmanager
def _explained(location: RemotePath) -> Iterator[None]:
    """Turn what a store says into one sentence for the user."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = one_line(error, None)
        absent = any(word in text for word in ("NO_SUCH_BUCKET", "bucket does not exist", "InvalidBucketName"))
        if absent or isinstance(error, FileNotFoundError):  # Google's, of a bucket that is none
            remedy = f"there is no bucket {location.bucket!r}; make it first, or name another one"
        elif any(word in text for word in ("could not be reached", "NETWORK_CONNECTION")):
            setting = "AWS_ENDPOINT_URL and " if location.scheme == "s3" else ""
            remedy = f"the store does not answer; see {setting}the network"
        elif isinstance(error, ValueError):
            remedy = text
        else:
            code = re.search(r"AWS Error ([A-Z_]+)", text)
            reason = code[1] if code and code[1] != "UNKNOWN" else text[:160]
            remedy = f"the store refuses ({reason}); see the credentials in the environment and their rights"
        raise UserError(f"{location} cannot be used: {remedy}") from None


def _has_credentials(scheme: str) -> bool:
    """Whether there is anything that the store's client looks for; without, it would ask as nobody."""
    from parsecrl.algorithms.object_store import GCS_EMULATOR

    names = {
        "s3": (
            *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ),
        "gs": ("GOOGLE_APPLICATION_CREDENTIALS", GCS_EMULATOR),
    }[scheme]
    if any(os.environ.get(name) for name in names):
        return True
    config = os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud")
    files = {
        "s3": (
            os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
        ),
        "gs": (f"{config}/application_default_credentials.json",),
    }[scheme]
    if any(Path(file).expanduser().is_file() for file in files):
        return True
    if scheme == "gs":
        return _metadata_server_says("GET", "/", {"Metadata-Flavor": "Google"})
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    return _metadata_server_says("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})


def _metadata_server_says(method: str, path: str, headers: dict[str, str]) -> bool:
    """Whether this is a machine of a cloud that hands out credentials."""
    connection = http.client.HTTPConnection("169.254.169.254", timeout=2)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
