"""The command as a user runs it: exit code 2 and one sentence for every mistake, and nothing written."""

import contextlib
import errno
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import read_description, save_agent
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.models import matrix_products
from parsecrl.platform import cli

COMMAND = [str(Path(sys.executable).with_name("parsec"))]
SPEC = """
name: small
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 1}
phases:
  - {name: planet, algorithm: planet, controller: {kind: full}, stop: {env_steps: 100}}
  - {name: embed, algorithm: planet, start_from: planet, controller: {kind: embedded}, stop: {env_steps: 100}}
"""
WORLD_MODEL = {"deterministic_size": 8, "stochastic_size": 2, "hidden_size": 8, "min_std": 0.1}
CONTROLLER = {
    "kind": "full",
    "horizon": 2,
    "num_samples": 4,
    "num_elites": 2,
    "num_iterations": 1,
    "init_std": 0.5,
    "warm_start": False,
}
DECODER = {"hidden_size": 8, "num_layers": 2, "init_scale": 1.0, "conditioning": "none"}


def parsec(folder, *arguments):
    """The command in this process, which saves the seconds of its imports."""
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(arguments)
            except SystemExit as exit:
                code = exit.code
    finally:
        os.chdir(here)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def installed_parsec(folder, *arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, env=env)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path


def test_a_full_disk_is_one_sentence_and_a_mistake_of_ours_is_not(tmp_path, monkeypatch):
    def fail(number):
        def command(options):
            raise OSError(number, os.strerror(number), "/runs/a/state.json")

        return command

    monkeypatch.setattr(cli, "_specs", fail(errno.ENOSPC))
    done = parsec(tmp_path, "specs")
    assert done.returncode == 1
    assert done.stderr.startswith("parsec: No space left on device at /runs/a/state.json")
    assert done.stderr.count("\n") == 1
    monkeypatch.setattr(cli, "_specs", fail(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        parsec(tmp_path, "specs")


def make_checkpoint(path, obs_size=17, action_size=6, algorithm="planet", repeat=10):
    path.mkdir(parents=True)
    torch.manual_seed(0)
    agent = PlanningAgent(obs_size, action_size, WORLD_MODEL, CONTROLLER, DECODER)
    description = {
        "algorithm": algorithm,
        "env": {"id": "dm_control/cheetah-run-v0", "action_repeat": repeat},
        "world_model": WORLD_MODEL,
        "controller": CONTROLLER,
        "decoder": DECODER,
        "env_steps": 0,
    }
    save_agent(path, agent, description)
    return path


def assert_refused(done, *words):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("parsec")
    assert all(word in lines[0] for word in words), lines[0]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["small.yaml", "--set", "phases.planet.train_rato=1.0"], ["train_rato", "did you mean 'train_ratio'"]),
        (["small.yaml", "--set", "phases.planet.train_ratio=fast"], ["train_ratio", "number", "'fast'"]),
        (["small.yaml", "--set", "phases.planet.train_ratio=-1"], ["train_ratio", "greater than 0", "-1"]),
        (["small.yaml", "--set", "phases.embed.start_from=late"], ["start_from must name an earlier phase", "'late'"]),
        (["small.yaml", "--set", "env.id=dm_control/cheeta-run-v0"], ["cheeta-run", "dm_control/cheetah-run-v0"]),
        (["small.yaml", "--set", "env.id=CartPole-v1"], ["CartPole-v1", "Box", "continuous"]),
        (["broken.yaml"], ["broken.yaml is not YAML", "line 1"]),
        (["small.yaml", "--storage", "/proc/nowhere/runs"], ["/proc", "cannot be written"]),
        (["small.yaml", "--storage", "small.yaml/runs"], ["small.yaml", "cannot be written"]),
        (["small.yaml", "--storage", "ftp://bucket/runs"], ["ftp://", "path", "s3://bucket/prefix"]),
        (["small.yaml", "--address", "127.0.0.1:1"], ["no Ray cluster answers at '127.0.0.1:1'", "--address local"]),
        (["small.yaml", "--address", "ray://127.0.0.1:1"], ["no Ray cluster answers at 'ray://127.0.0.1:1'"]),
        (["small.yaml", "--name", "../up"], ["--name", "'../up'"]),
        (["small.yaml", "--name", 300 * "x"], ["--name must be 1 to 100 letters", "of 300 characters"]),
        (["small.yaml", "--name", "wörk"], ["--name must be 1 to 100 letters", "'wörk'"]),
        (["small.yaml", "--set", f"name={300 * 'x'}"], ["name"]),
        (["small.yaml", "--storage", 300 * "x"], ["cannot be written (File name too long)"]),
        (["small.yaml", "--storage", "~nobody-at-all/runs"], ["~nobody-at-all/runs names no folder"]),
        (["small.yaml", "--name", "taken"], ["taken", "no run folder"]),
        (["small.yaml", "--name", "other"], ["another spec", "seed was 5, is 0"]),
        (["absent.yaml"], ["no spec 'absent.yaml'"]),
        ([], ["required", "SPEC"]),
    ],
)
def test_run_refuses_and_writes_nothing(folder, arguments, words):
    (folder / "broken.yaml").write_text("name: [")
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "thesis.tex").write_text("mine")
    (folder / "runs" / "other").mkdir()
    changed = parsec(folder, "specs", "small.yaml", "--set", "seed=5")
    (folder / "runs" / "other" / "spec.yaml").write_text(changed.stdout)
    before = sorted(folder.rglob("*"))
    assert_refused(parsec(folder, "run", *arguments), *words)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_an_address_counts_where_a_ray_runs_already(folder):
    refused = parsec(folder, "run", "small.yaml", "--address", "ray://127.0.0.1:1")
    assert_refused(refused, "no Ray cluster answers at 'ray://127.0.0.1:1'")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_refused(parsec(folder, "run", "small.yaml", "--address", address), "not to the one", address)
    assert not (folder / "runs").exists()


