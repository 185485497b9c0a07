"""One bucket of an object store (S3 or Google's), through obstore.

Every operation that fails for a passing reason is tried again for PARSEC_STORAGE_RETRY_S seconds (default 300). A file
is written whole or not at all. Credentials and endpoint come from the environment of the process that asks.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import GCSStore, S3Store

from parsecrl.platform.errors import StorageUnreachable

RETRY_VARIABLE = "PARSEC_STORAGE_RETRY_S"
DEFAULT_RETRY_SECONDS = 300.0
AWS_VARIABLES = (  # each of them a source of credentials
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
GCS_EMULATOR = "CLOUD_STORAGE_EMULATOR_ENDPOINT"
CHUNK = 8 * 1024**2  # bytes; a file up to this size is one request
ANSWER_SECONDS = 30.0  # that a part of CHUNK bytes may take
# Signatures age while obstore tries again by itself, and Ctrl-C waits. Every so often a request is made anew.
OWN_RETRY_SECONDS = 10.0
PASSING_STATUS = {"408", "409", "425", "429"}  # too slow, changed in this moment, too early, too many
PASSING_CODES = {"RequestTimeout", "SlowDown"}
Conflict = (exceptions.AlreadyExistsError, exceptions.PreconditionError)  # a conditional write came too late
_sent: dict[tuple[str, str, str], bytes] = {}  # digest of what this process sent last to a place, of small files
Result = TypeVar("Result")


def retry_seconds() -> float:
    """For how long an operation is tried again; ValueError unless the variable holds a number that is not negative."""
    text = os.environ.get(RETRY_VARIABLE, str(DEFAULT_RETRY_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < 1e9:
        raise ValueError(f"{RETRY_VARIABLE} must be a number of seconds, 0 or more, got {text!r}")
    return seconds


class ObjectStore:
    """One bucket. Keys are paths in it, without a slash at either end.

    The store is asked for nothing before a method is called. Every method raises StorageUnreachable for a store that
    kept failing for as long as was allowed, or that refuses this process, and FileNotFoundError for an object that is
    none.

    Args:
        scheme: s3 or gs.
        bucket: Its name.
        patience: Seconds that an operation is tried again for; None: the environment's.
    """

    def __init__(self, scheme: str, bucket: str, patience: float | None = None):
        self.scheme, self.bucket, self.patience = scheme, bucket, patience

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    def head(self, key: str) -> Any:
        """path, size, last_modified, e_tag and version of an object; None where there is none."""
        try:
            return self._try(lambda client: obstore.head(client, key))
        except FileNotFoundError:
            return None

    def exists_below(self, key: str) -> bool:
        """Whether there is any object below, so that the key is a folder."""
        return self._try(lambda client: any(next(iter(obstore.list(client, key or None, chunk_size=1)), ())))

    def list(self, key: str, recursive: bool) -> tuple[list[Any], list[str]]:
        """The objects below, as `head` has them, and the folders; of all depths, or of the first one."""
        if recursive:
            objects: Any = self._try(lambda client: obstore.list(client, key or None, chunk_size=1000).collect())
            depth = key.count("/") + 1 if key else 0
            parts = [found["path"].split("/") for found in objects]
            folders = {"/".join(names[:end]) for names in parts for end in range(depth + 1, len(names))}
        else:
            listing = self._try(lambda client: obstore.list_with_delimiter(client, key or None))
            objects, folders = listing["objects"], set(listing["common_prefixes"])
        return [found for found in objects if found["path"] != key], sorted(folders)  # some tools mark a folder so

    def read(self, key: str) -> tuple[bytes, dict[str, str]]:
        """An object, and its version as `write` returns it."""

        def get(client: Any) -> tuple[bytes, dict[str, str]]:
            found = obstore.get(client, key)
            return found.bytes().to_bytes(), _version(found.meta)

        return self._try(get)

    def download(self, key: str, target: BinaryIO) -> None:
        """Write an object into a local stream, from its beginning; a chunk at a time."""

        def get(client: Any) -> None:
            chunks = obstore.get(client, key).stream(min_chunk_size=CHUNK)
            target.seek(0)
            target.truncate()
            for chunk in chunks:
                target.write(chunk)

        self._try(get)

    def write(self, key: str, data: bytes | Path | BinaryIO, mode: Any = "overwrite") -> dict[str, str]:
        """Put an object in its place, whole or not at all.

        Args:
            key: Where.
            data: What; a stream is sent from its beginning.
            mode: "overwrite"; "create", where there must be none; or a version, which the object must have now.

        Returns:
            The version that was written, as a later `mode`.

        Raises:
            Conflict: (one of these) The object is not as `mode` says.
        """

        def put(client: Any) -> dict[str, str]:
            content: Any = data
            if not isinstance(data, bytes | Path):
                data.seek(0)
                content = iter(lambda: data.read(CHUNK), b"")
            return _version(obstore.put(client, key, content, mode=mode, chunk_size=CHUNK, max_concurrency=4))

        _sent.pop((self.scheme, self.bucket, key), None)
        return self._try(put)

    def write_if_new(self, key: str, data: bytes) -> None:
        """`write`, unless this process sent the same there last."""
        place, digest = (self.scheme, self.bucket, key), hashlib.blake2b(data, digest_size=16).digest()
        if _sent.get(place) != digest:
            self.write(key, data)
            _sent[place] = digest

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are none are left out."""
        keys = list(keys)
        for key in keys:
            _sent.pop((self.scheme, self.bucket, key), None)
        try:
            self._try(lambda client: obstore.delete(client, keys))
        except FileNotFoundError:  # Google's store says so, and has perhaps not come to the others
            if len(keys) > 1:
                for key in keys:
                    self.delete([key])

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the bucket."""
        _sent.pop((self.scheme, self.bucket, target), None)
        self._try(lambda client: obstore.copy(client, source, target))

    def _try(self, operation: Callable[[Any], Result]) -> Result:
        begin, pause = time.monotonic(), 0.5
        patience = retry_seconds() if self.patience is None else self.patience
        client = _client(self.scheme, self.bucket, patience)
        while True:
            try:
                return operation(client)
            except Conflict:
                raise
            except (exceptions.BaseError, FileNotFoundError) as error:
                text = " ".join(str(error).partition("Debug source:")[0].split())
                code = _refusal(error, text)
                if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                    raise FileNotFoundError(text[:300]) from None
                if code:
                    refused = StorageUnreachable(
                        f"{self} refuses this process ({text[:300]}); the same command continues once its credentials "
                        f"and their rights are put right"
                    )
                    refused.code = code
                    raise refused from None
                waited = time.monotonic() - begin
                if waited >= patience:
                    raise StorageUnreachable(
                        f"{self} could not be reached for {waited:.0f} s ({text[:300]}); the same command continues "
                        f"once it can, and {RETRY_VARIABLE} sets how long to wait for it"
                    ) from None
            time.sleep(min(pause, patience - waited))
            pause = min(2 * pause, 5.0)


def _version(found: Any) -> dict[str, str]:
    """What a conditional write takes; obstore refuses a None in it."""
    return {name: found[name] for name in ("e_tag", "version") if found.get(name)}


def _refusal(error: Exception, text: str) -> str:
    """Why the store refuses, in its own word; empty where the reason may pass."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+) ([A-Za-z]*(?: [A-Za-z]+)*)", text)
    word = code[1] if code else status[2].strip() if status else type(error).__name__
    lasting = status is not None and (status[1][0] == "4" or status[1] == "501") and status[1] not in PASSING_STATUS
    refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
    return word if (lasting or refused) and word not in PASSING_CODES else ""


