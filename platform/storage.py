"""Where runs are stored: a folder on disk (a pathlib.Path), or a prefix of an object store (a RemotePath).

Both have the same methods, as far as this project uses them, so that what reads and writes a run need not know which it
has. On disk everything stays as pathlib does it.
"""

from __future__ import annotations

import fnmatch
import http.client
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlparse

from parsecrl.platform.errors import UserError

if TYPE_CHECKING:  # pyarrow takes a moment to import, and a run on disk may not need it
    from pyarrow import fs

    from parsecrl.algorithms.object_store import RetryingHandler

PARALLEL = 16  # requests at a time
PATIENCE = 5.0  # seconds that a first look at a store is tried again for
Item = TypeVar("Item")
Result = TypeVar("Result")


class FileStat(NamedTuple):
    """As of os.stat: bytes, and seconds since the epoch by the store's clock."""

    st_size: int
    st_mtime: float


class RemotePath:
    """A path in an object store, with pathlib's names. Folders are prefixes: they exist while something is in them.

    A file is written whole or not at all. Pickled it is its address, without credentials.
    """

    def __init__(self, address: str):
        from parsecrl.algorithms.object_store import split_address

        self.scheme, self.bucket, path = split_address(address)
        self.path = PurePosixPath(path)
        self._stat: FileStat | None = None  # as a listing had it

    def __reduce__(self) -> Any:
        return RemotePath, (str(self),)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(f"{self}/{name}")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        return self.path.parts

    @property
    def parent(self) -> RemotePath:
        """The bucket is its own parent."""
        return self if len(self.path.parts) == 1 else RemotePath(f"{self.scheme}://{self.path.parent}")

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def relative_to(self, other: Location) -> PurePosixPath:
        if not isinstance(other, RemotePath) or other.scheme != self.scheme:
            raise ValueError(f"{self} does not lie below {other}")
        return self.path.relative_to(other.path)

    @property
    def key(self) -> str:
        """As pyarrow has it: bucket/path."""
        return str(self.path)

    @property
    def handler(self) -> RetryingHandler:
        from parsecrl.algorithms.object_store import handler_of

        return handler_of(self.scheme, self.bucket)

    def _info(self) -> fs.FileInfo:
        return self.handler.get_file_info([self.key])[0]

    def exists(self) -> bool:
        return self._info().type.name != "NotFound"

    def is_file(self) -> bool:
        return self._info().is_file

    def is_dir(self) -> bool:
        return self._info().type.name == "Directory"

    def stat(self) -> FileStat:
        """Size and time of a file; FileNotFoundError where there is none."""
        if self._stat is None:
            info = self._info()
            if not info.is_file:
                raise FileNotFoundError(f"there is no file {self}")
            return _stat_of(info)
        return self._stat

    def read_bytes(self) -> bytes:
        return self.handler.read(self.key)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        self.handler.upload(io.BytesIO(data), self.key)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.handler.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        pass

    def _list(self, recursive: bool) -> list[fs.FileInfo]:
        from pyarrow import fs

        return self.handler.get_file_info_selector(fs.FileSelector(self.key, recursive=recursive, allow_not_found=True))

    def iterdir(self) -> Iterator[RemotePath]:
        return (self._located(info) for info in self._list(recursive=False))

    def files(self) -> list[RemotePath]:
        """All files below, at any depth, sorted; one request a thousand of them."""
        return sorted(self._located(info) for info in self._list(recursive=True) if info.is_file)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Files and folders that match, as pathlib's, without **."""
        fixed: list[str] = []
        wanted = pattern.split("/")
        while len(wanted) > 1 and not any(c in wanted[0] for c in "*?["):
            fixed.append(wanted.pop(0))
        base = self / "/".join(fixed) if fixed else self
        depth = len(base.parts)
        seen: set[str] = set()
        for info in base._list(recursive=len(wanted) > 1):
            parts = PurePosixPath(info.path).parts
            head = parts[depth : depth + len(wanted)]
            if len(head) < len(wanted) or not all(map(fnmatch.fnmatchcase, head, wanted)):
                continue
            found = "/".join(parts[: depth + len(wanted)])
            if found not in seen:
                seen.add(found)
                yield self._located(info) if info.path == found else RemotePath(f"{self.scheme}://{found}")

    def rename(self, target: Any) -> RemotePath:
        """Move a folder; each file is copied before it is deleted."""

        def move(file: RemotePath) -> None:
            self.handler.copy_file(file.key, (target / file.relative_to(self)).key)
            file.unlink(missing_ok=True)

        in_parallel(move, self.files())
        return target

    def _located(self, info: fs.FileInfo) -> RemotePath:
        found = RemotePath(f"{self.scheme}://{info.path}")
        found._stat = _stat_of(info) if info.is_file else None
        return found


Location = Path | RemotePath


