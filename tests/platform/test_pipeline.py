"""A whole run in miniature, killed in every phase; and the parts that make it survive."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ray import cloudpickle, tune
from ray.tune.experiment import Experiment
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.search.basic_variant import BasicVariantGenerator

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, TIME_S
from parsecrl.platform.errors import UserError
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec, parse_spec
from parsecrl.platform.storage import RemotePath, location_of, remove_tree, writable_storage
from tests.platform.tiny import DRIVER, TINY

STOPS = {"env_steps": ENV_STEPS, "time_s": TIME_S}


def start(folder, *arguments):
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "0.2"},
        )


def iterations(run, phase):
    """(iteration, process) of every result of a phase, in the order of writing."""
    found = []
    for file in run.glob(f"{phase}/*/result.json"):
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            found.append((record["training_iteration"], record["pid"]))
    return found


def wait_until(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def copied(source, target):
    """All files of a folder in another one, each on disk or in a store, as any program would copy them."""
    for file in source.files() if isinstance(source, RemotePath) else filter(Path.is_file, source.rglob("*")):
        copy = target / file.relative_to(source).as_posix()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_run_killed_in_every_phase_goes_on_where_it_was_though_it_was_moved(tmp_path, s3):
    """From a folder to another one, to a store under another name, and back, each time with other resources."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    places = [tmp_path / "place-one", tmp_path / "place two", location_of(s3) / "place-three", tmp_path / "place-four"]
    names = ["tiny", "tiny", "renamed", "renamed"]
    runs = [place / name for place, name in zip(places, names, strict=True)]
    runners = [0, 0, 1, 0]

    def begin(number):
        options = ["--storage", str(places[number]), "--name", names[number]]
        return start(tmp_path, *options, "--set", f"resources.num_env_runners={runners[number]}")

    before_kill = {}
    for number, phase in enumerate(("planet", "embed", "finetune")):
        run, process = runs[number], begin(number)
        wait_until(lambda run=run, phase=phase: len(iterations(run, phase)) >= 3, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before_kill[phase] = {pid for _, pid in iterations(run, phase)}
        if phase != "planet":
            state = json.loads((run / "state.json").read_text())
            assert state["planet"]["status"] == "finished"
        copied(run, runs[number + 1])
        remove_tree(run)
    run, process = runs[-1], begin(3)
    assert process.wait(timeout=600) == 0, (tmp_path / "log.txt").read_text()[-3000:]

    state = json.loads((run / "state.json").read_text())
    assert [state[phase]["status"] for phase in before_kill] == ["finished"] * 3
    assert state["planet"]["env_steps"] >= 15000
    for phase, killed in before_kill.items():
        found = iterations(run, phase)
        # One process before the kill and one after it: it went on, and was not run again in later starts.
        assert len(killed) == 1
        assert len({pid for _, pid in found}) == 2
        after = [number for number, pid in found if pid not in killed]
        assert after[0] > 1
        assert after == list(range(after[0], after[-1] + 1))
        assert {number for number, _ in found} == set(range(1, after[-1] + 1))
        # Counters and replay went on as well: each iteration has more steps than the one before, none of them lost.
        rows = [json.loads(line) for file in run.glob(f"{phase}/*/result.json") for line in file.open()]
        by_iteration = {row["training_iteration"]: row for row in rows}
        steps = [by_iteration[number]["env_steps"] for number in sorted(by_iteration)]
        assert all(a < b for a, b in itertools.pairwise(steps))
        if phase == "planet":
            assert all(row["replay_decisions"] * 10 == row["env_steps"] for row in rows)
            assert all(row["score"] == row["episode_return_mean"] for row in rows)  # after a restart too
    began = {phase: json.loads(next(run.glob(f"{phase}/*/params.json")).read_text()) for phase in before_kill}
    for phase, origin in (("embed", "planet"), ("finetune", "embed")):
        assert began[phase]["start_from"] == f"run-folder://{state[origin]['checkpoint']}"
    # The runners of the continuing process: embed went on with one, finetune without.
    assert [began[phase]["num_env_runners"] for phase in before_kill] == [0, 1, 0]

    # No file says where the run is or was, but for what Tune has of its storage and mends itself.
    tunes = {"tuner.pkl", *(file.name for file in run.rglob("*state-*.json"))}
    marks = [mark for place in places for mark in (place.name.encode(), place.name.encode().hex().encode())]
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in tunes]
    assert len(files) > 100
    assert not [str(file) for file in files if any(mark in file.read_bytes() for mark in marks)]

    episodes = pd.read_csv(run / "evaluation.csv")
    assert episodes.groupby("phase").size().to_dict() == {"random": 2, "planet": 2, "embed": 2, "finetune": 2}
    assert list(episodes[episodes.phase == "finetune"].controller) == ["embedded"] * 2
    summary = json.loads((run / "summary.json").read_text())
    assert summary["name"] == "renamed"
    for phase in before_kill:
        found = summary["phases"][phase]
        assert {"best_trial", "checkpoint", "env_steps", "median", "q25", "q75", "iqm", "iqm_low", "iqm_high"} <= set(
            found
        )
        assert (run / found["checkpoint"] / "agent.json").is_file()
        assert found["wall_time_s"] > 0
    assert "median" in (tmp_path / "log.txt").read_text()

    # Nothing is left to do: nothing is done, wherever the folder is, but for saying so.
    run, told = run.rename(tmp_path / "renamed"), {"summary.json", "progress.json"}
    written = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name not in told}
    process = start(tmp_path, "--storage", str(tmp_path), "--name", "renamed")
    assert process.wait(timeout=600) == 0
    assert written == {file: file.stat().st_mtime_ns for file in written}
    assert set(written) == {file for file in run.rglob("*") if file.is_file() and file.name not in told}


