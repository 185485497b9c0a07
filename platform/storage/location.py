"""Where runs are stored: a folder on disk (a pathlib.Path), or a prefix of an object store (a RemotePath).

Both have the same methods, as far as this project uses them, so that what reads and writes a run need not know which it
has. On disk everything stays as pathlib does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from parsecrl.platform.errors import UserError, text_line
from parsecrl.platform.storage.access_checks import check_reachable, check_writable
from parsecrl.platform.storage.remote_path import RemotePath

if TYPE_CHECKING:
    from pyarrow import fs

Location = Path | RemotePath


def location_of(text: Any) -> Location:
    """The place that a path, a file:// URI, an s3:// or gs:// address names. Readers of checkpoints take it.

    Raises UserError where it is none of these, or an object store that this process has no credentials for or cannot
    reach. A RemotePath is pickled as its address.
    """
    location = well_formed(text)
    if isinstance(location, RemotePath) and location is not text:
        check_reachable(location)
    return location


def well_formed(text: Any) -> Location:
    """`location_of`, without asking an object store for anything."""
    if isinstance(text, RemotePath):
        return text
    text = str(text)
    if "://" not in text:
        return _without_tilde(text)
    uri = urlparse(text)
    if uri.scheme == "file" and uri.netloc in {"", "localhost"}:
        return Path(unquote(uri.path))
    if uri.scheme in {"s3", "gs"}:
        try:
            return RemotePath(text)
        except ValueError as error:
            raise UserError(str(error)) from None
    shown = f"{uri.scheme[:40]}://" + ("..." if "@" in text or uri.scheme != "file" else text[7:])
    raise UserError(
        f"a place for runs must be a path that every node can reach, file:///path, s3://bucket/prefix or "
        f"gs://bucket/prefix, got {shown}"
    )


def _without_tilde(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such user, or this one has no home
        raise UserError(f"{text} names no folder ({text_line(error).rstrip('.')}); write the path in full") from None


def writable_storage(storage: Any) -> Location:
    """The folder or prefix that `storage` names. Makes nothing that stays.

    Raises UserError where nothing can be written.
    """
    location = location_of(storage)
    if isinstance(location, RemotePath):
        check_writable(location)
        return location
    folder = location.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder)  # which fails where a name is too long
        with tempfile.TemporaryDirectory(dir=existing, prefix=".parsec-") as probe:
            Path(probe, "file").touch()  # which a umask may forbid
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason += ": see the folder's rights and the umask"
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


def read_json(file: Location) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def remove_tree(folder: Location) -> None:
    """Delete a folder with all that is in it; nothing happens where there is none."""
    if isinstance(folder, RemotePath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def upload(source: Path, target: Location) -> None:
    """Put a local file into its place, whole or not at all; a chunk at a time."""
    if isinstance(target, RemotePath):
        target.copy_from(source)
    else:
        os.replace(source, target)


def download(source: RemotePath, target: Path) -> None:
    """Copy a file of a store to a local path, whose folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.copy_to(target)


def of_tune(path: str, filesystem: fs.FileSystem) -> Location:
    """The place that Ray Tune knows by these: the inverse of `for_tune`."""
    from parsecrl.platform.storage.arrow_filesystem import BucketHandler

    handler = getattr(filesystem, "handler", None)
    return RemotePath(f"{handler.scheme}://{path}") if isinstance(handler, BucketHandler) else Path(path)


def for_tune(location: Location) -> tuple[str, fs.FileSystem | None]:
    """storage_path and storage_filesystem, as Ray Tune takes them."""
    if not isinstance(location, RemotePath):
        return str(location), None
    from pyarrow import fs

    from parsecrl.platform.storage.arrow_filesystem import BucketHandler

    return str(location.path), fs.PyFileSystem(BucketHandler(location.scheme, location.bucket))
