"""Ctrl-C and SIGTERM on a laptop: every trial checkpoints, and the same command goes on there."""

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parsecrl.platform.errors import UserError
from parsecrl.platform.running import interruption
from parsecrl.platform.runs import trust
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec
from tests.platform.tiny import PLANET

SPEC = (
    """
name: sweep
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 1}
phases:
"""
    + PLANET
    + """    search: {controller.num_iterations: {grid: [1, 2]}}
    stop: {env_steps: 10000000}
    checkpoint_every: 100000
evaluate: {episodes: 1, random: false, videos: false}
"""
)
# The command on a machine of two CPUs, whatever this one has.
COMMAND = """
import sys, ray, functools
ray.init = functools.partial(ray.init, num_cpus=2, object_store_memory=256 * 1024**2)
from parsecrl.platform.cli import main
sys.exit(main())
"""


def start(folder, *arguments):
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", "sweep.yaml", *arguments],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip


def iterations(trial):
    lines = (trial / "result.json").read_text().splitlines() if (trial / "result.json").exists() else []
    return [(row["training_iteration"], row["pid"]) for row in map(json.loads, lines)]


def wait_until(condition, process, log):
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def checkpointed(trial):
    """The iterations of the whole checkpoints of a trial."""
    files = trial.glob("checkpoint_*/metrics.json")
    return sorted(json.loads(file.read_text())["training_iteration"] for file in files)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_every_trial_of_an_interrupted_sweep_checkpoints_and_goes_on_there(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SPEC)
    log, folder = tmp_path / "log.txt", tmp_path / "runs" / "sweep" / "planet"
    trials = [folder / f"trial_0000{n}_num_iterations={n + 1}" for n in (0, 1)]

    process = start(tmp_path)
    wait_until(lambda: all(len(iterations(trial)) >= 2 for trial in trials), process, log)
    own = {process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))}
    listening = [found.laddr.ip for pid in own for found in connections(pid) if found.status == psutil.CONN_LISTEN]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to Ray's processes as well
    assert process.wait(timeout=300) == 130, log.read_text()[-3000:]
    reached = [max(number for number, _ in iterations(trial)) for trial in trials]
    assert [checkpointed(trial)[-1] for trial in trials] == reached

    process = start(tmp_path)
    firsts = [{pid for _, pid in iterations(trial)} for trial in trials]
    both = list(zip(trials, firsts, strict=True))
    wait_until(lambda: all({pid for _, pid in iterations(trial)} > first for trial, first in both), process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 143, log.read_text()[-3000:]
    for trial, first, number in zip(trials, firsts, reached, strict=True):
        found = [n for n, _ in iterations(trial)]
        assert found == list(range(1, len(found) + 1))  # none lost, none twice
        assert next(n for n, pid in iterations(trial) if pid not in first) == number + 1
        assert checkpointed(trial)[-1] == found[-1]
    assert json.loads((tmp_path / "runs" / "sweep" / "state.json").read_text())["planet"]["status"] == "running"
    assert log.read_text().count("each trial writes a checkpoint") == 2


def connections(pid):
    try:
        return psutil.Process(pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return []


def in_a_phase(*signals):
    """How far a phase gets in which these signals arrive."""
    passed = []
    with interruption.handled(), interruption.awaiting_checkpoints():
        try:
            for number in signals:
                signal.raise_signal(number)
                passed.append(interruption.requested())
        finally:
            assert passed == [True]


def test_the_first_signal_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interruption.Interrupted) as ended:
        in_a_phase(signal.SIGTERM)
    assert ended.value.exit_code == 143
    with pytest.raises(interruption.Interrupted) as ended:
        in_a_phase(signal.SIGTERM, signal.SIGINT)
    assert ended.value.exit_code == 130
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        signal.raise_signal(signal.SIGINT)  # outside a phase there is nothing to wait for
    assert signal.getsignal(signal.SIGTERM) is before
    assert not interruption.requested()


# --- whose run it is -----------------------------------------------------------------------------------------------


def begun(folder, name="sweep"):
    """A run whose first phase has begun, as after an interruption."""
    (folder / "sweep.yaml").write_text(SPEC)
    run = RunFolder.choose(load_spec(folder / "sweep.yaml"), folder, name)
    run.open()
    run.record("planet", {"status": "running", "stop": {"env_steps": 10000000}})
    (run.path / "planet").mkdir()
    run.close()
    return run.path


def test_a_run_from_elsewhere_is_not_continued_unless_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "theirs" / "key"))
    path = begun(tmp_path)
    spec = load_spec(tmp_path / "sweep.yaml")
    RunFolder.choose(spec, tmp_path)  # its own maker goes on

    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "mine" / "key"))
    for change in (lambda: None, lambda: forge(path), lambda: (path / trust.RECORD).unlink()):
        change()
        with pytest.raises(UserError, match=r"not made here.*unpickle.*--trust"):
            RunFolder.choose(spec, tmp_path)
    assert RunFolder.choose(spec, tmp_path, fresh=True).path.name == "sweep-2"
    trusted = RunFolder.choose(spec, tmp_path, trust=True)
    trusted.open()
    trusted.close()
    RunFolder.choose(spec, tmp_path)  # from now on it counts as this user's
    assert Path(trust.key_file()).stat().st_mode & 0o077 == 0
    key = trust.key_file().read_text()
    assert not [file for file in path.rglob("*") if file.is_file() and key in file.read_text()]


