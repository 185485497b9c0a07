"""A path in an object store, with pathlib's names as far as this project uses them."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:  # pyarrow takes a moment to import, and a run on disk may not need it
    from pyarrow import fs

    from parsecrl.algorithms.object_store import RetryingHandler

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

    def relative_to(self, other: Path | RemotePath) -> PurePosixPath:
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


def _stat_of(info: fs.FileInfo) -> FileStat:
    return FileStat(int(info.size or 0), info.mtime_ns / 1e9 if info.mtime_ns is not None else 0.0)


def in_parallel(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """The results, in order; a store answers many requests at a time as fast as one."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(PARALLEL, len(items))) as pool:
        return list(pool.map(function, items))
