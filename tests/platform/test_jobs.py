"""A run as a Ray job on a head of its own, with token authentication; and what is refused before anything is sent."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from parsecrl.platform import cli
from parsecrl.platform.submission import head as heads
from parsecrl.platform.submission import watching
from tests.platform.own_code_files import EXAMPLE, example_wheel_in, write_lab
from tests.platform.tiny import PLANET

TOKEN = "5a1b3e5c7f9d4e2b8c6a0f1e2d3c4b5a"
SPEC = (
    """
name: small
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 1}
runtime: {env_vars: {PARSEC_TEST_VARIABLE: "a $(touch pwned) 'b'"}}
phases:
"""
    + PLANET
    + """    stop: {env_steps: 10000000}
    checkpoint_every: 100000
evaluate: {episodes: 1, random: false, videos: false}
"""
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Head(NamedTuple):
    """A Ray head on loopback that asks for a token."""

    url: str
    token: Path
    client: str  # ray://
    store: str  # the address of Ray's own control store, which drivers join at


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text(TOKEN + "\n")
    port, client_port, store_port = free_port(), free_port(), free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN"}},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",  # of a busy machine
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    options = ["--head", "--block", f"--port={store_port}", f"--dashboard-port={port}"]
    options += [
        f"--dashboard-agent-listen-port={free_port()}",
        "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={client_port}",
        "--num-cpus=2",
    ]
    scratch = tempfile.mkdtemp(prefix="parsec-", dir="/tmp")  # Ray's sockets need a short path
    options += [f"--temp-dir={scratch}", "--object-store-memory=268435456", "--disable-usage-stats"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *options],
            env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder,
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/api/version", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).ok:
                break
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.5)
    yield Head(url, token, f"ray://127.0.0.1:{client_port}", f"127.0.0.1:{store_port}")
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path


def parsec(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(word) for word in arguments])
        except SystemExit as exit:
            code = exit.code
    return code, out.getvalue(), err.getvalue()


def submitting(folder, head, *arguments, env=None):
    """The command as a process of its own, its log in folder/follow.txt."""
    url, token, *_ = head
    words = ["submit", folder / "small.yaml", "--address", url, "--token-file", token, "--storage", folder / "runs"]
    with (folder / "follow.txt").open("a") as log:
        return subprocess.Popen(
            [Path(sys.executable).with_name("parsec"), *words, "--follow", *arguments],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where make is in the background
        )  # fmt: skip


def results(run):
    rows = []
    for file in run.glob("planet/*/result.json"):
        for line in file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def wait_for(condition, log, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_job_is_followed_left_stopped_and_continued_to_its_report(folder, head):
    url, token, *_ = head
    run, log = folder / "runs" / "mine", folder / "follow.txt"
    where = ["--address", url, "--token-file", token]

    first = submitting(folder, head, "--name", "mine")
    wait_for(lambda: len(results(run)) >= 2 and "planet: starting" in log.read_text(), log)
    first.send_signal(signal.SIGINT)  # leaves the job alone
    assert first.wait(timeout=120) == 130
    assert "the job goes on" in log.read_text()
    client = heads.connect(url, token)
    assert client.get_job_status("mine-1") == "RUNNING"
    assert_refused(parsec("submit", folder / "small.yaml", *where, "--name", "mine"), "'mine' is in use", "mine-1")

    wait_for(lambda: client.get_job_info("mine-1").metadata.get("progress", "").count("env steps"), log)
    code, listed, _ = parsec("jobs", *where)
    row = next(line for line in listed.splitlines() if line.startswith("mine-1"))
    assert code == 0
    assert all(word in row for word in ("mine", "small", "planet", "of 10,000,000 env steps", "RUNNING"))
    assert "env steps" in client.get_job_info("mine-1").message  # what the dashboard's table shows

    code, said, _ = parsec("stop", "mine", *where)
    assert (code, "mine-1: STOPPED" in said) == (0, True)
    before = results(run)
    last = max(row["training_iteration"] for row in before)
    (checkpoint,) = run.glob("planet/*/checkpoint_*/metrics.json")  # none was due for a long time
    assert json.loads(checkpoint.read_text())["training_iteration"] == last
    assert json.loads((run / "state.json").read_text())["planet"]["status"] == "running"

    goal = max(row["env_steps"] for row in before) + 2500
    second = submitting(folder, head, "--name", "mine", "--set", f"phases.planet.stop.env_steps={goal}")
    assert second.wait(timeout=600) == 0, log.read_text()[-3000:]
    after = [row for row in results(run) if row["pid"] not in {row["pid"] for row in before}]
    assert [row["training_iteration"] for row in after] == [last + 1]
    assert after[0]["env_steps"] == goal
    assert after[0]["replay_decisions"] * 10 == goal
    assert (run / "report" / "index.html").exists()
    text = log.read_text()
    assert "median" in text
    assert "\r" not in text
    code, listed, _ = parsec("jobs", *where)
    assert [line.split()[0] for line in listed.splitlines() if "SUCCEEDED" in line] == ["mine-2"]
    assert [line.split()[0] for line in listed.splitlines() if "STOPPED" in line] == ["mine-1"]

    # The token is in no file of the run, in no record and in no log; no file was made by a value of the spec.
    records = requests.get(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10).text
    logs = "".join(client.get_job_logs(f"mine-{number}") for number in (1, 2))
    assert "PARSEC_TEST_VARIABLE" in records
    assert TOKEN not in records + logs + text + listed + said
    assert not [file for file in folder.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert not list(folder.rglob("pwned"))


def is_open(address):
    host, port = address.removeprefix("ray://").split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


SHOOTING = "parsec_example.random_shooting:RandomShooting"
OBJECTIVE = f"phases.planet.controller={{kind: '{SHOOTING}', horizon: 5, options: {{num_samples: 16}}}}"
OWN_WORLD = ("--set", "env={id: 'worlds:Point-v0'}", "--set", "phases.planet.stop.env_steps=600")


@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("through", ["client", "store"])
def test_a_run_at_an_address_brings_own_code_along(folder, head, through):
    """Through Ray Client it is driven by the head, otherwise from here; no process of the cluster has the world."""
    address = getattr(head, through)
    wait_for(lambda: is_open(address), folder / "small.yaml")
    words = ["run", folder / "small.yaml", "--address", address, "--storage", folder / "runs", *OWN_WORLD]
    words += ["--code", write_lab(folder / "lab")]
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)}
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or Ray asks at this machine's other addresses
    done = subprocess.run(
        [Path(sys.executable).with_name("parsec"), *words], cwd=folder,
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "CEM, full action space" in done.stdout  # the table
    assert f"dashboard {head.url}" in done.stdout + done.stderr
    assert json.loads((folder / "runs/small/state.json").read_text())["planet"]["status"] == "finished"
    assert [code.name for code in (folder / "runs/small/own_code").iterdir()]
    assert TOKEN not in done.stdout + done.stderr


SUBMIT = """
import sys
from parsecrl.platform.cli import main
from parsecrl.platform.submission import head, watching

