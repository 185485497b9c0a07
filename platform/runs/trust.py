"""Whose run folder it is: continuing a run unpickles what Tune and RLlib stored, which runs code of who wrote it.

A run folder holds a record that only the holder of a key can make; the key is a file of this user's. So a folder that
was downloaded or handed over is known as such. It is no seal on the contents: who can write into a folder of yours can
change its pickles (docs/security.md).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import json
import os
import secrets
import socket
import tempfile
from importlib.metadata import version
from pathlib import Path

from parsecrl.platform.errors import UserError
from parsecrl.platform.storage import Location

RECORD = "made_by.json"
LAYOUT = 2  # of a run folder and of what is pickled in it; others are refused
KEY_VARIABLE = "PARSEC_KEY_FILE"


def new_record() -> dict[str, str | int]:
    """Who makes a run folder here. Without a key that can be kept, no one can prove to have made it."""
    run, key = secrets.token_hex(16), _key(make=True)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    made: dict[str, str | int] = {"layout": LAYOUT, "version": version("parsec-rl")}
    return {**made, "user": user, "host": socket.gethostname(), "run": run, "mark": _mark(key, run) if key else ""}


def record_in(folder: Location) -> str | None:
    """The text of a run folder's record.

    Args:
        folder: Of the run.

    Returns:
        JSON; None where there is none that can be read as text.
    """
    file = folder / RECORD
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError:
        return None


def check_layout(folder: Location, shown: object = None) -> None:
    """See that this version reads a run folder.

    Args:
        folder: Of the run; one without a record is not judged.
        shown: What the message calls it; None: its place.

    Raises:
        UserError: The folder has another layout: which version reads it.
    """
    record = record_in(folder)
    if record is None:
        return
    try:
        found = json.loads(record)
        layout, release = int(found.get("layout", 1)), str(found.get("version", "before 0.1.0"))
    except (ValueError, TypeError, AttributeError):
        return
    if layout != LAYOUT:
        raise UserError(
            f"{shown or folder} has the layout {layout} of parsec-rl {release}, this version reads layout {LAYOUT}; "
            f"use parsec-rl {release} for it, or start over with --fresh"
        )


def is_own(record: str | None) -> bool:
    """Whether a record was made with the key of this user.

    Args:
        record: Its text.

    Returns:
        False of no record, of one of somebody else, and where this user has no key.
    """
    try:
        found = json.loads(record or "{}")
        run, mark = str(found["run"]), str(found["mark"])
    except (ValueError, KeyError, TypeError):
        return False
    key = _key()
    return key is not None and hmac.compare_digest(mark.encode(), _mark(key, run).encode())


def is_unsigned(record: str | None) -> bool:
    """Whether a record was made without a key.

    Args:
        record: Its text.

    Returns:
        False where there is no record that can be read.
    """
    try:
        return not json.loads(record or "{}")["mark"]
    except (ValueError, KeyError, TypeError):
        return False


def maker(record: str | None) -> str:
    """Who made a run, for a message: it is what the record says, true or not.

    Args:
        record: Its text.

    Returns:
        "user on host", of 80 characters at most.
    """
    try:
        found = json.loads(record or "{}")
        return f"{found['user']} on {found['host']}"[:80]
    except (ValueError, KeyError, TypeError):
        return "somebody unknown"


def key_file() -> Path:
    """$PARSEC_KEY_FILE, or parsecrl/key in this user's folder for configurations. Raises OSError without a home."""
    given = os.environ.get(KEY_VARIABLE)
    try:
        if given:
            return Path(given).expanduser()
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "parsecrl" / "key"
    except RuntimeError as error:  # a user without a home
        raise FileNotFoundError(str(error)) from None


def why_unsigned() -> str:
    """Why there is no key of this user's, as one sentence with the remedy; empty where there is one."""
    try:
        if _read_key(make=True):
            return ""
        reason = "the key is empty"
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.strerror else str(error).rstrip(".")
    return (
        f"this run cannot be marked as yours ({reason}), and will need --trust to go on after an interruption; set "
        f"{KEY_VARIABLE} to a file that can be written, and give --fresh, to do without"
    )


def _key(*, make: bool = False) -> bytes | None:
    try:
        return _read_key(make)
    except OSError:
        return None


def _read_key(make: bool) -> bytes | None:
    file = key_file()
    if make and not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(file)
    return file.read_bytes() or None


def _write_new(file: Path) -> None:
    """A key that only this user can read, there as a whole or not at all; where another process was faster, its key."""
    descriptor, unfinished = tempfile.mkstemp(dir=file.parent)  # mode 0600
    try:
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, file)
    finally:
        os.unlink(unfinished)


def _mark(key: bytes, run: str) -> str:
    return hmac.new(key, b"parsecrl run " + run.encode(), hashlib.sha256).hexdigest()