@pytest.mark.ray
def test_trials_of_a_moved_sweep_that_had_not_begun_begin_at_the_new_place(tmp_path, ray_runtime):
    from parsecrl.platform.cluster.tune_private import updated_search
    from parsecrl.platform.running.trainables import trainable_of

    def space(runners):
        model = {"size": tune.choice([3, 4]), "levels": [1, 2]}
        return {"num_env_runners": runners, "model": model, "rate": tune.grid_search([0.1, 0.2, 0.3]), "class": int}

    def search(runners, folder):
        """A search of six trials, two of each rate."""
        made = BasicVariantGenerator(random_state=0)
        config = inject_placeholders(space(runners), create_resolvers_map())
        experiment = Experiment(
            "sweep", trainable_of("cartpole_embedding"), config=config, num_samples=2, storage_path=str(folder)
        )
        made.add_configurations([experiment])
        return made

    def left(search):
        return list(iter(search.next_trial, None))

    begun = search(0, tmp_path / "before")
    begun.next_trial()
    stored = cloudpickle.dumps(begun.get_state())
    moved = BasicVariantGenerator()
    searched = ["model.size", "rate"]
    moved.set_state(cloudpickle.loads(updated_search(stored, space(2), searched, str(tmp_path / "after"))))
    expected, found = left(begun), left(moved)
    assert [trial.config for trial in found] == [{**trial.config, "num_env_runners": 2} for trial in expected]
    assert [trial.config["rate"] for trial in found] == [0.2, 0.3, 0.1, 0.2, 0.3]
    assert {trial.storage.experiment_fs_path for trial in found} == {str(tmp_path / "after" / "sweep")}