class Client(head.Client):
    def request(self, method, endpoint, **options):
        if method == "PUT":
            print("sent", endpoint)
        return super().request(method, endpoint, **options)

head.Client, watching.BEGIN_WAIT_S = Client, 120.0  # a busy machine
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_own_code_goes_with_jobs_once_and_a_change_of_it_is_told(folder, head):
    """A second job brings a wheel too."""
    lab, run, log = write_lab(folder / "lab"), folder / "runs" / "own", folder / "follow.txt"
    where = ["--address", head.url, "--token-file", head.token, "--storage", folder / "runs", "--code", lab]

    def submit(*words):
        words = [sys.executable, "-c", SUBMIT, "submit", *words, *where]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)

    first = submitting(folder, head, "--name", "own", "--code", lab, *OWN_WORLD)
    wheel = example_wheel_in(folder / "example")
    wait_for(lambda: "own-1" in log.read_text(), log)
    done = submit(EXAMPLE / "example.yaml", "--code", wheel, "--follow", *OWN_WORLD, "--set", OBJECTIVE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert SHOOTING in done.stdout  # the table
    assert re.search(r"^code: .*parsec_example \(\w{8}\)", done.stdout, re.MULTILINE)
    sent = [line for line in done.stdout.splitlines() if line.startswith("sent ")]
    assert [line for line in sent if "/parsec_example-0.1.0-0" in line]
    assert not [line for line in sent if "parsec_code_lab" in line]  # it is there since the first job
    assert first.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert json.loads((run / "state.json").read_text())["planet"]["status"] == "finished"
    ((kept,),) = [stage["code"] for stage in json.loads((run / "own_code.json").read_text())]
    assert (run / "own_code" / kept["wheel"]).is_file()
    assert heads.connect(head.url, head.token).get_job_info("own-1").metadata["code"] == f"lab ({kept['hash'][:8]})"

    (lab / "tool.py").write_text("A = 2\n")
    again = ["small.yaml", "--name", "own", *OWN_WORLD]
    done = submit(*again)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"parsec: the code of \S+ has changed \(changed: tool\.py\); .*--new-code.*\n", done.stderr)
    assert [line for line in done.stdout.splitlines() if "parsec_code_lab" in line]
    done = submit(*again, "--new-code", "--follow")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list((run / "own_code").iterdir())) == 2


