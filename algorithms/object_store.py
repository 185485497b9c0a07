"""Object stores (s3://, gs://) as pyarrow file systems that outlast an outage and carry no credentials.

Every operation that fails for a passing reason is tried again for PARSEC_STORAGE_RETRY_S seconds (default 300). A file
is written whole or not at all: what is written gathers here and is sent when it is closed, in one request where it is
small. Credentials and endpoint come from the environment of the process that uses the file system: what is pickled,
into Tune's state too, is the name of the bucket.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow
from pyarrow import fs

from parsecrl.algorithms.checkpoints.files import StorageUnreachable

SCHEMES = ("s3", "gs")
RETRY_VARIABLE = "PARSEC_STORAGE_RETRY_S"
DEFAULT_RETRY_SECONDS = 300.0
GCS_EMULATOR = "CLOUD_STORAGE_EMULATOR_ENDPOINT"
CHUNK = 8 * 1024**2  # bytes, of a copy; files up to this size are sent in one request
# What will not be otherwise when tried again, as the AWS and Google clients word it: about us, and about a file.
REFUSED = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|InvalidBucketName|AuthorizationHeaderMalformed"
    r"|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|PERMISSION_DENIED|UNAUTHENTICATED"
)
LASTING = re.compile(r"NO_SUCH_KEY|HTTP status 40[0-79]|INVALID_ARGUMENT|NOT_FOUND|Not a directory|Is a directory")
ABSENT = re.compile(
    r"^No such directory|the object does not exist or does not represent a file"
)  # S3's client says neither
SMALL = 1024**2  # bytes
_sent: dict[tuple[str, str], bytes] = {}  # digest of what this process sent last to a path, of small files
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


def with_retries(operation: Callable[[], Result], where: str, patience: float | None = None) -> Result:
    """The operation's result; tried again, at growing intervals, while the store fails for a passing reason.

    patience: seconds, by default those of the environment. Raises StorageUnreachable after it, and at once where the
    store refuses this process.
    """
    begin, pause = time.monotonic(), 0.5
    while True:
        try:
            return operation()
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except OSError as error:
            if isinstance(error, StorageUnreachable):
                raise
            if ABSENT.search(str(error)):
                raise FileNotFoundError(str(error)) from error
            reason = " ".join(str(error).split())[:300]
            if REFUSED.search(str(error)):
                raise StorageUnreachable(
                    f"{where} refuses this process ({reason}); the same command continues once its credentials and "
                    f"their rights are put right"
                ) from error
            if LASTING.search(str(error)):
                raise
            left = (retry_seconds() if patience is None else patience) - (time.monotonic() - begin)
            if left <= 0.0:
                raise StorageUnreachable(
                    f"{where} could not be reached for {time.monotonic() - begin:.0f} s ({reason}); the same command "
                    f"continues once it can, and {RETRY_VARIABLE} sets how long to wait for it"
                ) from error
            time.sleep(min(pause, left))
            pause = min(2 * pause, 5.0)


def endpoint_of_environment() -> str | None:
    """AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, which pyarrow does not read by itself.

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
def _client(scheme: str, bucket: str, process: int) -> fs.FileSystem:
    """One a process: a forked one shall not share its parent's connections."""
    if scheme == "gs":
        anonymous = bool(os.environ.get(GCS_EMULATOR))  # which its client finds by itself, and asks for no token
        return fs.GcsFileSystem(anonymous=anonymous, retry_time_limit=timedelta(seconds=10))
    options: dict[str, Any] = {}
    if endpoint := endpoint_of_environment():
        options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError:
            region = None
    if region:
        options["region"] = region
    return fs.S3FileSystem(
        connect_timeout=5,
        request_timeout=20,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),  # with_retries does the rest
        # Written by pyarrow's own pool of threads, from which copies come here too: they would wait for each other.
        background_writes=False,
        allow_delayed_open=True,  # a small file is one request
        **options,
    )


