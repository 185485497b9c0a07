"""What the driver says and keeps of the results that arrive."""

import io
import pickle
import re

import numpy as np
import pytest
from ray.train import Checkpoint
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, TIME_S
from parsecrl.algorithms.reporting.diagnostics import Returns
from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.running.progress import PhaseProgress, ResultHistory
from parsecrl.platform.specs import load_spec
from parsecrl.platform.terminal import StatusLine

STOPS = {"env_steps": ENV_STEPS, "time_s": TIME_S}


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
    # At which result the line is shown next depends on how busy the machine is.
    told = r"planet: warning: training returns are worse than the random policy's \(-3,13\d against -118\); look at"
    assert stream.getvalue().count("planet: warning: ") == 1
    assert re.search(told, stream.getvalue())
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

    known = {phase.name: phase.stop_conditions for phase in load_spec("cheetah_run_quick").phases}
    for phase, key in [(phase, key) for phase, conditions in known.items() for key in conditions]:
        result_key = known[phase][key].result_key
        stop = StopWhenReached({key: 10}, known[phase])
        assert not stop("a", {result_key: 9})
        assert stop("a", {result_key: 10})
        progress = PhaseProgress(phase, "/nowhere", {key: 10}, known[phase])
        progress.results["a"] = {result_key: 9}
        assert "9 of 10 " in progress.describe(running=0)


def test_the_run_takes_what_its_other_phases_take_at_this_pace(monkeypatch):
    from parsecrl.algorithms.registry.workload import Constants
    from parsecrl.platform.capacity.estimate import estimate_phases, evaluations_s, sizes_of
    from parsecrl.platform.running import time_left

    monkeypatch.setattr(time_left, "matrix_rate", lambda seconds: Constants().matrix_flops)  # of the reference machine
    spec, study = load_spec("cheetah_run_quick"), load_spec("parsimony_sac_quick")
    sizes = sizes_of(spec)
    loads = estimate_phases(spec, Constants(), 2.0, 0.0, sizes)
    planet, embed, finetune = (3600 * load.hours for load in loads)
    evaluations = evaluations_s(spec, loads, sizes, Constants())
    rest = time_left.rest_of_run(spec, spec.phases[0], 2.0, 0.0)
    assert rest(planet) == pytest.approx(embed + finetune + evaluations)
    assert rest(2 * planet) == pytest.approx(2 * rest(planet))
    assert time_left.rest_of_run(spec, spec.phases[2], 2.0, 0.0)(finetune) == pytest.approx(evaluations)
    assert time_left.rest_of_run(study, study.phases[0], 2.0, 0.0) is None

    progress = PhaseProgress("planet", "/nowhere", {"env_steps": 100}, STOPS)
    progress.results["a"] = {"env_steps": 25, "time_total_s": 60.0}
    progress.recent["a"] = [(0.0, 0.25)]
    progress.rest = lambda seconds: 2 * seconds
    assert "3 min left, 11 min of the run" in progress.describe(running=1)


def test_a_log_has_the_line_that_work_begins_with():
    from parsecrl.platform.terminal import StatusLine

    stream = io.StringIO()
    line = StatusLine(stream)
    for text in ("planet: starting", "planet: 10 of 20", "embed: starting", "embed: 1 of 3", "report"):
        line.show(text)
    assert stream.getvalue().splitlines() == ["planet: starting", "embed: starting", "report"]
