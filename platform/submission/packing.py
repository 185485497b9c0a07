"""What a Ray job brings along: a wheel of this package, and the spec in a folder of its own.

The wheel is made from the files that run here, installed or in a source tree, with nothing but the standard library.
It names no dependencies: those are part of the cluster's image, and pip on a node must not look for torch.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from parsecrl.platform.errors import UserError

PACKAGE = "parsecrl"
ROOT_FILES = ("__init__.py", "__main__.py", "py.typed")
ROOMS = ("algorithms", "envs", "platform", "tune_specs")
LIMIT = 100 * 2**20  # bytes; what a head takes in one upload (ray 2.60, DASHBOARD_CLIENT_MAX_SIZE)
LARGEST = 3  # files that are named when the limit is passed
EPOCH = (2020, 1, 1, 0, 0, 0)  # of every file in the wheel: the same files make the same wheel


def package_files() -> dict[str, Path]:
    """Name in the wheel -> file. Caches, hidden files and links stay behind."""
    root_files = {f"{PACKAGE}/{name}": root / name for root in _folders(PACKAGE) for name in ROOT_FILES}
    return root_files | {name: file for room in ROOMS for name, file in _files_of(room)}


def _folders(package: str) -> Iterator[Path]:
    found = importlib.util.find_spec(package)
    for location in (found.submodule_search_locations or []) if found else []:
        if Path(location).is_dir():  # an editable install adds a marker that is no folder
            yield Path(location)


def _files_of(room: str) -> Iterator[tuple[str, Path]]:
    for root in _folders(f"{PACKAGE}.{room}"):
        for file in sorted(root.rglob("*")):
            inside = file.relative_to(root)
            skipped = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if file.is_file() and not file.is_symlink() and not skipped:
                yield f"{PACKAGE}/{room}/{inside.as_posix()}", file


def check_size(files: Mapping[str, Path], limit: int = LIMIT) -> None:
    """Raise UserError, naming the largest files, when the package is larger than `limit` bytes before compression."""
    sizes = {name: file.stat().st_size for name, file in files.items()}
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    named = ", ".join(f"{files[name]} ({_megabytes(sizes[name])})" for name in largest)
    raise UserError(
        f"the package would be {_megabytes(total)} and a Ray head takes {_megabytes(limit)}; "
        f"the largest files are {named}; move what is not code elsewhere"
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def build_wheel(folder: Path, files: Mapping[str, Path]) -> Path:
    """Write the wheel of `files` into `folder`, with the entry points of this installation, which name algorithms.

    Its build tag holds a hash of the contents: Ray takes wheels of one name for the same and would run the older.
    """
    try:
        installed = distribution("parsec-rl")
        release, entry_points = installed.version, installed.read_text("entry_points.txt")
    except PackageNotFoundError:
        release, entry_points = "0", None
    info = f"parsec_rl-{release}.dist-info"
    contents = {name: file.read_bytes() for name, file in files.items()}
    if entry_points is not None:
        contents[f"{info}/entry_points.txt"] = entry_points.encode()
    digest = hashlib.sha256()
    for name, data in sorted(contents.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: parsec-rl\nVersion: {release}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: parsecrl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},{_record_hash(data)},{len(data)}\n" for name, data in contents.items())
    contents[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = folder / f"parsec_rl-{release}-0{digest.hexdigest()[:16]}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in contents.items():
            wheel.writestr(zipfile.ZipInfo(name, EPOCH), data, compress_type=zipfile.ZIP_DEFLATED)
    return path


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