def forge(path):
    record = json.loads((path / trust.RECORD).read_text())
    (path / trust.RECORD).write_text(json.dumps({**record, "user": "me", "mark": "0" * 64}))


def test_a_finished_run_from_elsewhere_can_be_looked_at_but_not_prolonged(tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "theirs"))
    path = begun(tmp_path)
    checkpoint = path / "planet" / "trial_00000" / "checkpoint_000000"
    checkpoint.mkdir(parents=True)
    (checkpoint / "metrics.json").write_text("{}")
    done = {"status": "finished", "stop": {"env_steps": 10000000}, "checkpoint": str(checkpoint.relative_to(path))}
    (path / "state.json").write_text(json.dumps({"planet": done}))
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "mine"))
    spec = load_spec(tmp_path / "sweep.yaml")
    run = RunFolder.choose(spec, tmp_path)  # nothing in it is unpickled
    run.open()
    run.close()
    with pytest.raises(UserError, match="not made here"):
        RunFolder.choose(load_spec(tmp_path / "sweep.yaml", ["phases.planet.stop.env_steps=20000000"]), tmp_path)


def test_without_a_place_for_a_key_a_run_starts_and_needs_trust_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, "/proc/nowhere/key")
    begun(tmp_path)
    with pytest.raises(UserError, match=r"was begun without a key \(it says: by .*--trust"):
        RunFolder.choose(load_spec(tmp_path / "sweep.yaml"), tmp_path)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({trust.KEY_VARIABLE: "/proc/nowhere/key"}, "No such file or directory: /proc/nowhere"),
        ({trust.KEY_VARIABLE: "", "XDG_CONFIG_HOME": "", "HOME": "/proc/home"}, "/proc/home"),
        ({trust.KEY_VARIABLE: "~nobody-at-all/key"}, "home directory"),
    ],
)
def test_a_run_that_cannot_be_marked_says_so_when_it_begins(tmp_path, monkeypatch, variables, reason):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    path = begun(tmp_path)
    assert trust.is_unsigned(trust.record_in(path))
    why = trust.why_unsigned()
    assert why.startswith("this run cannot be marked as yours (")
    assert reason in why
    assert f"set {trust.KEY_VARIABLE} to a file that can be written" in why
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "key"))
    assert trust.why_unsigned() == ""


def test_without_a_home_variable_the_users_own_home_has_the_key(monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", trust.KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert trust.key_file() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".config" / "parsecrl" / "key"


def test_the_keys_folder_is_closed_to_others_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "parsecrl" / "key"))
    before = os.umask(0)
    try:
        trust.new_record()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "parsecrl", trust.key_file())] == [0o700, 0o600]
