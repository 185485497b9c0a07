"""The files of a checkpoint folder, on disk or in an object store (s3://bucket/..., gs://bucket/...)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class StorageUnreachable(OSError):
    """An object store that kept failing for as long as was allowed, or that refuses this process."""


@contextmanager
def local_file(folder: Any, name: str) -> Iterator[Path]:
    """The path of the folder's file `name` on this machine, while the context lasts; it may not exist.

    folder: a path, or an address with ://, whose file is copied here first. Raises ValueError for a bad address.
    """
    text = str(folder)
    if "://" not in text:
        yield Path(folder) / name
        return
    from parsecrl.algorithms.object_store import downloaded  # pyarrow: only where it is needed

    with downloaded(text, name) as file:
        yield file


def check_local(folder: Any) -> None:
    """Raises ValueError on an address: a trial's own files (replay, agent) are written and read on this machine alone.

    Tune and the platform take checkpoints to an object store and back as whole folders.
    """
    if "://" in str(folder):
        raise ValueError(f"a checkpoint must be saved to and restored from a local folder, got {folder}; copy it there")