@pytest.mark.ray
def test_a_sweep_ends_on_its_best_trial_and_can_be_prolonged(tmp_path, ray_runtime, capsys):
    from parsecrl.platform.running.pipeline import run_spec

    data = yaml.safe_load(TINY)
    data["phases"] = data["phases"][:1]
    data["phases"][0] |= {
        "search": {"controller.num_iterations": {"grid": [1, 2]}, "learning_rate": {"loguniform": [1e-4, 1e-3]}},
        "stop": {"env_steps": 2500},  # one iteration
    }
    data["evaluate"] = {"episodes": 1, "random": False, "videos": False}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(data))
    run = run_spec(load_spec(file), tmp_path)
    agents = [json.loads(f.read_text()) for f in run.glob("planet/*/checkpoint_*/agent.json")]
    assert {agent["controller"]["num_iterations"] for agent in agents} == {1, 2}
    state = json.loads((run / "state.json").read_text())["planet"]
    assert state["trials"] == 2
    whole = stored_checkpoints.stored_checkpoints(run / "planet")
    assert max(c.score for c in whole) == stored_checkpoints.best_checkpoint(run / "planet").score
    assert (run / state["checkpoint"]).is_dir()

    # The same command with a later end goes on; with another learning rate it is refused.
    first = {trial.name: len(iterations(run, "planet")) for trial in run.glob("planet/trial_*")}
    report = run / "report" / "index.html"
    built = report.stat().st_mtime_ns
    assert run_spec(load_spec(file), tmp_path) == run
    assert report.stat().st_mtime_ns == built
    assert run_spec(load_spec(file, ["phases.planet.stop.env_steps=5000"]), tmp_path) == run
    assert report.stat().st_mtime_ns > built  # its curves are longer, whichever checkpoint is the best
    assert json.loads((run / "state.json").read_text())["planet"]["env_steps"] >= 5000
    steps = [n for n, _ in iterations(run, "planet")]
    assert len(steps) > max(first.values())
    with pytest.raises(UserError, match="batch_size was 4, is 5"):
        run_spec(load_spec(file, ["phases.planet.batch_size=5"]), tmp_path)
    other = RunFolder.choose(load_spec(file, ["phases.planet.batch_size=5"]), tmp_path, fresh=True)
    assert other.path == tmp_path / "tiny-2"


@pytest.mark.ray
def test_asha_ends_bad_trials_early(tmp_path, ray_runtime):
    from parsecrl.platform.running.pipeline import run_spec

    phase = {"name": "study", "algorithm": "tests.platform.constant_score:CONSTANT_SCORE", "scheduler": "asha"}
    phase |= {"search": {"quality": {"grid": [3.0, 2.0, 1.0, 0.0]}}, "stop": {"tasks": 20}, "checkpoint_every": 100}
    run = run_spec(parse_spec({"name": "asha", "phases": [phase]}, "asha.yaml"), tmp_path)
    ran = {}
    for file in run.glob("study/trial_*/result.json"):
        last = json.loads(file.read_text().splitlines()[-1])
        ran[last["score"]] = last["tasks"]
    assert ran[3.0] == 20
    # Two trials run at a time: those that come last meet better ones at the first rung, a tenth of the way.
    assert ran[1.0] == ran[0.0] == 2
    state = json.loads((run / "state.json").read_text())["study"]
    assert (state["trials"], state["failed_trials"]) == (4, 0)
    best = stored_checkpoints.best_checkpoint(run / "study")
    assert (best.score, best.metrics["tasks"]) == (3.0, 20)
    assert len(stored_checkpoints.stored_checkpoints(run / "study")) == 4  # what ended early has one too


@pytest.mark.ray
def test_a_bad_loss_ends_the_run_with_its_message_and_keeps_the_last_good_checkpoint(tmp_path, ray_runtime):
    from parsecrl.platform.errors import RunFailed
    from parsecrl.platform.running.pipeline import run_spec

    data = yaml.safe_load(TINY)
    data["phases"] = [{**data["phases"][0], "algorithm": "tests.platform.bad_loss:BAD_LOSS"}]
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(RunFailed, match=r"the loss term reward is nan at update 7.*last good checkpoint"):
        run_spec(load_spec(file), tmp_path)
    whole = stored_checkpoints.stored_checkpoints(tmp_path / "tiny" / "planet")
    assert max(c.metrics["training_iteration"] for c in whole) == 2


