"""Searches and schedulers of Tune's: what they draw, what they stop, and that a kill costs nothing."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import UserError
from parsecrl.platform.running import preflight
from parsecrl.platform.runs import stored_checkpoints
from parsecrl.platform.specs import load_spec, parse_spec
from tests.platform.tiny import DRIVER

ROOT = Path(__file__).parents[2]
TOY = "tests.platform.toy_search:TOY"
RATE = {"inner.rate": {"uniform": [0.0, 1.0]}}


def spec_of(**phase):
    phase = {"name": "study", "algorithm": TOY, "search": RATE, "stop": {"env_steps": 100}, **phase}
    return parse_spec({"name": "toy", "phases": [phase], "loggers": []}, "toy.yaml")


def drawn(space, count=50):
    """Configs of a space, always the same."""
    random = np.random.default_rng(3)
    return [
        variant["config"]
        for _ in range(count)
        for _, variant in generate_variants({"config": space}, random_state=random)
    ]


def trials_of(run):
    """Name -> the last result, with the settings that the trial ended with."""
    found = {}
    for folder in sorted(run.glob("study/trial_*")):
        rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        found[folder.name] = rows[-1] | {"settings": json.loads((folder / "params.json").read_text())}
    return found


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ({"search_alg": "pbt"}, r"num_samples must be 2 or more with search_alg pbt, got 1; raise it"),
        ({"search_alg": "optuna", "search": {}}, r"search_alg optuna needs keys under search, got none"),
        ({"search_alg": "pbt", "num_samples": 4, "scheduler": "asha"}, r"scheduler must be none with search_alg pbt"),
        ({"search": {"inner.rate": {"quniform": [0.0, 1.0, 0.3]}}}, r"multiples of a step above 0, got"),
        ({"search": {"inner.width": {"randint": [4.5, 8]}}}, r"randint.* valid integer"),
        ({"search": {"inner.width": {"randint": [4, 80]}}}, r"reaches inner.width=79"),
        ({"search": {"inner.depth": {"randint": [4, 8]}}}, r"'inner.depth' is not a key of the phase that can be"),
        ({"search": {"checkpoint_every": {"randint": [4, 8]}}}, r"'checkpoint_every' is not a key .* can be searched"),
        ({"search": {**RATE, "extra": {"uniform": [0, 1], "when": {"kind": "fancy"}}}}, r"`when` must name .* 'kind'"),
        (
            {"search": {"kind": {"choice": ["plain", "fancy"]}, "extra": {"grid": [1.0], "when": {"kind": "fancy"}}}},
            r"search.extra.when needs a key that is drawn for each trial, got grid with search_alg grid",
        ),
        ({"grace_period": 10}, r"grace_period needs a scheduler, got 10 without; take grace_period out"),
        ({"scheduler": "asha", "grace_period": 1000}, r"grace_period must not exceed stop.env_steps=100, got 1000"),
        ({"search_alg": "optuna", "search": {"inner.rate": {"qloguniform": [0.1, 1.0, 0.1]}}}, r"cannot be qlogunif"),
    ],
)
def test_bad_searches_are_refused_with_rule_value_and_remedy(phase, said):
    with pytest.raises(UserError, match=said) as error:
        spec_of(**phase)
    assert "\n" not in str(error.value)


def test_an_optuna_that_is_not_installed_is_told_before_anything_runs(monkeypatch):
    spec = spec_of(search_alg="optuna", num_samples=3)
    preflight.check_searches(spec)
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package optuna, .* run pip install 'parsec-rl\[optuna\]'"):
        preflight.check_searches(spec)


def test_every_kind_of_domain_draws_what_tune_draws():
    from parsecrl.platform.running.search_space import param_space

    kinds = {
        "uniform": [0.1, 0.9],
        "quniform": [0.2, 0.8, 0.2],
        "loguniform": [0.01, 1.0],
        "qloguniform": [0.1, 1.0, 0.1],
        "randint": [1, 4],
        "qrandint": [2, 8, 2],
        "lograndint": [1, 9],
        "qlograndint": [2, 8, 2],
        "choice": [1, 4, 9],
        "grid": [1, 4],
    }
    for kind, arguments in kinds.items():
        key = "inner.width" if "int" in kind or kind in ("choice", "grid") else "inner.rate"
        phase = spec_of(search={key: {kind: arguments}}, search_alg="random").phases[0]
        space = param_space({"inner": {"rate": 0.5, "width": 8}, "seed": 1}, phase)
        own = {config["inner"][key.rpartition(".")[2]] for config in drawn(space)}
        theirs = tune.choice(arguments) if kind in ("grid", "choice") else getattr(tune, kind)(*arguments)
        assert own == {config["x"] for config in drawn({"x": theirs})}, kind
        assert len(own) > 1


def test_a_key_with_conditions_is_drawn_where_they_hold():
    from parsecrl.platform.running.search_space import param_space

    search = {"extra": {"uniform": [1.0, 2.0], "when": {"kind": ["fancy"]}}, "kind": {"choice": ["plain", "fancy"]}}
    phase = spec_of(search=search, search_alg="random").phases[0]
    space = param_space({"extra": 0.0, "kind": "plain"}, phase)
    found = drawn(space)
    assert {c["kind"] for c in found} == {"plain", "fancy"}
    assert all((c["extra"] == 0.0) if c["kind"] == "plain" else 1.0 <= c["extra"] <= 2.0 for c in found)
    assert len({c["extra"] for c in found}) > 10


def test_the_specs_of_the_docs_are_valid(tmp_path):
    text = (ROOT / "docs/sweeps.md").read_text()
    specs = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for number, lines in enumerate(specs):
        (tmp_path / f"{number}.yaml").write_text(lines)
    found = [load_spec(tmp_path / f"{number}.yaml").phases[0] for number in range(len(specs))]
    assert [phase.search_alg for phase in found] == ["optuna", "pbt"]
    assert found[0].search["solver.kind"].choice == ["unrolled_gd", "dcem"]  # in place of the extended spec's grid
    assert list(found[1].search) == ["lr"]


class FakeTrial:
    """What schedulers that only stop trials look at."""

    def __init__(self, name):
        self.trial_id = name


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_that_is_restored_decides_as_one_that_went_on(scheduler):
    from parsecrl.platform.running.schedulers import SchedulerState, scheduler_of

    phase = spec_of(scheduler=scheduler, grace_period=10).phases[0]
    random = np.random.default_rng(0)
    names, stopped = [f"t{i}" for i in range(30)], set()
    first, second = scheduler_of(phase), scheduler_of(phase)
    keeper = SchedulerState(first)
    trials, again = [FakeTrial(name) for name in names], [FakeTrial(name) for name in names]
    scores = dict(zip(names, random.permutation(30), strict=True))

    def decisions(of, its, steps):
        said, ended = [], set(stopped)
        for step in steps:
            for trial in its:
                if trial.trial_id not in ended:
                    result = {"env_steps": step, "score": float(scores[trial.trial_id] * step)}
                    said.append((trial.trial_id, step, of.on_trial_result(None, trial, result)))
                    ended |= {trial.trial_id} if said[-1][2] == "STOP" else set()
        return said

    for trial in trials:
        first.on_trial_add(None, trial)
    early = decisions(first, trials, (10, 20))
    stopped |= {name for name, _, decision in early if decision == "STOP"}
    for trial in again:
        second.on_trial_add(None, trial)
    restored = SchedulerState(second)
    restored.set_state(pickle.loads(pickle.dumps(keeper.get_state())))
    restored.on_step_begin(0, again)
    late = decisions(first, trials, (30, 60, 90))
    assert late == decisions(second, again, (30, 60, 90))
    assert any(decision == "STOP" for *_, decision in early + late)
    # Without the state it would decide otherwise.
    third = scheduler_of(phase)
    for trial in again:
        third.on_trial_add(None, trial)
    SchedulerState(third, anew=True).set_state(keeper.get_state())
    assert late != decisions(third, again, (30, 60, 90)) or scheduler == "asha"


def test_settings_of_a_population_stay_in_their_ranges_on_their_steps():
    from parsecrl.platform.running.search_space import clipped, mutations

    search = {
        "inner.rate": {"uniform": [0.0, 1.0]},
        "inner.width": {"qrandint": [8, 32, 8]},
        "kind": {"grid": ["plain", "fancy"]},
    }
    search = spec_of(search=search, search_alg="pbt", num_samples=2).phases[0].search
    config = {"inner": {"rate": 1.2, "width": 38}, "kind": "fancy"}
    assert clipped(config, search) == {"inner": {"rate": 1.0, "width": 32}, "kind": "fancy"}
    assert clipped({"inner": {"rate": -0.1, "width": 13}, "kind": "plain"}, search)["inner"] == {
        "rate": 0.0,
        "width": 16,
    }
    found = mutations(search)
    assert found["kind"] == ["plain", "fancy"]
    assert {found["inner"]["width"].sample() for _ in range(40)} == {8, 16, 24, 32}


def test_a_journal_survives_half_a_line_and_goes_on(tmp_path):
    from parsecrl.platform.running.optuna_search import JOURNAL, Tpe

    phase = spec_of(search_alg="optuna", num_samples=9).phases[0]
    study = Tpe(phase, tmp_path, 1)
    drawn = {name: study.suggest(name)["inner"]["rate"] for name in ("a", "b", "c")}
    study.on_trial_complete("a", {"score": 2.0})
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 4, "work')  # killed in mid-write
    again = Tpe(phase, tmp_path, 1)
    again.forget_all_but(["a", "b"])  # c was drawn, and Tune never heard of it
    assert again.drawn == 2
    again.on_trial_complete("a", {"score": 5.0})  # it ended before
    again.on_trial_complete("b", {"score": float("nan")})
    assert again.suggest("d")["inner"]["rate"] not in drawn.values()
    states = {t.user_attrs["trial"]: (t.state.name, t.value) for t in again._ot_study.trials}
    assert states == {"a": ("COMPLETE", 2.0), "b": ("FAIL", None), "c": ("FAIL", None), "d": ("RUNNING", None)}
    assert Tpe(phase, tmp_path, 1).drawn == 4


@pytest.mark.ray
def test_optuna_finds_the_best_settings_and_keeps_its_study(tmp_path, ray_runtime):
    import optuna

    from parsecrl.platform.running.optuna_search import JOURNAL, STUDY
    from parsecrl.platform.running.pipeline import run_spec

    search = {
        "kind": {"choice": ["plain", "fancy"]},
        "extra": {"uniform": [0.0, 1.0], "when": {"kind": "fancy"}},
        "inner.rate": {"quniform": [0.0, 1.0, 0.1]},
        "inner.width": {"qrandint": [8, 64, 8]},
        "labels": {"choice": [["a"], ["a", "b"]]},
    }
    run = run_spec(spec_of(search=search, search_alg="optuna", num_samples=16, stop={"env_steps": 10}), tmp_path)
    trials = trials_of(run)
    assert len(trials) == 16
    for trial in trials.values():
        settings = trial["settings"]
        assert settings["inner"]["width"] % 8 == 0
        assert settings["kind"] == "fancy" or settings["extra"] == 0.0
        assert settings["labels"] in (["a"], ["a", "b"])
    backend = optuna.storages.journal.JournalFileBackend(str(run / "study" / JOURNAL))  # Optuna's own reader
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name=STUDY, storage=storage)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert sorted(t.value for t in study.trials) == sorted(t["score"] for t in trials.values())
    # TPE draws at random ten times; what it draws then is better.
    values = [t.value for t in study.trials]
    assert sum(values[10:]) / 6 > sum(values[:10]) / 10
    assert study.best_params["kind"] == "fancy"


@pytest.mark.ray
def test_a_population_takes_over_its_best_and_changes_settings(tmp_path, ray_runtime):
    from parsecrl.platform.running.pipeline import run_spec

    # Two trials at a time and no third: none is paused. Both have the time to be judged several times: the better one
    # has a checkpoint to give from the second time on.
    phase = {"search_alg": "pbt", "num_samples": 2, "perturbation_interval": 40, "stop": {"env_steps": 200}}
    phase |= {"pause_s": 0.1}
    run = run_spec(spec_of(**phase, checkpoint_every=1), tmp_path)
    histories = {}
    for folder in sorted(run.glob("study/trial_*")):
        rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        histories[folder.name] = [row["parameters"]["inner.rate"] for row in rows]
        assert rows[-1]["env_steps"] == 200
        assert all(0.0 <= rate <= 1.0 for rate in histories[folder.name])
    assert len(histories) == 2
    assert any(len(set(rates)) > 1 for rates in histories.values())
    errors = [(abs(rates[0] - 0.8), abs(rates[-1] - 0.8)) for rates in histories.values()]
    assert max(last for _, last in errors) < max(first for first, _ in errors)
    best = stored_checkpoints.best_checkpoint(run / "study")
    assert set(best.metrics["parameters"]) == {"inner.rate"}


@pytest.mark.ray
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_schedulers_end_bad_trials_early_and_count_environment_steps(tmp_path, ray_runtime, scheduler):
    from parsecrl.platform.running.pipeline import run_spec

    rates = [0.8, 0.7, 0.5, 0.3, 0.1, 0.0]
    phase = {"scheduler": scheduler, "search": {"inner.rate": {"grid": rates}}, "stop": {"env_steps": 270}}
    trials = trials_of(run_spec(spec_of(**phase, grace_period=30), tmp_path))
    steps = {trial["settings"]["inner"]["rate"]: trial["env_steps"] for trial in trials.values()}
    assert steps[0.8] == 270
    assert min(steps.values()) >= 30
    assert sum(steps.values()) < 270 * len(rates)
    assert steps[0.0] < 270 or scheduler == "hyperband"


KILLED = {
    "optuna": {"search_alg": "optuna", "num_samples": 8},
    "pbt": {"search_alg": "pbt", "num_samples": 3, "perturbation_interval": 40},
    "asha": {"search_alg": "random", "num_samples": 8, "scheduler": "asha", "grace_period": 20},
    "hyperband": {"search_alg": "random", "num_samples": 8, "scheduler": "hyperband", "grace_period": 20},
    "median": {"search_alg": "optuna", "num_samples": 8, "scheduler": "median", "grace_period": 20},
}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KILLED)
def test_a_search_whose_driver_is_killed_loses_nothing_and_runs_nothing_twice(tmp_path, name):
    diary = tmp_path / "diary"
    diary.touch()
    phase = {"name": "study", "algorithm": TOY, "search": RATE, "stop": {"env_steps": 120}, "checkpoint_every": 1}
    phase |= {"pause_s": 0.15, "diary": str(diary), **KILLED[name]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "phases": [phase], "loggers": []}))

    environment = {"OMP_NUM_THREADS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "0.2", "PYTHONPATH": str(ROOT)}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip

    # A second kill finds the state of a driver that was restored: one search, and one scheduler with a state.
    for lines in (15, 30) if name in ("optuna", "pbt") else (20,):
        driver = start()
        while len(diary.read_text().splitlines()) < lines:
            assert driver.poll() is None, driver.stdout.read()
            time.sleep(0.02)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    last = start()
    printed, _ = last.communicate(timeout=600)
    assert last.returncode == 0, printed

    trials = trials_of(tmp_path / "runs/tiny")
    assert len(trials) == KILLED[name]["num_samples"]
    # Trials of the diary are those of the run: none was begun that the run forgot.
    steps = [tuple(line.split()) for line in diary.read_text().splitlines()]
    assert len({trial for trial, _ in steps}) == len(trials)
    # A kill repeats the last steps of the trials that ran, two at a time; of those that just ended where Tune had not
    # saved it yet.
    repeated = {trial for (trial, _), times in Counter(steps).items() if times > 1}
    if name != "pbt":  # of which iterations come again with another's weights
        assert len(repeated) <= (4 if KILLED[name]["search_alg"] == "optuna" else 6)
    state = json.loads((tmp_path / "runs/tiny/state.json").read_text())["study"]
    assert (state["status"], state["trials"], state["failed_trials"]) == ("finished", len(trials), 0)
    if name in ("optuna", "pbt"):
        assert {trial["env_steps"] for trial in trials.values()} == {120}
    else:
        assert max(trial["env_steps"] for trial in trials.values()) == 120
    if name != "pbt":
        settings = [trial["settings"]["inner"]["rate"] for trial in trials.values()]
        assert len(set(settings)) == len(settings)


quiet_ray()


@pytest.mark.ray
def test_two_runs_that_begin_in_one_second_store_their_own_trials_alone(tmp_path, ray_runtime, monkeypatch):
    """Tune names its driver's folder by the second and the experiment, which chains and jobs of a cluster can share."""
    from parsecrl.platform.running.pipeline import run_spec

    monkeypatch.setattr("ray.tune.utils.date_str", lambda: "2026-12-01_14-56-20")
    for name in ("first", "second"):
        run = run_spec(spec_of(stop={"env_steps": 10}), tmp_path, name)
        (folder,) = (path for path in (run / "study").iterdir() if path.is_dir())
        assert folder.name.startswith("trial_00000")
        assert len(list((run / "study").glob("experiment_state-*.json"))) == 1
    rates = [json.loads(file.read_text())["inner"]["rate"] for file in tmp_path.glob("*/study/*/params.json")]
    assert len(rates) == 2
