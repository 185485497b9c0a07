"""A whole run in miniature, killed in every phase; and the parts that make it survive."""

import io
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ray import cloudpickle, tune
from ray.train import Checkpoint
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Experiment, Trial
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.search.basic_variant import BasicVariantGenerator

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, TIME_S
from parsecrl.algorithms.reporting.diagnostics import Returns
from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.progress import PhaseProgress, ResultHistory
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec, parse_spec
from parsecrl.platform.storage import RemotePath, location_of, remove_tree, writable_storage
from parsecrl.platform.terminal import StatusLine
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


def store(trial, number, score, age=0.0, **metrics):
    folder = trial / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    (folder / "agent.json").write_text(json.dumps({"env_steps": number}))
    stored_checkpoints.mark_whole(folder, {"score": score, "env_steps": number, **metrics})
    written = time.time() - age
    os.utime(folder / "metrics.json", (written, written))
    return folder


def test_the_best_and_what_a_restart_needs_are_kept(tmp_path):
    trial = tmp_path / "trial_00000"
    scores = [float("nan"), 5.0, 9.0, 7.0, 8.0, 1.0, 2.0, 3.0, 2.5]
    for number, score in enumerate(scores):
        store(trial, number, score, age=300 - 40 * number)
    stored_checkpoints.prune(tmp_path, "trial_00000", protected={str(trial / "checkpoint_000000")})
    left = {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)}
    # Best: 2, 3, 4. Younger than a minute: 7, 8; and the last before those: 6. Protected: 0.
    assert left == {0, 2, 3, 4, 6, 7, 8}
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 2


def test_a_mount_whose_clock_is_behind_loses_nothing(tmp_path):
    trial = tmp_path / "trial_00000"
    for number in range(6):
        store(trial, number, score=-number, age=3600 + 10 * (5 - number))
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} == set(range(6))


def test_a_checkpoint_without_a_score_is_worse_than_any_other(tmp_path):
    for number, metrics in enumerate([{"episode_return_mean": 7.0}, {"score": 5.0, "episode_return_mean": 9.0}]):
        folder = tmp_path / "trial_00000" / f"checkpoint_{number:06d}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    assert [c.score for c in stored_checkpoints.stored_checkpoints(tmp_path)] == [-float("inf"), 5.0]
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 1


def test_half_a_checkpoint_does_not_count(tmp_path):
    trial = tmp_path / "trial_00000"
    store(trial, 1, 5.0)
    (store(trial, 2, 9.0) / "metrics.json").unlink()
    (store(trial, 3, 9.0) / "agent.json").write_text(json.dumps({"env_steps": 77}))
    assert [c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)] == [1]
    stored_checkpoints.forget_after(trial, 1)
    assert [f.name for f in trial.iterdir()] == ["checkpoint_000001"]


def test_of_equal_checkpoints_the_later_is_best(tmp_path):
    store(tmp_path / "trial_00000", 1, 5.0)
    store(tmp_path / "trial_00000", 2, 5.0)
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 2


def test_the_random_policys_score_makes_no_untrained_agent_the_best(tmp_path):
    """A task in which the agent is worse than the seed episodes, for now."""
    trial = tmp_path / "trial_00000"
    for number, score in enumerate([-118.0, -117.0, -116.0, -3000.0, -3130.0]):
        store(trial, number, score, age=600 - 100 * number, num_updates=max(0, 20 * (number - 2)))
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 3
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} >= {2, 3, 4}


def test_the_status_line_costs_little_with_many_trials(tmp_path):
    progress = PhaseProgress("planet", str(tmp_path), {"env_steps": 1e9}, STOPS)
    progress.line = StatusLine(io.StringIO())
    trials = [Trial("planet", stub=True, trial_id=f"x_{number:05d}") for number in range(500)]
    shown, describe = [], progress.describe
    progress.describe = lambda running: shown.append(running) or describe(running)
    for trial in trials:
        progress.on_trial_result(0, trials, trial, {"env_steps": 1000, "training_iteration": 1, "config": {}})
    assert 1 <= len(shown) < 250
    assert len(progress.results) == 500
    before = len(shown)
    progress.on_experiment_end(trials)
    assert len(shown) == before + 1


def test_the_status_line_counts_trials_that_an_earlier_driver_saw_end(tmp_path):
    progress = PhaseProgress("planet", str(tmp_path), {"env_steps": 1e4}, STOPS)
    progress.line = StatusLine(io.StringIO())
    before, now = (Trial("planet", stub=True, trial_id=f"x_{number:05d}") for number in range(2))
    before.status = Trial.TERMINATED
    progress.on_trial_result(0, [before, now], now, {"env_steps": 1000, "training_iteration": 1, "config": {}})
    assert "1 of 2 trials ended" in progress.describe(running=1)


