"""One process at a time writes into a run folder in a store: its lease, in all that may befall it."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec
from parsecrl.platform.storage import location_of, lock, object_store


@pytest.fixture
def fast(monkeypatch):
    # Stores tell times in whole seconds: a lease looks up to a second older than what its owner's clock says.
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1.2)
    monkeypatch.setattr(lock, "EXPIRY_SECONDS", 3.0)


@pytest.fixture(params=["conditional", "last writer"])
def rule(request, monkeypatch):
    """Stores that know conditional writes, and those that do not."""
    if request.param == "last writer":
        monkeypatch.setattr(lock.Lease, "_refuses_late_writes", lambda self: False)
    return request.param


def seize(lease):
    """Write it over whatever is there, as no lease does."""
    lease.file.write_text(json.dumps({**lease.content, "beat": 0}))


def test_a_write_that_comes_too_late_is_refused(store):
    file = location_of(store) / "lease"
    first = file.store.write(file.key, b"first", mode="create")
    with pytest.raises(object_store.Conflict):
        file.store.write(file.key, b"second", mode="create")
    assert file.store.read(file.key) == (b"first", first)
    renewed = file.store.write(file.key, b"renewed", mode=first)
    with pytest.raises(object_store.Conflict):
        file.store.write(file.key, b"stale", mode=first)
    assert file.store.read(file.key) == (b"renewed", renewed)


def test_a_store_is_found_to_refuse_late_writes_or_not(store, monkeypatch):
    lease = lock.Lease(location_of(store))
    assert lease._refuses_late_writes()
    write = object_store.ObjectStore.write
    # Stores that leave the conditions unread, all of them or one of the two kinds.
    for unread in ({"create", "a version"}, {"create"}, {"a version"}):

        def careless(self, key, data, mode="overwrite", unread=unread):
            return write(
                self, key, data, "overwrite" if (mode if mode == "create" else "a version") in unread else mode
            )

        monkeypatch.setattr(object_store.ObjectStore, "write", careless)
        assert not lease._refuses_late_writes()
    assert not [file for file in lease.folder.iterdir() if file.name.startswith(".probe")]


@pytest.mark.parametrize("dead", [False, True])
def test_one_of_those_who_race_for_a_lease_has_it(store, fast, dead):
    folder = location_of(store)
    if dead:  # they all wait for it to expire
        before = lock.Lease(folder)
        before.content |= {"machine": "another"}
        seize(before)
    racers, refused, start = [lock.Lease(folder) for _ in range(4)], [], threading.Barrier(4)

    def race(lease):
        start.wait()
        try:
            lease.take()
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=race, args=(lease,)) for lease in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [lease for lease in racers if lease.thread is not None]
    assert len(refused) == 3
    assert all(f"in use by another parsec run (process {os.getpid()} on" in text for text in refused)
    assert winner._read()[0]["token"] == winner.token
    winner.confirm()
    winner.release()
    assert not winner.file.exists()


def test_who_stood_still_for_too_long_can_neither_renew_nor_write(store, fast, monkeypatch):
    spec = load_spec("cheetah_run_quick")
    first = RunFolder.choose(spec, store)
    first._lock.content |= {"machine": "another"}
    first.open()
    first._lock.ended.set()  # its thread ends, as one that a SIGSTOP holds
    first._lock.thread.join()
    second = RunFolder.choose(spec, store)  # waits for the lease to expire
    second.open()
    with pytest.raises(RunFailed, match="taken over"):
        first.record("planet", {"status": "running"})
    assert first._lock._write(first._lock.version, first._lock.file.store) is False
    first.close()
    assert second._lock._read()[0]["token"] == second._lock.token
    second.record("planet", {"status": "running"})
    second.close()


def test_a_renewal_whose_answer_was_lost_counts(store, fast):
    mine = lock.Lease(location_of(store))
    mine.take()
    with mine.renewing:
        before = mine.version
        seize(mine)  # what arrived without an answer
        assert mine._write(before, mine.file.store)
    mine.confirm()
    time.sleep(2 * lock.RENEW_SECONDS)
    mine.still_held()
    mine.release()
    assert not mine.file.exists()


def test_a_run_in_a_store_has_one_owner(store, rule, fast, capsys):
    spec = load_spec("cheetah_run_quick")
    first = RunFolder.choose(spec, store)
    first.open()
    with pytest.raises(UserError, match=rf"in use by another parsec run \(process {os.getpid()} on "):
        RunFolder.choose(spec, store)
    first.close()
    assert not (first.path / lock.LEASE_FILE).exists()
    second = RunFolder.choose(spec, store)
    second.open()
    second.close()


def test_the_lease_of_another_machine_is_waited_for(store, rule, fast, capfd):
    folder = location_of(store)
    dead = lock.Lease(folder)
    dead.content |= {"machine": "another", "host": "node7"}
    seize(dead)
    mine = lock.Lease(folder)
    mine.take()
    assert "node7" in capfd.readouterr().err
    mine.release()

    alive = lock.Lease(folder)
    alive.content |= {"machine": "another", "host": "node8"}
    alive.take()
    with pytest.raises(UserError, match=r"in use .*node8"):
        mine.check()
    # Taken over all the same, as after an outage longer than the lease: the first one notices, and ends.
    seize(mine)
    alive.thread.join(timeout=10)
    with pytest.raises(RunFailed, match="taken over"):
        alive.still_held()
    alive.release()
    assert mine._read()[0]["token"] == mine.token


def test_a_process_that_stood_still_asks_before_it_records(store, rule, monkeypatch):
    monkeypatch.setattr(lock, "EXPIRY_SECONDS", 2.0)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1.0)
    first = RunFolder.choose(load_spec("cheetah_run_quick"), store)
    first.open()
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1000.0)  # its thread's next turn is far away, as after a SIGSTOP
    time.sleep(1.5)
    other = lock.Lease(first.path)
    seize(other)
    monkeypatch.setattr(lock, "EXPIRY_SECONDS", -2000.0)
    first.check_lock()  # nobody has told it
    with pytest.raises(RunFailed, match="taken over"):
        first.record("planet", {"status": "running"})
    assert not (first.path / "state.json").exists()
    first.close()
    assert other._read()[0]["token"] == other.token


def test_a_lease_is_given_up_without_its_store(s3, fast, monkeypatch):
    mine = lock.Lease(location_of(s3))
    mine.take()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    object_store._client.cache_clear()
    begin = time.monotonic()
    mine.release()
    assert time.monotonic() - begin < 30  # not PARSEC_STORAGE_RETRY_S


def test_a_process_that_was_killed_holds_nothing(store, fast):
    code = (
        "import sys, time; from parsecrl.platform.storage import lock, well_formed;"
        "lock.Lease(well_formed(sys.argv[1])).take(); print('taken', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, store], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "taken\n"
    mine = lock.Lease(location_of(store))
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        mine.check()
    process.kill()
    process.wait()
    begin = time.monotonic()
    mine.take()
    assert time.monotonic() - begin < lock.EXPIRY_SECONDS
    mine.release()
