"""Who may write into a run folder: one process at a time.

On disk a file lock, which ends with the process. An object store has none: there a lease, an object that its owner
writes again every few seconds and that expires when it stops. Ages are differences of the store's own times, so that
clocks need not agree.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.storage import Location, RemotePath

if TYPE_CHECKING:
    from parsecrl.algorithms.object_store import RetryingHandler

LOCK_FILE, LEASE_FILE = ".lock", ".lease"
RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0  # as long as an outage of the store may keep its owner from renewing it


def lock_of(folder: Location) -> FileLock | Lease:
    return Lease(folder) if isinstance(folder, RemotePath) else FileLock(folder)


class FileLock:
    """flock on a file in the folder, which exists."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file: IO[str] | None = None

    def check(self) -> None:
        """Raise UserError when another process has the folder."""
        if (self.folder / LOCK_FILE).exists():
            self.take()
            self.release()

    def still_held(self) -> None:
        """It cannot be lost while the process lives."""

    confirm = still_held

    def take(self) -> None:
        try:
            self.file = (self.folder / LOCK_FILE).open("a+")
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UserError(
                f"{self.folder} is in use by another parsec run; wait for it to end, or give another --name"
            ) from None
        except OSError as error:
            self.release()
            raise UserError(
                f"the run folder {self.folder} cannot be locked ({error.strerror or error}); give another --storage"
            ) from None

    def release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class Lease:
    """An object {token, host, pid, since}, renewed by a thread.

    Object stores differ in what they offer against two writers at once; this uses reads and writes alone. Of two
    processes that take it in the same moment the later writer has it: each looks again after a second, and at every
    renewal, and the other one ends.
    """

    def __init__(self, folder: RemotePath):
        self.folder, self.file = folder, folder / LEASE_FILE
        self.token = uuid.uuid4().hex
        self.content = json.dumps(
            {
                "token": self.token,
                "host": socket.gethostname(),
                "machine": _machine(),
                "pid": os.getpid(),
                "started": _started(os.getpid()),
                "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            }
        )
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.taken_by: dict[str, Any] | None = None
        self.renewed = -math.inf  # when it was last seen to be ours, by this machine's clock

    def check(self) -> None:
        """Wait for the lease of a run that died to expire. Raises UserError when its run is alive."""
        told = False
        begin = time.monotonic()
        first = self._read()
        while (lease := self._read()) is not None:
            alive = _is_alive(lease)
            if lease.get("token") == self.token or alive is False:
                return
            age = self._age()
            if alive is None and age >= EXPIRY_SECONDS:
                return
            renewed = first is not None and any(lease.get(key) != first.get(key) for key in ("beat", "token"))
            if alive or renewed:
                raise UserError(
                    f"{self.folder} is in use by another parsec run ({_owner(lease)}); "
                    f"wait for it to end, or give another --name"
                )
            if not told:
                told = True
                print(
                    f"{self.folder} was in use {age:.0f} s ago by {_owner(lease)}: waiting for up to "
                    f"{EXPIRY_SECONDS - age:.0f} s to see whether that run is alive",
                    file=sys.stderr,
                    flush=True,
                )
            first = first or lease
            if time.monotonic() - begin > 3 * EXPIRY_SECONDS:
                raise UserError(f"the lease {self.file} does not expire; delete it if no run uses the folder")
            time.sleep(1.0)

    def take(self) -> None:
        self.check()
        found = self._read()
        if found is None or found.get("token") != self.token:
            self._write(0)
            time.sleep(1.0)  # another one that saw the folder free in the same moment has written by now
            found = self._read()
        if found is None or found.get("token") != self.token:
            raise UserError(
                f"{self.folder} is in use by another parsec run ({_owner(found or {})}); "
                f"wait for it to end, or give another --name"
            )
        self.renewed = time.monotonic()
        self.ended.clear()
        self.thread = threading.Thread(target=self._renew, name="parsec-lease", daemon=True)
        self.thread.start()

    def still_held(self) -> None:
        """Raise RunFailed when another process has taken it, which it may after an outage of the store."""
        if self.taken_by is not None:
            raise RunFailed(
                f"{self.folder} was taken over by another parsec run ({_owner(self.taken_by)}) while this one could "
                f"not renew its lease; that one continues it"
            )

    def confirm(self) -> None:
        """As `still_held`, but looks at the store where the lease may have expired since it was last renewed.

        For what must not be written over another's: a process that stood still has not been told yet.
        """
        if time.monotonic() - self.renewed > EXPIRY_SECONDS - RENEW_SECONDS:
            self._look(self.file.handler)
        self.still_held()

    def release(self) -> None:
        """Never raises for a store that is away: the lease then expires."""
        if self.thread is None:
            return
        self.ended.set()
        self.thread.join()
        self.thread = None
        with contextlib.suppress(OSError):
            if self._look(self._impatient):
                self._impatient.delete_file(self.file.key)

    def _renew(self) -> None:
        beat = 0
        while not self.ended.wait(RENEW_SECONDS):
            beat += 1
            try:
                if not self._look(self._impatient):
                    return
                self._write(beat, self._impatient)
                self.renewed = time.monotonic()
            except OSError:  # the store is away: once more
                continue

    def _look(self, handler: RetryingHandler) -> bool:
        """Whether the lease in the store is this one."""
        found = self._read(handler)
        if found is None or found.get("token") != self.token:
            self.taken_by = found or {}
        return self.taken_by is None

    @property
    def _impatient(self) -> RetryingHandler:
        """For what is done at intervals anyway, and for what nobody shall wait for at the end."""
        from parsecrl.algorithms.object_store import handler_of

        return handler_of(self.file.scheme, self.file.bucket, RENEW_SECONDS)

    def _write(self, beat: int, handler: RetryingHandler | None = None) -> None:
        content = json.dumps({**json.loads(self.content), "beat": beat})
        (handler or self.file.handler).upload(io.BytesIO(content.encode()), self.file.key)

    def _read(self, handler: RetryingHandler | None = None) -> dict[str, Any] | None:
        try:
            lease = json.loads((handler or self.file.handler).read(self.file.key))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return lease if isinstance(lease, dict) else {}

    def _age(self) -> float:
        """Seconds since the lease was written, by the store's clock."""
        clock = self.folder / f".clock-{self.token}"
        clock.write_text("")
        try:
            now = clock.stat().st_mtime
        finally:
            clock.unlink(missing_ok=True)
        try:
            return now - self.file.stat().st_mtime
        except FileNotFoundError:
            return EXPIRY_SECONDS


def _owner(lease: dict[str, Any]) -> str:
    return f"process {lease.get('pid', '?')} on {lease.get('host', '?')}, since {lease.get('since', '?')}"


def _machine() -> str:
    """What process numbers refer to: this boot of this machine, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {socket.gethostname()}"
    except OSError:
        return uuid.uuid4().hex


def _is_alive(lease: dict[str, Any]) -> bool | None:
    """Whether the owner still runs, where that can be seen: None for one on another machine."""
    if lease.get("machine") != _machine() or not isinstance(lease.get("pid"), int):
        return None
    return _started(lease["pid"]) == lease.get("started")


def _started(pid: int) -> str | None:
    """When a process of this machine began, in clock ticks since the boot; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # what comes before is the program's name
    return None if state in "ZX" else fields[18]
