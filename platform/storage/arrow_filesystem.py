"""A bucket as a pyarrow file system, which Ray Tune takes. Pickled it is the bucket's name, without credentials."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import pyarrow
from pyarrow import fs

from parsecrl.platform.storage.object_store import CHUNK, ObjectStore, store_of

SMALL = 1024**2  # bytes


@dataclass(frozen=True)
class BucketHandler(fs.FileSystemHandler):
    """Paths start with the bucket's name, as pyarrow has them. Folders are prefixes: making one does nothing."""

    scheme: str
    bucket: str

    @property
    def store(self) -> ObjectStore:
        """The bucket, connected to when it is first asked."""
        return store_of(self.scheme, self.bucket)

    def _key(self, path: str) -> str:
        return path.strip("/").removeprefix(self.bucket).strip("/")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def get_type_name(self) -> str:
        """The scheme, such as s3."""
        return self.scheme

    def normalize_path(self, path: str) -> str:
        """The path without a slash at its end."""
        return path.rstrip("/")

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """What lies at each path: a file, a folder, or nothing."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        key = self._key(path)
        found = self.store.head(key) if key else None
        if found is not None:
            return self._file_info(found)
        folder = not key or self.store.exists_below(key)
        return fs.FileInfo(path, fs.FileType.Directory if folder else fs.FileType.NotFound)

    def _file_info(self, found: Any) -> fs.FileInfo:
        path = f"{self.bucket}/{found['path']}"
        return fs.FileInfo(path, fs.FileType.File, size=found["size"], mtime=found["last_modified"].timestamp())

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """What lies below a folder. Raises FileNotFoundError where nothing does, unless that is allowed."""
        files, folders = self.store.list(self._key(selector.base_dir), selector.recursive)
        infos = [fs.FileInfo(f"{self.bucket}/{folder}", fs.FileType.Directory) for folder in folders]
        infos += [self._file_info(found) for found in files]
        if not infos and not selector.allow_not_found:
            raise FileNotFoundError(f"there is nothing below {self.scheme}://{selector.base_dir}")
        return infos

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: a folder exists while something is in it."""
        pass

    def delete_dir(self, path: str) -> None:
        """Delete all that lies below, if anything does."""
        self.delete_dir_contents(path, missing_dir_ok=True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all that lies below. Raises FileNotFoundError where nothing does, unless that is allowed."""
        files, _ = self.store.list(self._key(path), recursive=True)
        if not files and not missing_dir_ok:
            raise FileNotFoundError(f"there is nothing below {self.scheme}://{path}")
        self.store.delete(found["path"] for found in files)

    # pyarrow's interface has this one as well; nothing here may use it.
    def delete_root_dir_contents(self) -> None:
        """Refused: see the error."""
        raise NotImplementedError("a whole object store is never deleted")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        self.store.delete([self._key(path)])

    def move(self, src: str, dest: str) -> None:
        """Copy a file, then delete the first."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file inside the store."""
        self.store.copy(self._key(src), self._key(dest))

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        """A local copy of the file, open for reading."""
        # The whole object first, so that an outage while it is read cannot mix two states of it.
        copy = tempfile.SpooledTemporaryFile(max_size=2 * CHUNK)  # noqa: SIM115  # closed by its reader
        self.store.download(self._key(path), copy)  # type: ignore[arg-type]
        copy.seek(0)
        return pyarrow.PythonFile(copy, mode="r")

    open_input_file = open_input_stream

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """A file that is sent whole when it is closed."""
        return pyarrow.PythonFile(_Writer(self.store, self._key(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """Refused: see the error."""
        raise NotImplementedError("object stores cannot append to a file")


class _Writer:
    """What is written lies in memory, or in a temporary file from CHUNK on, until it is closed: then it is sent.

    One that is dropped without being closed, as after an error, leaves nothing in the store.
    """

    def __init__(self, store: ObjectStore, key: str):
        self.store, self.key = store, key
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
            size = self.buffer.tell()
            self.buffer.seek(0)
            if size > CHUNK:
                self.store.write(self.key, self.buffer)  # type: ignore[arg-type]
            elif size > SMALL or "/checkpoint_" in self.key:
                self.store.write(self.key, self.buffer.read())
            else:  # Ray Tune sends all its small files every few seconds, those of trials that ended too
                self.store.write_if_new(self.key, self.buffer.read())
