"""Episodes of pictures on disk, in Minari's Arrow format: one folder an episode, there as a whole or not at all.

    FOLDER/metadata.json            spaces, counts, and the settings that the data were collected with
    FOLDER/.metadata.json           the same once more, since no episode can be understood without it
    FOLDER/<number>/part-0.arrow    a row a picture; the last row's action and reward are 0
    FOLDER/<number>/metadata.json   steps, seed, checksum

`minari.MinariDataset(FOLDER)` opens it; nothing here needs Minari. Its Arrow format, not its HDF5: a file for each
episode, so that damage stays in one, written by no one process alone, and mapped into memory as it lies. Pictures are
stored as they are (`jpeg_encoding` false): a reconstruction error would otherwise be measured against JPEG's own.

Axes: T steps of an episode, S side of a picture.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

METADATA, METADATA_COPY, ROWS = "metadata.json", ".metadata.json", "part-0.arrow"
MINARI_VERSION = "0.5.4"  # of the format; Minari refuses data of versions that it does not know
SETTINGS = "parsecrl"  # our key in a dataset's metadata
PARTIAL = ".partial"


class DamagedEpisode(ValueError):
    """An episode whose file is truncated, corrupt or missing: one sentence that names it."""


class Episode(NamedTuple):
    """T steps of one episode; actions[t] was taken after images[t], brought rewards[t] and led to images[t + 1]."""

    images: np.ndarray  # uint8 [T + 1, S, S, 3], read-only where it is a file mapped into memory
    actions: np.ndarray  # int64 [T]
    rewards: np.ndarray  # float64 [T]
    terminated: bool  # by the world; else cut, by the world or by who collected it
    seed: int  # of the world's reset


def write_episode(folder: Path, number: int, episode: Episode, **more: Any) -> None:
    """Write an episode into the dataset's folder, in place of one of that number that is there.

    Args:
        folder: Of the dataset.
        number: Of the episode, 0 or more.
        episode: What is written.
        **more: What its metadata shall also say.

    Raises:
        OSError: As the disk does; then nothing is left behind.
    """
    partial, final = folder / f".{number}.{os.getpid()}{PARTIAL}", folder / str(number)
    T = len(episode.actions)
    columns = {
        "observations": _rows_of_bytes(episode.images),
        "actions": pa.array(np.append(episode.actions, 0)),
        "rewards": pa.array(np.append(episode.rewards, 0.0)),
        "terminations": pa.array([*[False] * (T - 1), episode.terminated, False]),
        "truncations": pa.array([*[False] * (T - 1), not episode.terminated, False]),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    try:
        partial.mkdir(parents=True)
        with pa.OSFile(str(partial / ROWS), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        metadata = {"id": number, "total_steps": T, "seed": episode.seed, "crc32": _checksum(partial / ROWS), **more}
        (partial / METADATA).write_text(json.dumps(metadata))
        for name in (ROWS, METADATA):
            _flush(partial / name)
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_episode(folder: Path, number: int, *, verify: bool = True) -> Episode:
    """Map an episode's file into memory; its images are read-only.

    Args:
        folder: Of the split.
        number: Of the episode.
        verify: Read the file whole, and hold it against its checksum.

    Returns:
        The episode.

    Raises:
        DamagedEpisode: A file is missing, truncated or corrupt.
    """
    file, description = folder / str(number) / ROWS, folder / str(number) / METADATA
    try:
        metadata = json.loads(description.read_text())
        seed, checksum, T = int(metadata["seed"]), int(metadata["crc32"]), int(metadata["total_steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedEpisode(f"{description} is missing or damaged ({_reason(error)})") from error
    try:
        if verify and _checksum(file) != checksum:  # first: nothing of a damaged file is taken for what it says
            raise DamagedEpisode(f"{file} is truncated or damaged: it has not the checksum that {METADATA} states")
        batch = pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
        cells = batch.column("observations")
        S = round((cells.type.list_size / 3) ** 0.5)
        images = cells.values.to_numpy().reshape(T + 1, S, S, 3)
        actions, rewards = (batch.column(name).to_numpy()[:T] for name in ("actions", "rewards"))
        terminated = bool(batch.column("terminations")[T - 1].as_py())
    except (OSError, ValueError, KeyError, IndexError, AttributeError, pa.ArrowException) as error:
        if isinstance(error, DamagedEpisode):
            raise
        raise DamagedEpisode(f"{file} is missing, truncated or damaged ({_reason(error)})") from error
    return Episode(images, actions, rewards, terminated, seed)


def numbers(folder: Path) -> list[int]:
    """List the episodes that are there, whole or damaged.

    Args:
        folder: Of the dataset.

    Returns:
        Their numbers in order.
    """
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and entry.is_dir())


def remove_partial(folder: Path) -> None:
    """Remove what writers that were killed left behind; call only while nobody writes.

    Args:
        folder: Of the dataset.
    """
    for entry in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(entry, ignore_errors=True)


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write metadata.json of the dataset and its copy, in place of those before.

    Args:
        folder: Of the dataset.
        metadata: As JSON takes it.
    """
    for name in (METADATA, METADATA_COPY):
        partial = folder / (name + PARTIAL)
        partial.write_text(json.dumps(metadata))
        _flush(partial)
        os.replace(partial, folder / name)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read metadata.json of the dataset, or with a warning its copy where it is damaged.

    Args:
        folder: Of the dataset.

    Returns:
        The metadata, {} where there is none.

    Raises:
        ValueError: Both are damaged.
    """
    if not (folder / METADATA).exists() and not (folder / METADATA_COPY).exists():
        return {}
    try:
        return _object_in(folder / METADATA)
    except (FileNotFoundError, ValueError) as error:
        reason = f"{folder / METADATA} is missing or damaged ({_reason(error)})"
    try:
        metadata = _object_in(folder / METADATA_COPY)
    except (FileNotFoundError, ValueError):
        raise ValueError(f"{reason}, and so is its copy {METADATA_COPY}; delete {folder} and collect again") from None
    warnings.warn(f"{reason}; its copy {METADATA_COPY} is read", stacklevel=2)
    return metadata


def _object_in(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text())
    if not isinstance(found, dict):
        raise ValueError("it describes no dataset")
    return found


def dataset_metadata(
    name: str, image_size: int, num_actions: int, env_spec: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a dataset as Minari expects it, without its counts.

    Args:
        name: Of the dataset.
        image_size: S.
        num_actions: Of the world.
        env_spec: Gymnasium's, as JSON; None leaves it out.
        settings: What the data depend on.

    Returns:
        The metadata.
    """
    shape = [image_size, image_size, 3]
    low, high = (np.full(shape, bound).tolist() for bound in (0, 255))
    box = {"type": "Box", "dtype": "uint8", "shape": shape, "low": low, "high": high}
    discrete = {"type": "Discrete", "dtype": "int64", "start": 0, "n": num_actions}
    return {
        "dataset_id": name,
        "minari_version": MINARI_VERSION,
        "data_format": "arrow",
        "jpeg_encoding": False,
        "observation_space": json.dumps(box),
        "action_space": json.dumps(discrete),
        **({"env_spec": env_spec} if env_spec else {}),
        SETTINGS: dict(settings),
    }


def _rows_of_bytes(images: np.ndarray) -> pa.FixedSizeListArray:
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def _checksum(file: Path) -> int:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        return zlib.crc32(contents)


def _flush(file: Path) -> None:
    """To the disk, before the rename: a power cut could otherwise leave an empty file under the final name."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