def test_run_refuses_products_that_there_are_not(folder, monkeypatch):
    monkeypatch.setenv("PARSEC_PRODUCTS", "mkl")
    matrix_products.use(None)  # this process may have chosen already
    assert_refused(parsec(folder, "run", "small.yaml"), "PARSEC_PRODUCTS must be torch, onednn or measure, got 'mkl'")
    assert not (folder / "runs").exists()


def test_run_refuses_a_store_without_credentials(folder, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(folder / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = parsec(folder, "run", "small.yaml", "--storage", "s3://bucket/runs")
    assert_refused(done, "no credentials for s3://bucket/runs", "AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "small.yaml", "--set", "phases.planet.train_rato=1.0"], ["did you mean 'train_ratio'"]),
        (["run", "small.yaml", "--storage", "/proc/nowhere/runs"], ["cannot be written"]),
        (["evaluate", "absent"], ["no checkpoint at absent"]),
    ],
)
def test_the_installed_command_refuses_alike(folder, arguments, words):
    before = sorted(folder.rglob("*"))
    assert_refused(installed_parsec(folder, *arguments), *words)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_was_deleted_is_one_sentence(tmp_path):
    command = f"mkdir gone && cd gone && rmdir ../gone && {COMMAND[0]} run cheetah_run_quick"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert_refused(done, "the current folder cannot be used", "change to one that exists")


@pytest.mark.ray
def test_a_temporary_folder_with_a_long_path_is_one_sentence(folder):
    long = folder / (98 * "t")
    long.mkdir()
    env = {**os.environ, "TMPDIR": str(long)}
    env.pop("RAY_TMPDIR", None)
    done = subprocess.run(
        [*COMMAND, "run", "small.yaml"], cwd=folder, capture_output=True, text=True, timeout=600, env=env
    )
    assert_refused(done, "Ray's temporary folder has too long a path", "107 bytes", "set RAY_TMPDIR=/tmp")
    assert not (folder / "runs").exists()


@pytest.mark.ray
def test_run_refuses_what_the_cluster_does_not_have(folder, ray_runtime):
    before = sorted(folder.rglob("*"))
    done = parsec(folder, "run", "small.yaml", "--set", "resources.num_env_runners=500")
    assert_refused(done, "501 CPU", "num_env_runners")
    assert sorted(folder.rglob("*")) == before


def test_specs_prints_with_defaults_and_refuses_what_run_would(folder):
    done = parsec(folder, "specs", "small.yaml")
    assert done.returncode == 0
    assert "batch_length: 50" in done.stdout
    assert_refused(parsec(folder, "specs", "small.yaml", "--set", "env.id=CartPole-v1"), "Box")
    listed = parsec(folder, "specs")
    assert "cheetah_run_quick" in listed.stdout
    assert "ablations/walker_walk_phase3" in listed.stdout


def test_evaluate_prints_a_line(folder):
    path = make_checkpoint(folder / "checkpoint", repeat=100)
    done = parsec(folder, "evaluate", str(path), "--episodes", "2")
    assert done.returncode == 0, done.stderr
    assert "2 episodes" in done.stdout
    assert "median" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], ["no checkpoint at absent"]),
        (["empty"], ["empty", "agent.json"]),
        (["walker"], ["24", "17", "dm_control/cheetah-run-v0"]),
        (["checkpoint", "--env", "dm_control/walker-walk-v0"], ["24", "17", "dm_control/walker-walk-v0"]),
        (["checkpoint", "--env", "dm_control/wolker-walk-v0"], ["wolker"]),
        (["sac"], ["'latent_sac'", "dcem_ppo, planet"]),
        (["checkpoint", "--controller", "embedded"], ["embedded", "full"]),
        (["checkpoint", "--controller", "best"], ["best", "full"]),
        (["checkpoint", "--episodes", "0"], ["--episodes", "0"]),
        (["checkpoint", "--episodes", "two"], ["two"]),
        (["checkpoint", "--video", "film.gif"], ["film.gif", ".mp4"]),
        (["checkpoint", "--video", "no/such/film.mp4"], ["no/such"]),
        (["torn"], ["agent.safetensors"]),
        (["garbled"], ["garbled"]),
        (["nowhere"], ["nowhere/agent.json must name its environment as env: {id, action_repeat}, got None"]),
    ],
)
def test_evaluate_refuses(folder, arguments, words):
    make_checkpoint(folder / "checkpoint")
    (folder / "empty").mkdir()
    make_checkpoint(folder / "walker", obs_size=24)
    make_checkpoint(folder / "sac", algorithm="latent_sac")
    (make_checkpoint(folder / "torn") / "agent.safetensors").unlink()
    (make_checkpoint(folder / "garbled") / "agent.json").write_text("{")
    described = read_description(make_checkpoint(folder / "nowhere"))
    del described["env"]
    (folder / "nowhere" / "agent.json").write_text(json.dumps(described))
    before = sorted(folder.rglob("*"))
    assert_refused(parsec(folder, "evaluate", *arguments), *words)
    assert sorted(folder.rglob("*")) == before