class RetryingHandler(fs.FileSystemHandler):
    """The file system of one bucket. Paths start with its name, as pyarrow has them.

    Folders are prefixes: making one does nothing. patience: as in `with_retries`.
    """

    def __init__(self, scheme: str, bucket: str, patience: float | None = None):
        self.scheme, self.bucket, self.patience = scheme, bucket, patience

    @property
    def client(self) -> fs.FileSystem:
        return _client(self.scheme, self.bucket, os.getpid())

    def _try(self, operation: Callable[[fs.FileSystem], Result]) -> Result:
        return with_retries(lambda: operation(self.client), f"{self.scheme}://{self.bucket}", self.patience)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RetryingHandler) and (self.scheme, self.bucket) == (other.scheme, other.bucket)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.scheme, self.bucket))

    def get_type_name(self) -> str:
        return self.scheme

    def normalize_path(self, path: str) -> str:
        return path.rstrip("/")

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return self._try(lambda client: client.get_file_info(paths))

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        if self.scheme == "gs":
            return _with_folders(self._try(lambda client: client.get_file_info(_recursive(selector))), selector)
        return self._try(lambda client: client.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        pass

    def delete_dir(self, path: str) -> None:
        _sent.clear()
        self._try(lambda client: client.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        _sent.clear()
        self._try(lambda client: client.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    # pyarrow's interface has these two as well; nothing here may use them.
    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("a whole object store is never deleted")

    def delete_file(self, path: str) -> None:
        _sent.pop((self.scheme, path), None)
        self._try(lambda client: client.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        _sent.clear()
        self._try(lambda client: client.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        _sent.pop((self.scheme, dest), None)
        self._try(lambda client: client.copy_file(src, dest))

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        return pyarrow.PythonFile(_Reader(self, path), mode="r")

    open_input_file = open_input_stream

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        return pyarrow.PythonFile(_Writer(self, path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        raise NotImplementedError("object stores cannot append to a file")

    def read(self, path: str) -> bytes:
        """A whole small file. Its length and its content are two requests, and where another process replaces it
        between them pyarrow returns what never was a file: so it is compared with the store's digest, or, where that is
        no MD5, read until it was the same three times."""

        def look(client: fs.FileSystem) -> tuple[str, bytes]:
            with client.open_input_file(path) as file:
                size = file.size()
                return _md5(dict(file.metadata() or {})), file.read_at(size, 0) if size else b""

        before, times = None, 0
        while True:
            found = self._try(look)
            times = times + 1 if found == before else 1
            if times == 3 or hashlib.md5(found[1], usedforsecurity=False).hexdigest() == found[0]:
                return found[1]
            before = found
            time.sleep(0.1)

    def upload(self, stream: Any, path: str) -> None:
        """Send a binary stream from its beginning; again from there when that fails."""

        def send(client: fs.FileSystem) -> None:
            stream.seek(0)
            first = stream.read(CHUNK)
            with client.open_output_stream(path) as target:
                while first:
                    target.write(first)
                    first = stream.read(CHUNK)

        _sent.pop((self.scheme, path), None)
        self._try(send)


def _md5(metadata: dict[bytes, bytes]) -> str:
    """The digest that the store has of a file, in hexadecimal digits; of a file sent in parts it is something else."""
    if b"md5Hash" in metadata:  # Google's
        return base64.b64decode(metadata[b"md5Hash"]).hex()
    return metadata.get(b"ETag", b"").decode().strip('"')


def _recursive(selector: fs.FileSelector) -> fs.FileSelector:
    return fs.FileSelector(selector.base_dir, selector.allow_not_found, recursive=True)


def _with_folders(files: list[fs.FileInfo], selector: fs.FileSelector) -> list[fs.FileInfo]:
    """What a listing holds, from all files below: pyarrow's client of Google's store lists no prefix as a folder."""
    base = PurePosixPath(selector.base_dir)
    found = {file.path.rstrip("/"): file for file in files}
    for path in list(found):
        for parent in PurePosixPath(path).parents:
            if parent == base:
                break
            found.setdefault(str(parent), fs.FileInfo(str(parent), fs.FileType.Directory))
    return [info for path, info in found.items() if selector.recursive or PurePosixPath(path).parent == base]


class _Reader(io.RawIOBase):
    """A file whose reads are tried again one by one."""

    def __init__(self, handler: RetryingHandler, path: str):
        self.handler = handler
        self.file = handler._try(lambda client: client.open_input_file(path))
        self.length = self.file.size()
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self.length

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        self.position = start + offset
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.length - self.position)
        count = left if size is None or size < 0 else min(size, left)
        data = self.handler._try(lambda client: self.file.read_at(count, self.position)) if count else b""
        self.position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


class _Writer:
    """What is written lies in memory, or in a temporary file from CHUNK on, until it is closed: then it is sent.

    One that is dropped without being closed, as after an error, leaves nothing in the store.
    """

    def __init__(self, handler: RetryingHandler, path: str):
        self.handler, self.path = handler, path
        self.buffer = tempfile.SpooledTemporaryFile(max_size=CHUNK)  # noqa: SIM115  # closed when it was sent
        self.closed = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.buffer.tell()

    def write(self, data: Any) -> int:
        return self.buffer.write(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        with self.buffer:
            # Ray Tune sends all its small files every few seconds, those of trials that ended too.
            once = "/checkpoint_" in self.path or self.buffer.tell() > SMALL
            digest = b"" if once else self._digest()
            key = (self.handler.scheme, self.path)
            if digest and _sent.get(key) == digest:
                return
            self.handler.upload(self.buffer, self.path)
            if digest:
                _sent[key] = digest

    def _digest(self) -> bytes:
        self.buffer.seek(0)
        return hashlib.blake2b(self.buffer.read(), digest_size=16).digest()


def split_address(address: str) -> tuple[str, str, str]:
    """s3://bucket/some/key -> (s3, bucket, bucket/some/key).

    Raises ValueError unless it is scheme://bucket/path and nothing else; what may be a secret is not repeated.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"an address must begin with {' or '.join(s + '://' for s in SCHEMES)}, got {scheme[:40]!r}")
    if re.search(r"[@?#]", rest):
        raise ValueError(
            f"an address must be {scheme}://bucket/path and no more: credentials and options belong into the "
            f"environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL; GOOGLE_APPLICATION_CREDENTIALS)"
        )
    parts = [part for part in rest.split("/") if part]
    bucket = rest.partition("/")[0]
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,221}", bucket) or {".", ".."} & set(parts):
        raise ValueError(f"an address must name a bucket, as in {scheme}://bucket/path, got {address!r}")
    return scheme, bucket, "/".join(parts)


@cache
def handler_of(scheme: str, bucket: str, patience: float | None = None) -> RetryingHandler:
    return RetryingHandler(scheme, bucket, patience)


def download(handler: RetryingHandler, path: str, target: Path) -> None:
    """Copy one object into a local file, a chunk at a time. FileNotFoundError where there is none."""
    reader = _Reader(handler, path)
    try:
        with target.open("wb") as stream:
            while data := reader.read(CHUNK):
                stream.write(data)
    finally:
        reader.close()


@contextmanager
def downloaded(folder: str, name: str) -> Iterator[Path]:
    """The file `name` of a folder in an object store as a local one, for as long as the context lasts.

    The path does not exist where the store has no such file.
    """
    scheme, bucket, path = split_address(folder)
    with tempfile.TemporaryDirectory(prefix="parsec-") as temporary:
        file = Path(temporary) / name
        try:
            download(handler_of(scheme, bucket), f"{path}/{name}", file)
        except FileNotFoundError:
            file.unlink(missing_ok=True)
        yield file
