"""The wheel of this package, which a Ray job brings along, made from the files that run here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from parsecrl.platform.shipping.own_code import files_below
from parsecrl.platform.shipping.wheels import check_size, write_wheel

PACKAGE = "parsecrl"
ROOT_FILES = ("__init__.py", "__main__.py", "py.typed")
ROOMS = ("algorithms", "envs", "platform", "tune_specs", "pretrained")


def package_files() -> dict[str, Path]:
    """Name in the wheel -> file, of an installation or a source tree."""
    root_files = {f"{PACKAGE}/{name}": root / name for root in _folders(PACKAGE) for name in ROOT_FILES}
    inner = {
        f"{PACKAGE}/{room}/{name}": file
        for room in ROOMS
        for root in _folders(f"{PACKAGE}.{room}")
        for name, file in files_below(root)
    }
    return root_files | inner


def _folders(package: str) -> Iterator[Path]:
    found = importlib.util.find_spec(package)
    for location in (found.submodule_search_locations or []) if found else []:
        if Path(location).is_dir():  # an editable install adds a marker that is no folder
            yield Path(location)


def build_wheel(folder: Path, files: Mapping[str, Path]) -> Path:
    """Write the wheel of a package, with the entry points of this installation, which name algorithms.

    Args:
        folder: Where it goes.
        files: By their names in the wheel.

    Returns:
        The wheel.

    Raises:
        UserError: A head would not take it.
    """
    check_size({str(file): file.stat().st_size for file in files.values()}, "the package")
    try:
        installed = distribution("parsec-rl")
        release, entry_points = installed.version, installed.read_text("entry_points.txt")
    except PackageNotFoundError:
        release, entry_points = "0", None
    contents = {name: file.read_bytes() for name, file in files.items()}
    if entry_points is not None:
        contents[f"parsec_rl-{release}.dist-info/entry_points.txt"] = entry_points.encode()
    return write_wheel(folder, "parsec_rl", release, contents)