def test_report_refuses_what_is_no_run(folder):
    assert_refused(parsec(folder, "report", "."), "spec.yaml")
    assert_refused(parsec(folder, "report", "absent"))


def test_doctor_tells_what_it_finds(folder, monkeypatch, capsys):
    from parsecrl.platform import doctor

    monkeypatch.setattr(doctor, "_ray", lambda address: iter([("BAD", "ray", "unreachable")]))
    monkeypatch.setattr(doctor, "_rendering", lambda: 1 / 0)
    assert doctor.report() is False
    out = capsys.readouterr().out
    assert "torch" in out
    assert "products    torch (fixed by PARSEC_PRODUCTS)" in out
    assert doctor.machine()["products"] == "torch (fixed by PARSEC_PRODUCTS)"
    assert "unreachable" in out
    assert "ZeroDivisionError" in out


def test_doctor_makes_a_world_of_pixels_or_says_why_not():
    from parsecrl.platform import doctor

    ((how, what, detail),) = doctor._pixels()
    assert (how, what) == ("ok", "pixels")
    assert detail.startswith("vizdoom 1.")
    assert doctor._failure("import absent") == "ModuleNotFoundError: No module named 'absent'"


def test_no_command_is_a_mistake(folder):
    done = parsec(folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_agent_json_is_readable(folder):
    description = json.loads((make_checkpoint(folder / "checkpoint") / "agent.json").read_text())
    assert description["obs_size"] == 17
    assert Path(folder / "checkpoint" / "agent.safetensors").stat().st_size > 0
