"""Who may write into a run folder: one process at a time.

On disk a file lock, which ends with the process. An object store has none: there a lease, an object that its owner
writes again every few seconds and that expires when it stops. Ages are differences of the store's own times, so that
clocks need not agree.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import filelock

from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError
from parsecrl.platform.storage.object_store import Conflict, ObjectStore, store_of
from parsecrl.platform.storage.remote_path import RemotePath

LOCK_FILE, LEASE_FILE = ".lock", ".lease"
RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0  # as long as an outage of the store may keep its owner from renewing it


def lock_of(folder: Path | RemotePath) -> FileLock | Lease:
    """What keeps a run folder for one process.

    Args:
        folder: On disk it exists.

    Returns:
        A file's lock on disk, a lease in a store.
    """
    return Lease(folder) if isinstance(folder, RemotePath) else FileLock(folder)


class FileLock:
    """flock on a file in the folder.

    Args:
        folder: An existing one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = filelock.FileLock(folder / LOCK_FILE, blocking=False, thread_local=False)

    def check(self) -> None:
        """Raise UserError when another process has the folder."""
        if (self.folder / LOCK_FILE).exists():
            self.take()
            self.release()

    def still_held(self) -> None:
        """It cannot be lost while the process lives."""

    confirm = still_held

    def take(self) -> None:
        """Take the folder. Raises UserError where another process has it, or it cannot be locked."""
        try:
            self.lock.acquire()
        except filelock.Timeout:
            raise _in_use(self.folder) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"the run folder {self.folder} cannot be locked ({reason}); give another --storage"
            ) from None

    def release(self) -> None:
        """Let other processes have the folder."""
        self.lock.release()


class Lease:
    """An object {token, host, pid, since, beat}, renewed by a thread.

    Whoever writes it names the version that it replaces, and the store refuses a write that comes too late: of two
    processes that take it in the same moment one has it, and an owner that lost it cannot renew it. A store that does
    not know such writes is found out at the start. There the later writer has it: each looks again after a second, and
    before every renewal, and the other one ends.

    Args:
        folder: Of the run, in a store.
    """

    def __init__(self, folder: RemotePath):
        self.folder, self.file = folder, folder / LEASE_FILE
        self.token = uuid.uuid4().hex
        self.content = {
            "token": self.token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        }
        self.conditional = True  # whether the store refuses writes that come too late
        self.version: dict[str, str] | None = None  # of the lease as this one wrote it last
        self.beat = 0
        self.ended = threading.Event()
        self.renewing = threading.Lock()
        self.thread: threading.Thread | None = None
        self.taken_by: dict[str, Any] | None = None
        self.renewed = -math.inf  # when this one last wrote it, by this machine's clock

    def check(self) -> None:
        """Wait for the lease of a run that died to expire. Raises UserError when its run is alive."""
        self._expired()

    def _expired(self) -> dict[str, str] | None:
        """`check`. The version of the lease that may be replaced; None where there is none."""
        told = False
        begin = time.monotonic()
        first, _ = self._read()
        while True:
            lease, version = self._read()
            alive = None if lease is None else _is_alive(lease)
            if lease is None or lease.get("token") == self.token or alive is False:
                return version
            age = self._age()
            if alive is None and age >= EXPIRY_SECONDS:
                return version
            renewed = first is not None and any(lease.get(key) != first.get(key) for key in ("beat", "token"))
            if alive or renewed:
                raise _in_use(self.folder, f" ({_owner(lease)})")
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
        """Have it, or raise UserError. Waits as `check` does."""
        expired = self._expired()
        self.conditional = self._refuses_late_writes()
        if not self._write(expired, self.file.store):
            raise _in_use(self.folder, f" ({_owner(self.taken_by or {})})")
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
        """As `still_held`, but renews the lease first where it may have expired since it was last renewed.

        For what must not be written over another's: a process that stood still has not been told yet.
        """
        if time.monotonic() - self.renewed > EXPIRY_SECONDS - RENEW_SECONDS:
            with self.renewing:
                self._write(self.version, self.file.store)
        self.still_held()

    def release(self) -> None:
        """Never raises for a store that is away: the lease then expires."""
        if self.thread is None:
            return
        self.ended.set()
        self.thread.join()
        self.thread = None
        try:
            if self._write(self.version, self._impatient):  # so that nobody takes it before it is deleted
                self._impatient.delete([self.file.key])
        except OSError:
            pass

    def _renew(self) -> None:
        while not self.ended.wait(RENEW_SECONDS):
            try:
                with self.renewing:
                    if not self._write(self.version, self._impatient):
                        return
            except OSError:  # the store is away: once more
                continue

    @property
    def _impatient(self) -> ObjectStore:
        """For what is done at intervals anyway, and for what nobody shall wait for at the end."""
        return store_of(self.file.scheme, self.file.bucket, RENEW_SECONDS)

    def _write(self, replaced: dict[str, str] | None, store: ObjectStore) -> bool:
        """Write the lease in place of that version, or where there is none (None). False where another one has it."""
        if self.taken_by is not None:
            return False
        self.beat += 1
        content = json.dumps({**self.content, "beat": self.beat}).encode()
        if not self.conditional:
            return self._write_as_last(content, store)
        try:
            self.version = store.write(self.file.key, content, mode=replaced or "create")
        except (*Conflict, FileNotFoundError):
            # Or it was written, and the answer was lost: then the attempt after it is the one that came too late.
            found, self.version = self._read(store)
            if found is None or found.get("token") != self.token:
                self.taken_by = found or {}
                return False
        self.renewed = time.monotonic()
        return True

    def _write_as_last(self, content: bytes, store: ObjectStore) -> bool:
        if self.version is not None and not self._is_own(store):
            return False
        self.version = store.write(self.file.key, content)
        if self.beat == 1:
            time.sleep(1.0)  # another one that saw the folder free in the same moment has written by now
            if not self._is_own(store):
                return False
        self.renewed = time.monotonic()
        return True

    def _is_own(self, store: ObjectStore) -> bool:
        found, _ = self._read(store)
        if found is None or found.get("token") != self.token:
            self.taken_by = found or {}
        return self.taken_by is None

    def _refuses_late_writes(self) -> bool:
        """Whether the store knows conditional writes; some overwrite all the same, some refuse the condition."""
        probe, store = self.folder / f".probe-{self.token}", self.file.store
        try:
            first = store.write(probe.key, b"1", mode="create")
            if not first:  # it tells no version
                return False
            store.write(probe.key, b"2", mode=first)
            for late in ("create", first):
                try:
                    store.write(probe.key, b"3", mode=late)
                except Conflict:
                    continue
                return False
        except Conflict:  # the answer to an earlier attempt was lost
            return True
        except StorageUnreachable as error:
            if error.code not in {"NotImplemented", "Not Implemented", "InvalidArgument", "InvalidRequest"}:
                raise
            return False
        finally:
            store.delete([probe.key])
        return True

    def _read(self, store: ObjectStore | None = None) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
        """What the lease says, and its version; of one that is none, None."""
        try:
            text, version = (store or self.file.store).read(self.file.key)
        except FileNotFoundError:
            return None, None
        try:
            lease = json.loads(text)
        except ValueError:
            lease = {}
        return (lease if isinstance(lease, dict) else {}), version

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


def _in_use(folder: Path | RemotePath, by: str = "") -> UserError:
    return UserError(f"{folder} is in use by another parsec run{by}; wait for it to end, or give another --name")


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
