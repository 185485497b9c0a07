"""Folders on disk and in an object store behave alike; the store is a real S3 server in its own process."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from parsecrl.algorithms.checkpoints.agent import load_agent, save_agent
from parsecrl.algorithms.checkpoints.files import local_file
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.platform import cli
from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.storage import (
    RemotePath,
    access_checks,
    for_tune,
    location_of,
    object_store,
    remove_tree,
    upload,
    well_formed,
    writable_storage,
    write_atomically,
)
from tests.platform.commands import Commands


@pytest.fixture(params=["disk", "s3", "gs"])
def root(request, tmp_path):
    return tmp_path if request.param == "disk" else location_of(request.getfixturevalue(request.param))


def fill(root, *names):
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, name)


def test_what_is_written_can_be_read_listed_and_deleted(root):
    fill(root, "a/b/x.txt", "a/b/y.json", "a/c/x.txt", "top.txt")
    assert (root / "a" / "b" / "x.txt").read_text(encoding="utf-8") == "a/b/x.txt"
    assert (root / "a").is_dir()
    assert not (root / "a").is_file()
    assert (root / "top.txt").is_file()
    assert (root / "top.txt").exists()
    assert not (root / "none").exists()
    assert (root / "top.txt").stat().st_size == len("top.txt")
    assert abs((root / "top.txt").stat().st_mtime - time.time()) < 60
    assert sorted(p.name for p in root.iterdir()) == ["a", "top.txt"]
    assert sorted(str(p.relative_to(root)) for p in root.glob("*/*/x.txt")) == ["a/b/x.txt", "a/c/x.txt"]
    assert sorted(str(p.relative_to(root)) for p in root.glob("a/*")) == ["a/b", "a/c"]
    assert [p.name for p in root.glob("*.txt")] == ["top.txt"]
    (root / "top.txt").unlink()
    (root / "top.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "top.txt").unlink()
    with pytest.raises(FileNotFoundError):
        (root / "top.txt").read_text()
    with pytest.raises(FileNotFoundError):
        (root / "top.txt").stat()
    (root / "a").rename(root / "moved")
    assert not (root / "a" / "b" / "x.txt").exists()
    assert (root / "moved" / "c" / "x.txt").read_text() == "a/c/x.txt"
    remove_tree(root / "moved")
    assert not (root / "moved" / "c" / "x.txt").exists()
    remove_tree(root / "never-there")


def test_paths_have_parts(root):
    path = root / "phase" / "trial_0" / "checkpoint_000007"
    assert (path.name, path.parent.name, path.parent.parent.name) == ("checkpoint_000007", "trial_0", "phase")
    assert path == root / "phase/trial_0" / "checkpoint_000007"
    assert str(path.relative_to(root)) == "phase/trial_0/checkpoint_000007"
    assert str(path) == f"{root}/phase/trial_0/checkpoint_000007"
    assert (path / "agent.json").suffix == ".json"
    assert pickle.loads(pickle.dumps(path)) == path
    assert {path: 1}[root / "phase" / "trial_0" / "checkpoint_000007"] == 1


def test_readers_never_see_half_a_file(root):
    file, texts = root / "state.json", {"a" * 10, "b" * 300_000}
    write_atomically(file, "a" * 10)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        for text in texts:
            write_atomically(file, text)
    stop.set()
    reader.join()
    assert seen <= texts


def test_large_files_go_both_ways_in_pieces(root, tmp_path):
    data = np.random.default_rng(0).bytes(3 * object_store.CHUNK + 17)
    source = tmp_path / "source.bin"
    source.write_bytes(data)
    upload(source, root / "replay.npz")
    with local_file(root, "replay.npz") as copy:
        assert copy.read_bytes() == data
    with local_file(root, "none.npz") as copy:
        assert not copy.exists()


def test_what_breaks_off_leaves_nothing(store):
    root = location_of(store)
    _, filesystem = for_tune(root)

    def write():
        stream = filesystem.open_output_stream(str((root / "half").path))
        stream.write(b"x" * (2 * object_store.CHUNK))
        raise RuntimeError("a source that cannot be read")

    with pytest.raises(RuntimeError):
        write()
    assert not (root / "half").exists()


def test_tune_gets_a_file_system_that_holds_no_secret(s3, tmp_path):
    root = location_of(s3)
    path, filesystem = for_tune(root)
    assert path == s3.removeprefix("s3://")
    for_workers = pickle.dumps((root, filesystem))
    assert b"the-secret" not in for_workers
    assert b"127.0.0.1" not in for_workers

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(b"a" * 100)
    copy = pickle.loads(for_workers)[1]
    fs.copy_files(str(tmp_path / "in"), f"{path}/up", destination_filesystem=copy)
    (tmp_path / "out").mkdir()
    fs.copy_files(f"{path}/up", str(tmp_path / "out"), source_filesystem=copy)
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"a" * 100
    written = (root / "up" / "a.bin").stat().st_mtime
    time.sleep(1.1)  # times are whole seconds
    fs.copy_files(str(tmp_path / "in"), f"{path}/up", destination_filesystem=copy)
    assert (root / "up" / "a.bin").stat().st_mtime == written  # it was there already
    (root / "up" / "a.bin").unlink()
    fs.copy_files(str(tmp_path / "in"), f"{path}/up", destination_filesystem=copy)
    with copy.open_input_file(f"{path}/up/a.bin") as stream:
        assert stream.readall() == b"a" * 100


def test_an_outage_is_waited_for_and_a_longer_one_is_said(s3, s3_server, monkeypatch):
    file = location_of(s3) / "state.json"
    file.write_text("before")
    s3_server.process.send_signal(signal.SIGSTOP)
    threading.Timer(2.0, s3_server.process.send_signal, [signal.SIGCONT]).start()
    begin = time.monotonic()
    file.write_text("after")
    assert time.monotonic() - begin > 1.5
    assert file.read_text() == "after"

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("PARSEC_STORAGE_RETRY_S", "1.5")
    object_store._client.cache_clear()
    with pytest.raises(StorageUnreachable, match=r"s3://bucket could not be reached .*continues"):
        file.read_text()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/x", "must be a path .* got ftp://"),
        ("file://host/x", "must be a path"),
        ("s3://", "must name a bucket"),
        ("s3:///x", "must name a bucket"),
        ("s3://bucket/../x", "must name a bucket"),
        ("s3://key:hidden@bucket/x", "credentials and options belong into the environment"),
        ("s3://bucket/x?access_key=a&secret_key=hidden", "credentials and options belong into the environment"),
        ("https://key:hidden@host/x", "must be a path .* got https://"),
        ("s3://no-such-bucket/x", "there is no bucket 'no-such-bucket'"),
    ],
)
def test_bad_addresses_end_in_one_sentence(s3, address, message):
    with pytest.raises(UserError, match=message) as error:
        writable_storage(address)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "HOME": "/nonexistent"}, "no credentials .* set AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "the store does not answer"),
        ({"AWS_ENDPOINT_URL": "http://key:hidden@127.0.0.1:9"}, "AWS_ENDPOINT_URL must be http"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "AWS_ENDPOINT_URL must be http"),
        ({"PARSEC_STORAGE_RETRY_S": "5min"}, "PARSEC_STORAGE_RETRY_S must be a number of seconds"),
    ],
)
def test_a_bad_environment_ends_in_one_sentence(s3, variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(access_checks, "PATIENCE", 1.0)
    object_store._client.cache_clear()
    begin = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        writable_storage(s3)
    assert "hidden" not in str(error.value)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("endpoint", "address", "message"),
    [
        (None, "gs://bucket/x", "no credentials for gs://bucket/x; set GOOGLE_APPLICATION_CREDENTIALS"),
        ("http://127.0.0.1:9", "gs://bucket/x", "the store does not answer; see the network"),
        ("theirs", "gs://no-such-bucket/x", "there is no bucket 'no-such-bucket'"),
    ],
)
def test_what_is_wrong_with_googles_store_is_one_sentence(gs, endpoint, address, message, monkeypatch, tmp_path):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    if endpoint is None:
        monkeypatch.delenv(object_store.GCS_EMULATOR)
    elif endpoint != "theirs":
        monkeypatch.setenv(object_store.GCS_EMULATOR, endpoint)
    monkeypatch.setattr(access_checks, "PATIENCE", 1.0)
    object_store._client.cache_clear()
    begin = time.monotonic()
    with pytest.raises(UserError, match=message):
        writable_storage(address)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("profile", "key"),
    [
        ("aws_access_key_id = of-a-profile\naws_secret_access_key = secret\n", "of-a-profile"),
        (
            "credential_process = echo "
            """'{"Version": 1, "AccessKeyId": "of-a-program", "SecretAccessKey": "secret"}'\n""",
            "of-a-program",
        ),
    ],
)
def test_profiles_of_aws_are_read(s3, profile, key, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(f"[default]\nregion = eu-west-1\n[profile lab]\nregion = eu-north-1\n{profile}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    object_store._client.cache_clear()
    settings = object_store._aws_settings("bucket")
    assert settings["region"] == "eu-north-1"
    provided = settings["credential_provider"]() if "credential_provider" in settings else settings
    assert provided["access_key_id"] == key
    (writable_storage(s3) / "file").write_text("written")
    assert (location_of(s3) / "file").read_text() == "written"


@pytest.mark.parametrize(
    ("content", "setting"),
    [({"type": "authorized_user"}, "application_credentials"), ({"type": "external_account"}, "credential_provider")],
)
def test_googles_credentials_are_read_by_their_kind(content, setting, monkeypatch, tmp_path):
    monkeypatch.delenv(object_store.GCS_EMULATOR, raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert object_store.google_file() is None
    file = tmp_path / "application_default_credentials.json"
    file.write_text(json.dumps(content))
    assert list(object_store._google_settings()) == [setting]
    file.write_text("no JSON")
    with pytest.raises(ValueError, match="holds no credentials"):
        object_store._google_settings()


def test_keys_that_the_store_refuses_end_in_one_sentence(s3, s3_server):
    s3_server.ask_for_authentication(True)
    try:
        with pytest.raises(UserError, match=r"the store refuses \(InvalidAccessKeyId\)"):
            writable_storage(s3)
        with pytest.raises(StorageUnreachable, match=r"s3://bucket refuses .*the same command continues"):
            well_formed(s3).write_text("in the middle of a run")
    finally:
        s3_server.ask_for_authentication(False)
    writable_storage(s3)


def test_the_command_says_so_too(s3, capsys):
    for arguments in (
        ["run", "cheetah_run_quick", "--storage", "s3://no-such-bucket/x"],
        ["report", s3],
        ["evaluate", f"{s3}/x"],
    ):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_checkpoints_are_found_marked_pruned_and_forgotten(store):
    phase = location_of(store) / "planet"
    for number, score in enumerate([1.0, 5.0, 4.0, 3.0, 2.0, 1.0]):
        folder = phase / "trial_00000" / f"checkpoint_{number:06d}"
        (folder / "agent.json").write_text(json.dumps({"env_steps": number}))
        (folder / "weights" / "x.bin").write_text("x")
        if number != 5:  # cut short
            stored_checkpoints.mark_whole(folder, {stored_checkpoints.SCORE: score, "env_steps": number})
    assert [c.number for c in stored_checkpoints.stored_checkpoints(phase)] == [0, 1, 2, 3, 4]
    assert stored_checkpoints.best_checkpoint(phase).number == 1
    old = stored_checkpoints.KEEP_SECONDS
    try:
        stored_checkpoints.KEEP_SECONDS = -100.0  # as if a minute had passed
        stored_checkpoints.prune(phase, "trial_00000")
    finally:
        stored_checkpoints.KEEP_SECONDS = old
    assert {c.number for c in stored_checkpoints.stored_checkpoints(phase)} == {1, 2, 3, 4}
    assert not (phase / "trial_00000" / "checkpoint_000000" / "weights" / "x.bin").exists()
    stored_checkpoints.forget_after(phase / "trial_00000", 2)
    assert {c.number for c in stored_checkpoints.stored_checkpoints(phase)} == {1, 2}
    assert not list(phase.glob("trial_00000/checkpoint_000005/*"))


@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_run_in_googles_store_is_continued_and_reported(gs, tmp_path, request):
    small = ("updates_per_step=25", "checkpoint_every=1", "validate_every=25", "control_steps=5")
    commands = Commands()  # whose environment leads to the store
    request.addfinalizer(commands.end)

    def parsec(*words):
        done = commands.parsec(tmp_path, *words)
        assert done.code == 0, done.err[-3000:]
        return done.out

    for end in (50, 75):
        changes = [f"--set=phases.embedding.{change}" for change in (*small, f"stop.num_updates={end}")]
        assert f"report: {gs}/cartpole_embedding_quick/report" in parsec(
            "run", "cartpole_embedding_quick", "--storage", gs, *changes
        )
    run = location_of(gs) / "cartpole_embedding_quick"
    for file in run.glob("embedding/*/result.json"):
        assert [json.loads(line)["num_updates"] for line in file.read_text().splitlines()] == [25, 50, 75]
    assert len(list(run.glob("embedding/*/result.json"))) == 2
    assert "embedded DCEM, 2" in parsec("report", f"{gs}/cartpole_embedding_quick")
    assert not (run / ".lease").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_phase_starts_from_a_checkpoint_in_a_store(s3, tmp_path):
    from tests.planet.small import FULL, small_config

    first = small_config(controller=FULL).build_algo()
    first.train()
    folder = location_of(s3) / "checkpoint_000001"
    for file in Path(first.save_to_path(str(tmp_path / "checkpoint"))).rglob("*"):
        if file.is_file():
            upload(file, folder / str(file.relative_to(tmp_path / "checkpoint")))
    kept = first.current_agent().state_dict()
    first.stop()
    second = small_config(start_from=folder).build_algo()
    own = second.current_agent().state_dict()
    assert all((kept[name] == own[name]).all() for name in kept if name.startswith("model."))
    assert second.local_replay_buffer.get_num_timesteps() > 0
    second.stop()


def test_an_agent_is_read_from_a_store(store, tmp_path):
    model = {"deterministic_size": 8, "stochastic_size": 4, "hidden_size": 8}
    controller = {"kind": "full", "horizon": 3, "num_samples": 8, "num_elites": 2, "num_iterations": 2}
    agent = PlanningAgent(3, 1, model, controller, {})
    save_agent(tmp_path, agent, {"world_model": model, "controller": controller, "decoder": {}})
    folder = location_of(store) / "checkpoint_000001"
    for file in list(tmp_path.iterdir()):
        upload(file, folder / file.name)
    found, description = load_agent(folder)
    assert description["obs_size"] == 3
    assert all((value == agent.state_dict()[name]).all() for name, value in found.state_dict().items())
    with pytest.raises(ValueError, match=r"://bucket/.*/none holds no readable agent.json;"):
        load_agent(folder / "none")


def test_a_config_is_pickled_with_an_address_and_no_secret(s3):
    from tests.planet.small import small_config

    config = small_config(start_from=location_of(s3) / "checkpoint_000001")
    pickled = pickle.dumps(config)
    assert pickle.loads(pickled).start_from == config.copy().to_dict()["start_from"] == config.start_from
    assert b"the-secret" not in pickled
    assert b"127.0.0.1" not in pickled


def test_an_address_is_no_folder_to_an_algorithm():
    with (
        pytest.raises(ValueError, match="read from a local folder, got s3://bucket/x"),
        local_file("s3://bucket/x", "a"),
    ):
        pass


def test_a_remote_path_is_no_local_one():
    with pytest.raises(ValueError):
        RemotePath("runs/here")


UNDER_A_UMASK = """
import os, sys
from parsecrl.platform.errors import UserError
from parsecrl.platform.storage import writable_storage
os.getuid() or os.setuid(65534)  # nothing keeps root from writing
os.umask(int(sys.argv[2], 8))
try:
    print(writable_storage(sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("umask", ["777", "077", "000"])
def test_a_umask_that_forbids_to_write_is_found_before_a_run(umask):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # in which another user may look
        os.chmod(folder, 0o777)
        command = [sys.executable, "-c", UNDER_A_UMASK, f"{folder}/runs", umask]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert os.listdir(folder) == []
    refused = f"the storage path {folder}/runs cannot be written (Permission denied: "
    refused += "see the folder's rights and the umask); give --storage a folder that can"
    assert said == (refused if umask == "777" else f"{folder}/runs")
