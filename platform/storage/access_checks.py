"""Whether an object store can be used, in one sentence: credentials, bucket, network, rights."""

from __future__ import annotations

import http.client
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.storage.object_store import (
    AWS_VARIABLES,
    GCS_EMULATOR,
    ObjectStore,
    aws_files,
    google_file,
    retry_seconds,
    store_of,
)
from parsecrl.platform.storage.remote_path import RemotePath

PATIENCE = 5.0  # seconds that a first look at a store is tried again for
NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}


def _impatient(location: RemotePath) -> ObjectStore:
    return store_of(location.scheme, location.bucket, PATIENCE)


def check_writable(location: RemotePath) -> None:
    """See that a store can be written. Makes nothing that stays.

    Args:
        location: A prefix; an object beside what is there is written and deleted.

    Raises:
        UserError: Nothing can be written.
    """
    probe = location / f".parsec-{uuid.uuid4().hex}"
    with _explained(location):
        store = _impatient(location)
        store.write(probe.key, b"")
        store.delete([probe.key])


def check_reachable(location: RemotePath) -> None:
    """See that a store answers this process.

    Args:
        location: A prefix; it is listed.

    Raises:
        UserError: This process has no credentials for the store, there is no such bucket, or the store does not answer.
    """
    with _explained(location):
        retry_seconds()  # a value that is none shall not be found in the first outage
        if not _has_credentials(location.scheme):
            wanted = (
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
                if location.scheme == "s3"
                else "GOOGLE_APPLICATION_CREDENTIALS"
            )
            raise UserError(f"there are no credentials for {location}; set {wanted} in the environment")
        _impatient(location).list(location.key, recursive=False)  # which says that there is no bucket, as `head` cannot


@contextmanager
def _explained(location: RemotePath) -> Iterator[None]:
    """Turn what a store says into one sentence for the user."""
    try:
        yield
    except ValueError as error:
        remedy = str(error)
    except StorageUnreachable as error:
        if error.code in NO_BUCKET:
            remedy = f"there is no bucket {location.bucket!r}; make it first, or name another one"
        elif error.code:
            remedy = f"the store refuses ({error.code}); see the credentials in the environment and their rights"
        else:
            setting = "AWS_ENDPOINT_URL and " if location.scheme == "s3" else ""
            remedy = f"the store does not answer; see {setting}the network"
    else:
        return
    raise UserError(f"{location} cannot be used: {remedy}") from None


def _has_credentials(scheme: str) -> bool:
    """Whether there is anything that the store's client looks for; without, it would wait for a cloud's machine."""
    if scheme == "gs":
        if os.environ.get(GCS_EMULATOR) or google_file():
            return True
        return _metadata_server_says("GET", "/", {"Metadata-Flavor": "Google"})
    if any(os.environ.get(name) for name in AWS_VARIABLES) or aws_files():
        return True
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