def endpoint_of_environment() -> str | None:
    """AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.

    Raises ValueError, without repeating it, unless it is http(s)://host[:port].
    """
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if text := os.environ.get(name):
            parts = urlsplit(text)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
                raise ValueError(f"{name} must be http(s)://host:port and no more, without a user or a key in it")
            return f"{parts.scheme}://{parts.netloc}"
    return None


@cache
def _client(scheme: str, bucket: str, patience: float) -> Any:
    answer = min(ANSWER_SECONDS, max(patience, 1.0))
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=answer),
            "timeout": timedelta(days=1),  # of a large file, as long as it moves
        },
        "retry_config": {
            "backoff": {"max_backoff": timedelta(seconds=5)},
            "retry_timeout": timedelta(seconds=min(patience, OWN_RETRY_SECONDS)),
            "max_retries": 100,
        },
    }
    if scheme == "gs":
        return GCSStore(bucket, **options, **_google_settings())
    return S3Store(bucket, **options, **_aws_settings(bucket))


def _aws_settings(bucket: str) -> dict[str, Any]:
    endpoint = endpoint_of_environment()
    settings: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not any(os.environ.get(name) for name in AWS_VARIABLES):
        profile = _aws_profile()
        own_region = profile.pop("region", None)
        region = region or own_region
        settings |= profile
    if not region and not endpoint:
        from pyarrow import fs

        try:
            region = fs.resolve_s3_region(bucket)
        except OSError:
            region = None
    return settings | ({"region": region} if region else {})