def assert_refused(done, *words):
    code, out, err = done
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("parsec")
    assert all(word in err for word in words), err
    assert out == ""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "http://127.0.0.1:1"], ["http://127.0.0.1:1", "Connection refused"]),
        (["--address", "http://192.0.2.123:8265"], ["no Ray head answers at http://192.0.2.123:8265"]),
        (["--address", "http://no-such-head.invalid:8265"], ["no-such-head.invalid"]),
        (["--address", "ray://head:10001"], ["URL of the head's dashboard", "ray://head:10001"]),
        (["--address", "http://head:port"], ["URL of the head's dashboard"]),
        (["--address", "http://me:secret@head:8265"], ["URL of the head's dashboard", "password in it"]),
        (["--token-file", ""], ["asks for a token and got none", "--token-file"]),
        (["--token-file", "wrong"], ["refuses the token", "--token-file"]),
        (["--token-file", "absent"], ["absent", "cannot be read"]),
        (["--set", "resources.num_gpus_per_learner=1", "--set", "resources.num_learners=1"], ["1 GPU", "has 0"]),
        (["--set", "resources.num_env_runners=9"], ["10 CPU", "has 2"]),
        (["--storage", "runs"], ["absolute", "'runs'"]),
        (["--storage", "s3://key:secret@bucket/runs"], ["credentials"]),
        (["--storage", "ftp://host/runs"], ["s3://bucket/prefix", "ftp://"]),
        (["--storage", "s3:///runs"], ["must name a bucket"]),
        (["--name", "../up"], ["--name", "'../up'"]),
        (["--set", "env.id=CartPole-v1"], ["continuous"]),
        (["--set", "runtime.env_vars={WANDB_API_KEY: abc}"], ["secrets", "WANDB_API_KEY"]),
    ],
)
def test_submit_refuses_in_time_and_sends_nothing(folder, head, monkeypatch, arguments, words):
    url, token, *_ = head
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (folder / "wrong").write_text("not-the-token")
    arguments = [str(folder / word) if word in {"wrong", "absent"} else word for word in arguments]
    given = {"--address": url, "--token-file": token, "--storage": "/tmp/runs"}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        if option in given:
            given[option] = value
    rest = [word for pair in zip(arguments[::2], arguments[1::2], strict=True) if pair[0] not in given for word in pair]
    options = [word for option, value in given.items() if value for word in (option, value)]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    before = requests.get(f"{url}/api/jobs/", headers=headers, timeout=10).json()
    begun = time.monotonic()
    done = parsec("submit", folder / "small.yaml", *options, *rest)
    assert_refused(done, *words)
    assert time.monotonic() - begun < 30
    assert "not-the-token" not in done[2]
    assert "secret@" not in done[2]
    after = requests.get(f"{url}/api/jobs/", headers=headers, timeout=10).json()
    assert [job["submission_id"] for job in after] == [job["submission_id"] for job in before]


@pytest.mark.ray
@pytest.mark.parametrize(
    "settings",
    [
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "not-the-token"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "absent"},
        {},
    ],
)
def test_run_refuses_a_cluster_whose_token_it_does_not_have(folder, head, settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | settings
    begun = time.monotonic()
    done = subprocess.run(
        [Path(sys.executable).with_name("parsec"), "run", "small.yaml", "--address", head.client],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert_refused((done.returncode, done.stdout, done.stderr), "refuses this process", "RAY_AUTH_TOKEN_PATH")
    assert time.monotonic() - begun < 30
    assert not (folder / "runs").exists()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("s3://bucket/runs", ["no credentials for s3://bucket/runs", "AWS_ACCESS_KEY_ID"]),
        ("/proc/runs", ["the storage path /proc/runs cannot be written"]),
    ],
)
def test_submit_tells_when_the_cluster_refuses_the_storage(folder, head, monkeypatch, storage, words):
    """Its nodes have no credentials, whatever this machine has."""
    url, token, *_ = head
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "only-here")
    monkeypatch.setattr(watching, "BEGIN_WAIT_S", 120.0)  # a busy machine
    arguments = ["--address", url, "--token-file", token, "--storage", storage, "--name", "refused"]
    code, out, err = parsec("submit", folder / "small.yaml", *arguments)
    assert code == 2, err
    assert re.fullmatch(r"refused-\d+\n", out)
    assert err.startswith("parsec: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err


@pytest.mark.ray
def test_a_package_over_the_limit_names_its_largest_files(folder, head, site):
    url, token, *_ = head
    data = site / "parsecrl" / "envs" / "recordings.npz"
    with data.open("wb") as stream:
        stream.truncate(101 * 2**20)
    try:
        code = "import sys; from parsecrl.platform.cli import main; sys.exit(main())"
        words = ["submit", str(folder / "small.yaml"), "--address", url, "--token-file", str(token)]
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, "-c", code, *words], env=env, cwd=folder, capture_output=True, text=True)
    finally:
        data.unlink()
    assert_refused((done.returncode, done.stdout, done.stderr), "recordings.npz (101.0 MiB)", "100.0 MiB")


@pytest.mark.ray
def test_stop_names_the_jobs_there_are(head):
    url, token, *_ = head
    assert_refused(parsec("stop", "absent", "--address", url, "--token-file", token), "no job 'absent'", "running:")
    assert_refused(parsec("jobs"), "--address")
