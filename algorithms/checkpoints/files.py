"""The files of a checkpoint folder, on disk or elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class FileElsewhere(Protocol):
    """A file that is not on this machine's disks."""

    def copy_to(self, target: Path) -> None:
        """Copy the file to a path of this machine. Raises FileNotFoundError where there is none."""


class FolderElsewhere(Protocol):
    """A folder that is not on this machine's disks, such as a prefix of an object store. Its str names it in errors.

    An algorithm's config holds it, so that it is pickled: without what opens it, such as credentials.
    """

    def __truediv__(self, name: str) -> FileElsewhere: ...


Folder = str | Path | FolderElsewhere


class NotKept:
    """In a checkpoint, in place of the folder that its phase began from: a checkpoint names no place of a machine."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "an earlier phase"


@contextmanager
def local_file(folder: Folder, name: str) -> Iterator[Path]:
    """A checkpoint's file on this machine, while the context lasts; a path where there may be no file.

    The file of a folder elsewhere is copied here first.

    Args:
        folder: Of the checkpoint.
        name: Of the file.

    Yields:
        The path.

    Raises:
        ValueError: The folder is a text that is an address and no path.
    """
    if isinstance(folder, str):
        check_local(folder, "read")
    if isinstance(folder, str | Path):
        yield Path(folder) / name
        return
    with tempfile.TemporaryDirectory(prefix="parsec-") as temporary:
        file = Path(temporary) / name
        try:
            (folder / name).copy_to(file)
        except FileNotFoundError:
            file.unlink(missing_ok=True)
        yield file


def check_local(folder: Any, what: str = "saved to and restored") -> None:
    """Refuse an address: a trial's own files (replay, agent) are written and read on this machine alone.

    Tune and the platform take checkpoints to an object store and back as whole folders.

    Args:
        folder: That should be a path.
        what: Was to be done, for the message.

    Raises:
        ValueError: It is an address.
    """
    if "://" in str(folder):
        raise ValueError(f"a checkpoint must be {what} from a local folder, got {folder}; copy it there")
