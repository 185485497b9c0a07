"""A sweep on two nodes while its processes are killed and its store stops answering; nothing may be lost or done twice.

`make chaos` runs the long version and prints the table of docs/faults.md; `make test-slow` the short one.
"""

import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from parsecrl.platform import cli
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.storage import in_parallel, location_of

SPEC = """
name: tiny
env: {{id: dm_control/cheetah-run-v0, action_repeat: 10}}
resources:
  {{num_env_runners: 1, num_envs_per_env_runner: 1, num_cpus_per_env_runner: 0.5, num_cpus_for_main_process: 0.5,
   num_learners: {learners}}}
phases:
  - name: planet
    algorithm: planet
    controller: {{kind: full, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}}
    world_model: {{deterministic_size: 16, stochastic_size: 4, hidden_size: 16}}
    decoder: {{hidden_size: 16}}
    search: {{controller.num_iterations: {{grid: [1, 2]}}}}
    train_ratio: 0.002
    seed_episodes: 1
    batch_size: 4
    batch_length: 10
    stop: {{env_steps: {planet}}}
    checkpoint_every: 2
  - name: embed
    algorithm: planet
    start_from: planet
    controller: {{kind: embedded, latent_size: 2, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}}
    search: {{exploration_noise: {{grid: [0.1, 0.3]}}}}
    train_ratio: 0.002
    seed_episodes: 0
    batch_size: 4
    batch_length: 10
    decoder_beliefs: 4
    stop: {{env_steps: {embed}}}
    checkpoint_every: 2
  - name: finetune
    algorithm: dcem_ppo
    start_from: embed
    episodes_per_step: 1
    noise_bank_size: 2
    stop: {{ppo_steps: {finetune}}}
    checkpoint_every: 1
evaluate: {{episodes: 2, videos: false}}
"""
REPEAT = 10  # simulator steps per decision
# Titles that Ray gives to its processes; that of a learner is of the class that Ray wraps around it.
TITLES = {
    "env runner": re.compile(r"ray::\w*EnvRunner"),
    "remote learner": re.compile(r"ray::_WrappedExecutable"),
    "trial's main process": re.compile(r"ray::(planet|dcem_ppo)(\.|$|\()"),
}
RUNNER, LEARNER, TRIAL = TITLES
NODE, DRIVER, STORE = "worker node", "driver", "store"
UNRECORDED_S = 20.0  # how far behind the driver's own record of its trials may be
SECONDS = 900  # a busy machine starts a process in a minute


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Machines:
    """A head and a worker node, each `ray start` in a process of its own."""

    def __init__(self, folder, environment, num_cpus):
        self.folder, self.environment, self.num_cpus = folder, environment, num_cpus
        self.scratch = tempfile.mkdtemp(prefix="parsec-", dir="/tmp")  # Ray's sockets need a short path
        self.address = f"127.0.0.1:{free_port()}"
        self.head = self._start("--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false")
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(self.address.rpartition(":")[2])), timeout=1).close()
                break
            assert self.head.poll() is None, (folder / "nodes.txt").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.5)
        self.worker = None
        self.add_worker()

    def _start(self, *options):
        options = (
            *options,
            "--block",
            f"--num-cpus={self.num_cpus}",
            "--object-store-memory=134217728",
            "--disable-usage-stats",
        )
        options += ("--node-ip-address=127.0.0.1", f"--dashboard-agent-listen-port={free_port()}")
        if "--head" in options:
            options += (f"--temp-dir={self.scratch}", f"--ray-client-server-port={free_port()}")
        with (self.folder / "nodes.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *options],
                env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def add_worker(self):
        self.worker = self._start(f"--address={self.address}")

    def raylet(self, node):
        """The process that is the node: all that works on it are its children, and end with it."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(node.pid).children(recursive=True):
                if process.name() == "raylet":
                    return process
        return None

    def processes(self, title):
        found = []
        for node in (self.head, self.worker):
            raylet = self.raylet(node)
            for process in raylet.children(recursive=True) if raylet else []:
                with contextlib.suppress(psutil.Error):
                    if title.search(" ".join(process.cmdline())):
                        found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def kill_worker(self):
        """SIGKILL of the raylet; `ray start --block` and what worked on the node notice that and end."""
        deadline = time.monotonic() + SECONDS
        while (raylet := self.raylet(self.worker)) is None:  # it may still be starting
            ended = self.worker.poll()
            assert ended is None, f"exit status {ended}: {(self.folder / 'nodes.txt').read_text()[-3000:]}"
            assert time.monotonic() < deadline, "the node has no raylet"
            time.sleep(0.2)
        raylet.kill()
        self.worker.wait(timeout=SECONDS)

    def stop(self):
        for node in (self.worker, self.head):
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(node.pid).children(recursive=True)
                for process in (psutil.Process(node.pid), *family):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            node.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Sweep:
    """The command as a process, started again when it is killed, and what it has written so far."""

    def __init__(self, folder, machines, storage, name="tiny"):
        self.folder, self.machines, self.storage = folder, machines, storage
        self.run = location_of(storage) / name
        self.log = folder / "log.txt"
        self.process = None
        self.start()

    def start(self):
        words = ["run", "tiny.yaml", "--address", self.machines.address, "--storage", self.storage]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parsecrl", *words],
                cwd=self.folder, stdout=log, stderr=log, env=self.machines.environment,
            )  # fmt: skip

    def phase(self):
        """The one that runs, or None before the first and after the last."""
        file = self.run / "state.json"
        state = json.loads(file.read_text()) if file.exists() else {}
        running = [name for name, about in state.items() if about.get("status") == "running"]
        return running[0] if running else None

    def rows(self, phase):
        """Trial -> its results, in the order of writing."""
        found = {}
        for file in sorted(self.run.glob(f"{phase}/*/result.json")):
            found[file.parent.name] = []
            for line in file.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    found[file.parent.name].append(json.loads(line))
        return found

    def wait_for(self, condition, what):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"ended while waiting for {what}: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"waited for {what}: {self.log.read_text()[-3000:]}"
            time.sleep(1.0)

    def wait_for_results(self, phase, since, what):
        """Until every trial of the phase that has reported and not ended has done so again, or the phase is over."""

        def reported():
            if self.phase() != phase:
                return True
            rows = [trial[-1] for trial in self.rows(phase).values() if trial]
            return bool(rows) and all(row["done"] or row["timestamp"] > since for row in rows)

        self.wait_for(reported, what)


def inflict(kind, sweep, machines, server, away_s, rng):
    """One fault; returns whether there was anything to inflict it on before the phase was over."""
    if kind in TITLES:
        phase = sweep.phase()
        while not (found := machines.processes(TITLES[kind])):  # it may be starting
            if sweep.phase() != phase:
                return False
            time.sleep(0.2)
        rng.choice(found).kill()
    elif kind == NODE:
        machines.kill_worker()
        time.sleep(5.0)
        machines.add_worker()
    elif kind == DRIVER:
        sweep.process.send_signal(signal.SIGKILL)
        sweep.process.wait()
        sweep.start()
    else:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(away_s)
        server.process.send_signal(signal.SIGCONT)
    return True


def repeated_steps(rows):
    """(time, simulator steps) of each return to an earlier checkpoint in a trial's results."""
    found = []
    for before, after in itertools.pairwise(rows):
        if after["training_iteration"] <= before["training_iteration"]:
            kept = [row["env_steps"] for row in rows[: rows.index(after)]
                    if row["training_iteration"] < after["training_iteration"]]  # fmt: skip
            found.append((after["timestamp"], before["env_steps"] - (kept[-1] if kept else 0)))
    return found


def survive(tmp_path, s3, s3_server, request, faults, away_s, seed, **sizes):
    """Run the sweep with the faults of each phase, in an order and at moments drawn from the seed. Returns a table."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "5", "PYTHONUNBUFFERED": "1"}
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):  # left by a Ray that this process started before
        environment.pop(name, None)
    (tmp_path / "tiny.yaml").write_text(SPEC.format(**sizes))
    machines = Machines(tmp_path, environment, num_cpus=1 + sizes["learners"])  # a node has room for one trial
    request.addfinalizer(machines.stop)
    sweep = Sweep(tmp_path, machines, s3)
    request.addfinalizer(lambda: sweep.process.kill())
    rng = random.Random(seed)
    happened = []
    for phase, kinds in faults.items():
        sweep.wait_for(lambda p=phase: sweep.phase() == p and any(sweep.rows(p).values()), f"results of {phase}")
        for kind in rng.sample(kinds, len(kinds)):
            time.sleep(rng.uniform(0.0, 4.0))
            if sweep.phase() != phase:
                break
            begin = time.time()
            if inflict(kind, sweep, machines, s3_server, away_s, rng):
                sweep.wait_for_results(phase, time.time(), f"results after a fault: {kind}")
                happened.append({"phase": phase, "fault": kind, "time": begin, "seconds": time.time() - begin})
    assert sweep.process.wait(timeout=2 * SECONDS) == 0, sweep.log.read_text()[-3000:]
    check(sweep, [fault["time"] for fault in happened if fault["fault"] == DRIVER])
    lost = [found for phase in faults for rows in sweep.rows(phase).values() for found in repeated_steps(rows)]
    for fault, later in zip(happened, [*happened[1:], {"time": float("inf")}], strict=True):
        fault["repeated"] = sum(steps for moment, steps in lost if fault["time"] < moment <= later["time"])
    return happened


def check(sweep, driver_deaths):
    """What holds of a run whatever befell it. driver_deaths: when, in seconds since the epoch."""
    run = sweep.run
    state = json.loads((run / "state.json").read_text())
    assert [state[phase]["status"] for phase in ("planet", "embed", "finetune")] == ["finished"] * 3
    assert [state[phase]["failed_trials"] for phase in ("planet", "embed", "finetune")] == [0, 0, 0]
    assert [state[phase]["trials"] for phase in ("planet", "embed", "finetune")] == [2, 2, 1]
    began_with = checkpoint_replay(run / state["planet"]["checkpoint"])
    for phase in load_run(run).phases:
        assert all(trial.failure is None for trial in phase.trials)
        for trial in phase.trials:
            # As the report reads it, no step is counted twice and no counter goes backwards.
            steps = trial.rows["env_steps"]
            assert (steps.diff().dropna() > 0).all(), (phase.name, trial.name, list(steps))
        for name, rows in sweep.rows(phase.name).items():
            assert rows[-1]["done"], f"{phase.name}/{name} has no end"
            for before, after in itertools.pairwise(rows):
                # Only a driver that is killed between a trial's end and its own record of it, which it writes every few
                # seconds, reaches that end again, from the trial's last checkpoint: neither from the beginning nor past
                # it.
                again = 1 < after["training_iteration"] <= before["training_iteration"] and any(
                    0.0 <= death - before["timestamp"] < UNRECORDED_S for death in driver_deaths
                )
                assert again or not before["done"], f"{phase.name}/{name} went on after its end"
            earlier = began_with if phase.name == "embed" else 0
            if phase.name != "finetune":
                assert all(row["replay_decisions"] == earlier + row["env_steps"] // REPEAT for row in rows)
    for phase in ("planet", "embed"):
        stored = stored_checkpoints.stored_checkpoints(run / phase)
        assert {checkpoint.trial for checkpoint in stored} == set(sweep.rows(phase))
        for checkpoint in stored:
            earlier = began_with if phase == "embed" else 0
            assert checkpoint_replay(checkpoint.path) == earlier + checkpoint.metrics["env_steps"] // REPEAT
    table = pd.read_csv(io.StringIO((run / "evaluation.csv").read_text()))
    assert table.groupby("phase").size().to_dict() == {"random": 2, "planet": 2, "embed": 2, "finetune": 2}
    page = (run / "report" / "index.html").read_text()
    assert str(run) not in page
    assert "could not be computed" not in page
    assert all(name in page for name in ("planet", "embed", "finetune"))
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["phases"]) == {"random", "planet", "embed", "finetune"}
    assert summary["phases"]["finetune"]["checkpoint"] == state["finetune"]["checkpoint"]
    for params in run.glob("embed/*/params.json"):
        assert json.loads(params.read_text())["start_from"] == f"run-folder://{state['planet']['checkpoint']}"
    assert f"report: {run}/report/index.html" in sweep.log.read_text()


def check_from_elsewhere(run, server, capsys):
    """What holds of a run in a store for those who have its address: they can use it, and learn no secret."""
    assert cli.main(["report", str(run)]) == 0
    assert "finetune" in capsys.readouterr().out
    assert cli.main(["evaluate", f"{run}/embed", "--episodes", "1"]) == 0
    assert "embedded | 1 episodes" in capsys.readouterr().out
    secret = server.environment["AWS_SECRET_ACCESS_KEY"].encode()
    files = run.files()
    assert len(files) > 50
    holds = in_parallel(lambda file: secret in file.read_bytes(), files)
    assert not [str(file) for file, bad in zip(files, holds, strict=True) if bad]
    assert not (run / ".lease").exists()


def checkpoint_replay(folder):
    """Decisions in a checkpoint's replay buffer."""
    with np.load(io.BytesIO((folder / "replay.npz").read_bytes()), allow_pickle=False) as arrays:
        return int(arrays["length"].sum())


def as_table(happened):
    lines = ["| # | phase | fault | all trials reported again after | simulator steps done again |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for number, fault in enumerate(happened, 1):
        lines.append(
            f"| {number} | {fault['phase']} | {fault['fault']} | {fault['seconds']:.0f} s | {fault['repeated']:,.0f} |"
        )
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_sweep_survives_one_fault_of_each_kind(tmp_path, s3, s3_server, request, capsys):
    faults = {"planet": [RUNNER, NODE], "embed": [DRIVER, STORE], "finetune": [TRIAL]}
    sizes = {"learners": 0, "planet": 25_000, "embed": 40_000, "finetune": 20}
    happened = survive(tmp_path, s3, s3_server, request, faults, away_s=8.0, seed=1, **sizes)
    check_from_elsewhere(location_of(s3) / "tiny", s3_server, capsys)
    print("\n" + as_table(happened))
    assert {fault["fault"] for fault in happened} == {RUNNER, TRIAL, NODE, DRIVER, STORE}


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.timeout(7200)
def test_a_sweep_survives_a_dozen_faults_and_a_minute_without_its_store(tmp_path, s3, s3_server, request):
    faults = {
        "planet": [RUNNER, TRIAL, LEARNER, NODE, DRIVER, STORE],
        "embed": [RUNNER, LEARNER, NODE, DRIVER],
        "finetune": [RUNNER, DRIVER],
    }
    sizes = {"learners": 1, "planet": 75_000, "embed": 60_000, "finetune": 20}
    happened = survive(tmp_path, s3, s3_server, request, faults, away_s=60.0, seed=0, **sizes)
    print("\n" + as_table(happened))
    assert len(happened) >= 10
    assert {fault["fault"] for fault in happened} == {RUNNER, LEARNER, TRIAL, NODE, DRIVER, STORE}
