"""Which own code a run began with, and a copy of each: a run goes on with the same code, or is told otherwise.

`own_code.json` lists, in order, what the run went on with from when on; the copies are the wheels in `own_code/`.
Nothing is ever taken from a run folder by itself: its copies are run where --code names them.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from parsecrl.platform.errors import UserError
from parsecrl.platform.shipping import own_code
from parsecrl.platform.storage import Location, RemotePath, upload, write_atomically

FILE, FOLDER = "own_code.json", "own_code"
NAMED = 5  # files of each kind in a message


def check_unchanged(folder: Location) -> None:
    """See that this process was given the code that a run went on with last.

    Args:
        folder: Of the run.

    Raises:
        UserError: It was given other code, or none.
    """
    before, now = _recorded(folder), own_code.on_path()
    if [code["hash"] for code in before] == [code.digest for code in now]:
        return
    copies = " ".join(f"--code {folder / FOLDER / code['wheel']}" for code in before)
    names = ", ".join(code["name"] for code in before)
    other = "--new-code to go on {}, or --fresh for a new folder"
    if not now:
        raise UserError(
            f"{folder} was begun with --code {names}; give it again (a copy: {copies}), {other.format('without')}"
        )
    given = own_code.described(now)
    if not before:
        raise UserError(f"{folder} was begun without --code {given}; leave it out, give {other.format('with it')}")
    changes = _changes({k: v for code in before for k, v in code["files"].items()}, now)
    raise UserError(
        f"the code of {folder} has changed ({changes}); give the code that it began with ({copies}), "
        f"{other.format('with the new code')}"
    )


def write(folder: Location) -> None:
    """Record the code that this process was given, where it differs from what was recorded, and keep a copy.

    Args:
        folder: Of the run.
    """
    codes = own_code.on_path()
    if [code["hash"] for code in _recorded(folder)] == [code.digest for code in codes]:
        return
    target, entries = folder / FOLDER, []
    target.mkdir(parents=True, exist_ok=True)
    for code in codes:
        with tempfile.TemporaryDirectory(dir=None if isinstance(target, RemotePath) else target) as scratch:
            wheel = code.wheel(Path(scratch))
            upload(wheel, target / wheel.name)
        entries.append({"name": code.name, "hash": code.digest, "wheel": wheel.name, "files": code.hashes})
    stage = {"since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "code": entries}
    write_atomically(folder / FILE, json.dumps([*_stages(folder), stage], indent=1))


def _stages(folder: Location) -> list[dict[str, Any]]:
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def _recorded(folder: Location) -> list[dict[str, Any]]:
    stages = _stages(folder)
    return stages[-1]["code"] if stages else []


def _changes(old: dict[str, str], now: list[own_code.OwnCode]) -> str:
    """The files that changed, came and went; an order of the same code that changed has none."""
    new = {name: value for code in now for name, value in code.hashes.items()}
    kinds = {
        "changed": [name for name in new if name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    return "; ".join(f"{kind}: {_first(names)}" for kind, names in kinds.items() if names) or "its order"


def _first(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(sorted(names)[:NAMED]) + (f" and {more} more" if more > 0 else "")
