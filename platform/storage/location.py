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
from parsecrl.platform.storage.pretrained import PREFIX, pretrained_folder
from parsecrl.platform.storage.remote_path import RemotePath

if TYPE_CHECKING:
    from pyarrow import fs

Location = Path | RemotePath


def location_of(text: Any) -> Location:
    """The place that a path or an address names. Readers of checkpoints take it.

    Args:
        text: A path, a file:// URI, an s3:// or gs:// address, pretrained:NAME; a RemotePath is taken as it is.

    Returns:
        A path on disk, or one in an object store, which is pickled as its address.

    Raises:
        UserError: It is none of these, or an object store that this process has no credentials for or cannot reach.
    """
    location = well_formed(text)
    if isinstance(location, RemotePath) and location is not text:
        check_reachable(location)
    return location


def well_formed(text: Any) -> Location:
    """`location_of`, without asking an object store for anything.

    Args:
        text: As `location_of` takes it.

    Returns:
        As `location_of` does.

    Raises:
        UserError: It is no path and no address.
    """
    if isinstance(text, RemotePath):
        return text
    text = str(text)
    if text.startswith(PREFIX):
        return pretrained_folder(text)
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
    """The folder or prefix that is to hold runs. Makes nothing that stays.

    Args:
        storage: As `location_of` takes it; a folder need not exist.

    Returns:
        An absolute path, or one in an object store.

    Raises:
        UserError: Nothing can be written there.
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
    """Replace a file in one step; what was written survives a crash of the machine.

    Args:
        file: In an existing folder, or in an object store.
        text: The whole of it, as UTF-8.
    """
    write_bytes_atomically(file, text.encode())


def write_bytes_atomically(file: Location, data: bytes) -> None:
    """As `write_atomically`.

    Args:
        file: In an existing folder, or in an object store.
        data: The whole of it.
    """
    if isinstance(file, RemotePath):
        file.write_bytes(data)
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def read_json(file: Location) -> dict[str, Any]:
    """What a JSON file holds.

    Args:
        file: On disk or in an object store.

    Returns:
        Its contents; an empty dict where there is no file.

    Raises:
        UserError: It is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({text_line(error)}); bring back a whole copy of it") from None


def remove_tree(folder: Location) -> None:
    """Delete a folder with all that is in it; nothing happens where there is none.

    Args:
        folder: On disk or in an object store.
    """
    if isinstance(folder, RemotePath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def upload(source: Path, target: Location) -> None:
    """Put a local file into its place, whole or not at all; a chunk at a time.

    Args:
        source: The file; on disk it is moved, and is gone afterwards.
        target: On the same disk, or in an object store.
    """
    if isinstance(target, RemotePath):
        target.copy_from(source)
    else:
        os.replace(source, target)


def download(source: RemotePath, target: Path) -> None:
    """Copy a file of a store to this machine.

    Args:
        source: The file.
        target: A local path, whose folders are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source.copy_to(target)


def of_tune(path: str, filesystem: fs.FileSystem) -> Location:
    """The place that Ray Tune knows by these: the inverse of `for_tune`.

    Args:
        path: A path on the file system.
        filesystem: As Tune holds it.

    Returns:
        A path on disk, or one in an object store.
    """
    from parsecrl.platform.storage.arrow_filesystem import BucketHandler

    handler = getattr(filesystem, "handler", None)
    return RemotePath(f"{handler.scheme}://{path}") if isinstance(handler, BucketHandler) else Path(path)


def for_tune(location: Location) -> tuple[str, fs.FileSystem | None]:
    """A place as Ray Tune takes it.

    Args:
        location: On disk or in an object store.

    Returns:
        storage_path and storage_filesystem; None for the latter on disk.
    """
    if not isinstance(location, RemotePath):
        return str(location), None
    from pyarrow import fs

    from parsecrl.platform.storage.arrow_filesystem import BucketHandler

    return str(location.path), fs.PyFileSystem(BucketHandler(location.scheme, location.bucket))