def test_tunes_state_does_not_hold_each_checkpoints_result(tmp_path):
    """It is written every few seconds, for all trials, and would grow with each checkpoint."""
    quiet_ray()
    progress = PhaseProgress("planet", str(tmp_path), {"env_steps": 1e9}, STOPS, 10)
    progress.line = StatusLine(io.StringIO())
    storage = StorageContext(storage_path=str(tmp_path), experiment_dir_name="planet")
    trial = Trial("planet", stub=True, trial_id="x_00000", storage=storage)
    sizes = []
    for number in range(1, 41):
        result = {"training_iteration": number, "config": {"long": "x" * 10_000}, "note": "y" * 500}
        progress.on_trial_result(0, [trial], trial, result)
        trial.update_last_result(result)
        stored = Checkpoint(str(tmp_path / f"checkpoint_{number:06d}"))
        trial.on_checkpoint(_TrainingResult(checkpoint=stored, metrics=trial.last_result))
        sizes.append(sum(map(len, trial.get_json_state())))
    assert trial.checkpoint.path.endswith("checkpoint_000040")
    assert sizes[-1] - sizes[9] < 30 * 400
    assert "x" * 100 not in "".join(trial.get_json_state())


def test_the_status_line_warns_of_a_run_that_is_worse_than_random(tmp_path):
    """At each look in few words, once in full; a trial that is better than the others is what is judged."""
    progress, stream = PhaseProgress("planet", str(tmp_path), {"env_steps": 1e4}, STOPS), io.StringIO()
    progress.line, progress.random = StatusLine(stream), Returns(-118.0, 20.0, 8)
    trials = [Trial("planet", stub=True, trial_id=f"x_{number:05d}") for number in range(2)]
    for number in range(1, 10):
        for trial, score in zip(trials, (-3130.0 - number, -4000.0), strict=True):
            result = {"env_steps": 1000 * number, "num_updates": number, "training_iteration": number, "score": score}
            progress.on_trial_result(0, trials, trial, {**result, "episode_return_mean": score, "config": {}})
    assert progress.describe(running=2).count("warning: worse than random") == 1
    told = "planet: warning: training returns are worse than the random policy's (-3,138 against -118); look at"
    assert stream.getvalue().count("planet: warning: ") == 1
    assert told in stream.getvalue()
    assert pickle.loads(pickle.dumps(progress)).random == progress.random  # as Tune does it


def test_a_history_of_many_results_is_thinned(tmp_path):
    history = ResultHistory()
    for number in range(10_000):
        history.add({"num_updates": number, "losses": {"reward_explained_variance": -number}})
    series = history.series()
    assert len(series["num_updates"]) <= history.LIMIT
    assert series["num_updates"][-1] == 9999
    assert len(set(np.diff(series["num_updates"])[:-1])) == 1  # old and new results equally far apart
    assert series["losses/reward_explained_variance"][-1] == -9999
    assert np.isnan(series["task_score"]).all()


def test_the_status_line_says_how_long_it_will_take():
    from parsecrl.platform.runs.results import fraction_done
    from parsecrl.platform.terminal import duration

    assert fraction_done({"env_steps": 100, "time_s": 10}, STOPS, {"env_steps": 20, "time_total_s": 5}) == 0.5
    progress = PhaseProgress("planet", "/nowhere", {"env_steps": 100}, STOPS, 1, "http://here:8265")
    progress.results["a"] = {"env_steps": 25, "score": 12.3, "planning_ms": 4.56, "time_total_s": 60.0}
    progress.recent["a"] = [(0.0, 0.25)]
    text = progress.describe(running=1)
    assert "25 of 100 env steps" in text
    assert "return 12.3" in text
    assert "4.56 ms a plan" in text
    assert "3 min left" in text
    assert "http://here:8265" in text
    assert [duration(s) for s in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]


def test_every_stop_condition_of_a_spec_ends_a_trial_and_is_shown():
    from parsecrl.platform.running.progress import PhaseProgress, StopWhenReached
    from parsecrl.platform.specs import load_spec

    known = {phase.name: phase.stop_conditions for phase in load_spec("cheetah_run_quick").phases}
    for phase, key in [(phase, key) for phase, conditions in known.items() for key in conditions]:
        result_key = known[phase][key].result_key
        stop = StopWhenReached({key: 10}, known[phase])
        assert not stop("a", {result_key: 9})
        assert stop("a", {result_key: 10})
        progress = PhaseProgress(phase, "/nowhere", {key: 10}, known[phase])
        progress.results["a"] = {result_key: 9}
        assert "9 of 10 " in progress.describe(running=0)


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


def test_of_a_trial_that_is_evaluated_the_best_is_one_that_was(tmp_path):
    """A score stands until the next evaluation, but is of the weights that were evaluated."""
    trial = tmp_path / "trial_00000"
    scores = [(-90.0, -1), (50.0, 10), (50.0, 10), (40.0, 30), (40.0, 30)]
    for number, (score, evaluated) in enumerate(scores):
        store(trial, number, score, age=600 - 100 * number, num_updates=10 * number, evaluated_updates=evaluated)
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 1
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} >= {1, 3, 4}
