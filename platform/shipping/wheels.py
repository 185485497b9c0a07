"""Wheels whose names hold a hash of their contents, made with nothing but the standard library.

Ray takes wheels of one name for the same, and would run the older. They name no dependencies: those are part of the
cluster's image, and pip on a node must not look for torch.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from parsecrl.platform.errors import UserError

LIMIT = 100 * 2**20  # bytes; what a head takes in one upload (ray 2.60, DASHBOARD_CLIENT_MAX_SIZE)
LARGEST = 3  # files that are named when the limit is passed
EPOCH = (2020, 1, 1, 0, 0, 0)  # of every file in the wheel: the same files make the same wheel
ANY_PYTHON = "py3-none-any"


def check_size(sizes: Mapping[str, int], what: str, limit: int = LIMIT) -> None:
    """See that a head takes some files.

    Args:
        sizes: Bytes by name.
        what: They are, for the message.
        limit: Bytes that they may be in all.

    Raises:
        UserError: They are more: the largest are named.
    """
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    named = ", ".join(f"{name} ({_megabytes(sizes[name])})" for name in largest)
    raise UserError(
        f"{what} would be {_megabytes(total)} and a Ray head takes {_megabytes(limit)}; "
        f"the largest files are {named}; move what is not code elsewhere"
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def digest_of(contents: Mapping[str, bytes]) -> str:
    """A hash of names and contents.

    Args:
        contents: By name, in any order.

    Returns:
        SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256()
    for name, data in sorted(contents.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def write_wheel(
    folder: Path,
    distribution: str,
    release: str,
    contents: Mapping[str, bytes],
    more: Mapping[str, bytes] | None = None,
    tag: str = ANY_PYTHON,
) -> Path:
    """Write a wheel of `contents` into `folder`; its build tag holds their hash.

    Args:
        folder: An existing one.
        distribution: As in the wheel's name: no `-`.
        release: As in the wheel's name.
        contents: By their names in the wheel. METADATA is made where it is missing.
        more: Others, which the hash leaves aside.
        tag: Of Pythons and machines that take the wheel.

    Returns:
        The file.
    """
    info = f"{distribution}-{release}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: {release}\n"
    described = f"Wheel-Version: 1.0\nGenerator: parsecrl\nRoot-Is-Purelib: true\n{_tag_lines(tag)}"
    files = {f"{info}/METADATA": metadata.encode(), **contents, **(more or {}), f"{info}/WHEEL": described.encode()}
    record = io.StringIO()
    rows = [(name, _record_hash(data), len(data)) for name, data in sorted(files.items())]
    csv.writer(record, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
    files[f"{info}/RECORD"] = record.getvalue().encode()
    path = folder / f"{distribution}-{release}-0{digest_of(contents)[:16]}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in sorted(files.items()):
            wheel.writestr(zipfile.ZipInfo(name, EPOCH), data, compress_type=zipfile.ZIP_DEFLATED)
    return path


def _tag_lines(tag: str) -> str:
    pythons, abis, machines = (part.split(".") for part in tag.split("-"))
    return "".join(f"Tag: {p}-{a}-{m}\n" for p in pythons for a in abis for m in machines)


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