def test_a_later_phase_says_that_its_predecessor_went_on(tmp_path):
    from parsecrl.platform.running.one_chain import _origin_moved
    from parsecrl.platform.running.tune_phase import _begun_from

    (tmp_path / "tiny.yaml").write_text(TINY)
    folder = RunFolder.choose(load_spec(tmp_path / "tiny.yaml"), tmp_path)
    folder.open()
    folder.record("planet", {"status": "finished", "checkpoint": "planet/a/checkpoint_000001"})
    folder.record("embed", {"status": "finished", "start_from": "planet/a/checkpoint_000001"})
    embed = folder.spec.phase("embed")
    assert _origin_moved(folder, embed) == ""
    folder.record("planet", {"status": "finished", "checkpoint": "planet/a/checkpoint_000009"})
    assert "earlier checkpoint of planet" in _origin_moved(folder, embed)
    # A trial of embed that starts again reads where it began: prolonging planet once more must not delete that.
    assert {path.rpartition("_")[2] for path in _begun_from(folder)} == {"000001", "000009"}
    folder.close()


def test_storage(tmp_path):
    assert writable_storage(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert writable_storage(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert list(tmp_path.iterdir()) == []
    for bad in ("/proc/x", "s3://bucket", "file://host/x"):
        with pytest.raises(UserError):
            writable_storage(bad)


def test_a_run_folder_has_one_owner(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    spec = load_spec(tmp_path / "tiny.yaml")
    first = RunFolder.choose(spec, tmp_path)
    first.open()
    with pytest.raises(UserError, match="in use"):
        RunFolder.choose(spec, tmp_path)
    first.close()
    RunFolder.choose(spec, tmp_path).open()


def test_what_a_kill_leaves_before_the_spec_does_not_take_the_name(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    spec = load_spec(tmp_path / "tiny.yaml")
    (tmp_path / "tiny").mkdir()
    for name in (".lock", ".spec.yaml.4711.tmp", ".clock-0", "made_by.json"):
        (tmp_path / "tiny" / name).write_text("")
    RunFolder.choose(spec, tmp_path)
    (tmp_path / "tiny" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is no run folder"):
        RunFolder.choose(spec, tmp_path)


def test_a_folder_that_cannot_be_opened_is_left_unlocked(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    spec, other = (load_spec(tmp_path / "tiny.yaml", [f"seed={seed}"]) for seed in (0, 1))
    late = RunFolder.choose(other, tmp_path)
    first = RunFolder.choose(spec, tmp_path)
    first.open()
    first.close()
    with pytest.raises(UserError, match="seed was 0, is 1"):
        late.open()
    RunFolder.choose(spec, tmp_path).open()


def test_a_run_folder_takes_later_ends_and_no_other_changes(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    first = RunFolder.choose(load_spec(tmp_path / "tiny.yaml"), tmp_path)
    first.open()
    first.record("planet", {"status": "running"})
    first.close()
    for change in ("phases.planet.stop.env_steps=9", "phases.planet.stop.time_s=9.0", "evaluate.episodes=3"):
        RunFolder.choose(load_spec(tmp_path / "tiny.yaml", [change]), tmp_path)
    stored = first.path / "spec.yaml"
    stored.write_text(stored.read_text().replace("  decisions_per_iteration: 250\n", ""))  # by an earlier version
    RunFolder.choose(load_spec(tmp_path / "tiny.yaml"), tmp_path)
    with pytest.raises(UserError, match=r"phases\.planet\.train_ratio was 0\.002, is 0\.5"):
        RunFolder.choose(load_spec(tmp_path / "tiny.yaml", ["phases.planet.train_ratio=0.5"]), tmp_path)


def test_writes_are_whole_or_not_at_all(tmp_path):
    from parsecrl.platform.storage import write_atomically

    file = tmp_path / "summary.json"
    write_atomically(file, "old")
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        write_atomically(file, "new" * 1000)
        write_atomically(file, "old")
    stop.set()
    reader.join()
    assert seen <= {"old", "new" * 1000}
    assert [f.name for f in tmp_path.iterdir()] == ["summary.json"]