def _stat_of(info: fs.FileInfo) -> FileStat:
    return FileStat(int(info.size or 0), info.mtime_ns / 1e9 if info.mtime_ns is not None else 0.0)


def location_of(text: Any) -> Location:
    """The place that a path, a file:// URI or an s3:// or gs:// address names.

    Raises UserError for any other, and for an object store that this process has no credentials for or cannot reach.
    """
    if isinstance(text, RemotePath):
        return text
    text = str(text)
    if "://" not in text:
        return Path(text).expanduser()
    uri = urlparse(text)
    if uri.scheme == "file" and uri.netloc in {"", "localhost"}:
        return Path(unquote(uri.path))
    if uri.scheme in {"s3", "gs"}:
        location = remote_path(text)
        _check_reachable(location)
        return location
    shown = f"{uri.scheme[:40]}://" + ("..." if "@" in text or uri.scheme != "file" else text[7:])
    raise UserError(
        f"a place for runs must be a path that every node can reach, file:///path, s3://bucket/prefix or "
        f"gs://bucket/prefix, got {shown}"
    )


def remote_path(address: str) -> RemotePath:
    """The address as a path; nothing is asked of the store. Raises UserError for one that is not well formed."""
    try:
        return RemotePath(address)
    except ValueError as error:
        raise UserError(str(error)) from None


def writable_storage(storage: Any) -> Location:
    """The folder or prefix that `storage` names. Makes nothing that stays.

    Raises UserError where nothing can be written.
    """
    location = location_of(storage)
    if isinstance(location, RemotePath):
        probe = location / f".parsec-{uuid.uuid4().hex}"
        with _explained(location):
            handler = _impatient(location)
            handler.upload(io.BytesIO(), probe.key)
            handler.delete_file(probe.key)
        return location
    folder = location.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".parsec-"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"the storage path {folder} cannot be written ({reason}); give --storage a folder that can"
        ) from None
    return folder


def write_atomically(file: Location, text: str) -> None:
    """Replace `file` by `text` in one step; what was written survives a crash of the machine."""
    if isinstance(file, RemotePath):
        file.write_text(text)
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_tree(folder: Location) -> None:
    """Delete a folder with all that is in it; nothing happens where there is none."""
    if isinstance(folder, RemotePath):
        with suppress(FileNotFoundError):
            folder.handler.delete_dir(folder.key)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def upload(source: Path, target: Location) -> None:
    """Put a local file into its place, whole or not at all; a chunk at a time."""
    if isinstance(target, RemotePath):
        with source.open("rb") as stream:
            target.handler.upload(stream, target.key)
    else:
        os.replace(source, target)


def download(source: RemotePath, target: Path) -> None:
    from parsecrl.algorithms import object_store

    target.parent.mkdir(parents=True, exist_ok=True)
    object_store.download(source.handler, source.key, target)


def in_parallel(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """The results, in order; a store answers many requests at a time as fast as one."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(PARALLEL, len(items))) as pool:
        return list(pool.map(function, items))


def for_tune(location: Location) -> tuple[str, fs.FileSystem | None]:
    """storage_path and storage_filesystem, as Ray Tune takes them."""
    if not isinstance(location, RemotePath):
        return str(location), None
    from pyarrow import fs

    return location.key, fs.PyFileSystem(location.handler)


# --- whether a store can be used, in one sentence -------------------------------------------------------------------


def _impatient(location: RemotePath) -> RetryingHandler:
    from parsecrl.algorithms.object_store import handler_of

    return handler_of(location.scheme, location.bucket, PATIENCE)


def _check_reachable(location: RemotePath) -> None:
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
        selector = fs.FileSelector(location.key, allow_not_found=True)
        _impatient(location).get_file_info_selector(selector)


@contextmanager
def _explained(location: RemotePath) -> Iterator[None]:
    """Turn what a store says into one sentence for the user."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        if any(word in text for word in ("NO_SUCH_BUCKET", "bucket does not exist", "InvalidBucketName")):
            remedy = f"there is no bucket {location.bucket!r}; make it first, or name another one"
        elif any(word in text for word in ("could not be reached", "NETWORK_CONNECTION")):
            remedy = "the store does not answer; see AWS_ENDPOINT_URL and the network"
        elif isinstance(error, ValueError):
            remedy = text
        else:
            code = re.search(r"AWS Error ([A-Z_]+)", text)
            reason = code[1] if code and code[1] != "UNKNOWN" else text[:160]
            remedy = f"the store refuses ({reason}); see the credentials in the environment and their rights"
        raise UserError(f"{location} cannot be used: {remedy}") from None


def _has_credentials(scheme: str) -> bool:
    """Whether there is anything that the store's client looks for; without, it would ask as nobody."""
    names = {
        "s3": (
            *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ),
        "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_STORAGE_EMULATOR_ENDPOINT"),
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
