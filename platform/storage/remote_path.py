"""A path in an object store, with pathlib's names as far as this project uses them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from parsecrl.platform.storage.object_store import ObjectStore, store_of

SCHEMES = ("s3", "gs")
PARALLEL = 16  # requests at a time
Item = TypeVar("Item")
Result = TypeVar("Result")


class FileStat(NamedTuple):
    """As of os.stat: bytes, and seconds since the epoch by the store's clock."""

    st_size: int
    st_mtime: float


class RemotePath:
    """A path in an object store, with pathlib's names. Folders are prefixes: they exist while something is in them.

    A file is written whole or not at all. Pickled it is its address, without credentials.

    Args:
        address: s3://bucket/path or gs://bucket/path.

    Raises:
        ValueError: It is no such address.
    """

    def __init__(self, address: str):
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
        """The last part."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self.path.stem

    @property
    def suffix(self) -> str:
        """The last part from its last dot on."""
        return self.path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket and names."""
        return self.path.parts

    @property
    def parent(self) -> RemotePath:
        """The bucket is its own parent."""
        return self if len(self.path.parts) == 1 else RemotePath(f"{self.scheme}://{self.path.parent}")

    def with_name(self, name: str) -> RemotePath:
        """The path with another last part."""
        return self.parent / name

    def relative_to(self, other: Path | RemotePath) -> PurePosixPath:
        """The path below another. Raises ValueError where it does not lie there."""
        if not isinstance(other, RemotePath) or other.scheme != self.scheme:
            raise ValueError(f"{self} does not lie below {other}")
        return self.path.relative_to(other.path)

    @property
    def key(self) -> str:
        """The path inside the bucket."""
        return "/".join(self.path.parts[1:])

    @property
    def store(self) -> ObjectStore:
        """The bucket, connected to when it is first asked."""
        return store_of(self.scheme, self.bucket)

    def exists(self) -> bool:
        """Whether a file or a folder is there."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether a file is there."""
        return bool(self.key) and self.store.head(self.key) is not None

    def is_dir(self) -> bool:
        """Whether something lies below; a bucket always counts."""
        return not self.key or self.store.exists_below(self.key)

    def stat(self) -> FileStat:
        """Size and time of a file; FileNotFoundError where there is none."""
        if self._stat is None:
            found = self.store.head(self.key) if self.key else None
            if found is None:
                raise FileNotFoundError(f"there is no file {self}")
            return _stat_of(found)
        return self._stat

    def read_bytes(self) -> bytes:
        """The file's contents. Raises FileNotFoundError where there is none."""
        return self.store.read(self.key)[0]

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The file's contents as text. Raises FileNotFoundError where there is none."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        """Write the file whole."""
        self.store.write(self.key, data)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Write the file whole."""
        self.write_bytes(text.encode(encoding))

    def copy_to(self, target: Path) -> None:
        """Copy the file to a local path, a chunk at a time; FileNotFoundError where there is none."""
        with target.open("wb") as stream:
            self.store.download(self.key, stream)

    def copy_from(self, source: Path) -> None:
        """Put a local file here, whole or not at all; a chunk at a time."""
        self.store.write(self.key, source)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file. Raises FileNotFoundError where there is none, unless that is allowed."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(f"there is no file {self}")
        self.store.delete([self.key])

    def remove_tree(self) -> None:
        """Delete all that lies below."""
        self.store.delete(file.key for file in self.files())

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder exists while something is in it."""
        pass

    def _list(self, recursive: bool) -> Iterator[RemotePath]:
        files, folders = self.store.list(self.key, recursive)
        for found in files:
            file = self._located(found["path"])
            file._stat = _stat_of(found)
            yield file
        yield from map(self._located, folders)

    def iterdir(self) -> Iterator[RemotePath]:
        """Files and folders directly below."""
        return self._list(recursive=False)

    def files(self) -> list[RemotePath]:
        """All files below, at any depth, sorted; one request a thousand of them."""
        return sorted(path for path in self._list(recursive=True) if path._stat is not None)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Files and folders that match, as pathlib's, without **."""
        fixed: list[str] = []
        wanted = pattern.split("/")
        while len(wanted) > 1 and not any(c in wanted[0] for c in "*?["):
            fixed.append(wanted.pop(0))
        base = self / "/".join(fixed) if fixed else self
        depth = len(base.parts)
        for path in base._list(recursive=len(wanted) > 1):
            names = path.parts[depth:]
            if len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted)):
                yield path

    def rename(self, target: Any) -> RemotePath:
        """Move a folder; each file is copied before it is deleted."""

        def move(file: RemotePath) -> None:
            self.store.copy(file.key, (target / file.relative_to(self)).key)
            file.unlink(missing_ok=True)

        in_parallel(move, self.files())
        return target

    def _located(self, key: str) -> RemotePath:
        return RemotePath(f"{self.scheme}://{self.bucket}/{key}")


def _stat_of(found: Any) -> FileStat:
    return FileStat(found["size"], found["last_modified"].timestamp())


def in_parallel(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """Call a function for many items at once: a store answers many requests at a time as fast as one.

    Args:
        function: Called in threads, PARALLEL at a time.
        items: Its arguments.

    Returns:
        The results, in the order of the items.
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(PARALLEL, len(items))) as pool:
        return list(pool.map(function, items))


def split_address(address: str) -> tuple[str, str, str]:
    """s3://bucket/some/key -> (s3, bucket, bucket/some/key).

    Args:
        address: Of an object or a prefix.

    Returns:
        Scheme, bucket, and path with the bucket in front.

    Raises:
        ValueError: It is not scheme://bucket/path and nothing else; what may be a secret is not repeated.
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