def aws_files() -> list[Path]:
    """The files of AWS's tools that exist: keys, and settings."""
    names = (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))
    files = [Path(os.environ.get(variable, f"~/.aws/{name}")).expanduser() for variable, name in names]
    return [file for file in files if file.is_file()]


def _aws_profile() -> dict[str, Any]:
    """Keys and region of the profile AWS_PROFILE, which obstore does not read.

    A profile that has no keys of its own (single sign-on, a role to take, a program to ask) is boto3's to read.
    """
    name, found = os.environ.get("AWS_PROFILE", "default"), configparser.ConfigParser(interpolation=None)
    found.read(aws_files())
    profile: dict[str, str] = {}
    for section in (f"profile {name}", name):
        if section in found:
            profile |= dict(found[section])
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token", "region": "region"}
    if "aws_access_key_id" in profile:
        return {ours: profile[theirs] for theirs, ours in names.items() if theirs in profile}
    region = {"region": profile["region"]} if "region" in profile else {}
    if not any(key.startswith(("sso_", "role_", "credential_process")) for key in profile):
        return region  # the machine's own role
    try:
        import boto3
    except ImportError:
        raise ValueError(
            f"the AWS profile {name!r} holds no keys of its own, and boto3 reads the others; pip install boto3"
        ) from None
    known = boto3.Session().get_credentials()
    if known is None:
        raise ValueError(f"the AWS profile {name!r} gives no credentials; log in with AWS's own tool")

    def credentials() -> dict[str, Any]:
        frozen = known.get_frozen_credentials()  # renewed where they would expire
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + timedelta(minutes=10),
        }

    return region | {"credential_provider": credentials}


def google_file() -> Path | None:
    """The file of application default credentials, if there is one."""
    config = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    file = Path(named or f"{config}/application_default_credentials.json").expanduser()
    return file if named or file.is_file() else None


def _google_settings() -> dict[str, Any]:
    if emulator := os.environ.get(GCS_EMULATOR):
        url = emulator if "://" in emulator else f"http://{emulator}"
        key = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"service_account_key": json.dumps(key)}
    file = google_file()
    if file is None:
        return {}
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("type")
    except (OSError, ValueError, AttributeError):
        raise ValueError(f"{file} holds no credentials; see GOOGLE_APPLICATION_CREDENTIALS") from None
    if kind in {"service_account", "authorized_user"}:
        return {"application_credentials": str(file)}
    return {"credential_provider": _google_token}  # workload identity federation and the like, unknown to obstore


def _google_token() -> dict[str, Any]:
    import google.auth  # comes with Ray
    from google.auth.transport.requests import Request

    known, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
    known.refresh(Request())
    expiry = known.expiry  # in UTC, without saying so
    return {"token": known.token, "expires_at": expiry and expiry.replace(tzinfo=timezone.utc)}


@cache
def store_of(scheme: str, bucket: str, patience: float | None = None) -> ObjectStore:
    """A bucket, the same object for the same arguments.

    Args:
        scheme: s3 or gs.
        bucket: Its name.
        patience: Seconds that an operation is tried again for; None: the environment's.

    Returns:
        The bucket; nothing is asked of the store yet.
    """
    return ObjectStore(scheme, bucket, patience)
