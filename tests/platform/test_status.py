"""`parsec status`: how a run stands, read from its folder alone; the names of trials; the time that is left."""

import io
import json
import re
import time
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.metrics.table import ReportsMetrics, labels_of
from parsecrl.platform.running.progress import PhaseProgress, trial_name
from parsecrl.platform.runs.progress_record import PROGRESS_FILE, RunProgress, Throttled, read_trials
from parsecrl.platform.runs.status import status_text
from parsecrl.platform.specs import chains_of, dump, load_spec
from parsecrl.platform.specs.phases import stop_conditions
from parsecrl.platform.storage import location_of
from parsecrl.platform.terminal import StatusLine
from tests.platform.tiny import TINY

STOPS = stop_conditions(load_spec("cheetah_run_quick").phases[0].entry)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return load_spec(tmp_path / "tiny.yaml")


def trial_of(number, status, parameters=None):
    trial = Trial("planet", stub=True, trial_id=f"x_{number:05d}", evaluated_params=parameters)
    trial.set_status(status)
    return trial


def sweep(folder):
    """A phase of four trials, as a driver leaves it that is its middle: one failed, one ended, one runs."""
    trials = [
        trial_of(number, status, {"controller/horizon": 3 + number})
        for number, status in enumerate([Trial.ERROR, Trial.TERMINATED, Trial.RUNNING, Trial.PENDING])
    ]
    (folder / "planet").mkdir(parents=True, exist_ok=True)
    progress = PhaseProgress("planet", folder / "planet", {"env_steps": 1000}, STOPS)
    progress.line = StatusLine(io.StringIO())
    progress.total_trials = 4
    progress.reason_of = {"x_00000": "ValueError: the pole broke (task.py:3) after 200 environment steps"}.get
    results = [
        (trials[1], {"env_steps": 1000, "score": 12.5, "done": True, "time_total_s": 50.0}),
        (trials[2], {"env_steps": 250, "score": 7.0, "time_total_s": 60.0}),
    ]
    for trial, result in results:
        progress.on_trial_result(0, trials, trial, {"training_iteration": 1, "num_updates": 5, "config": {}, **result})
    progress._record(trials, now=True)
    return progress


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    if request.param == "disk":
        (tmp_path / "runs").mkdir()
        return tmp_path / "runs"
    return location_of(request.getfixturevalue("s3"))


def test_a_run_on_disk_or_in_a_store_tells_of_phases_trials_and_failures(place, spec, capsys):
    folder = place / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(dump(spec))
    (folder / "state.json").write_text(json.dumps({"planet": {"status": "running"}}))
    sweep(folder)
    RunProgress(folder).tell("planet: env steps 1,000 of 1,000")
    assert main(["status", str(folder)]) == 0
    text = capsys.readouterr().out
    headline, _, rest = text.partition("\n\n")
    assert re.search(r"said \d s ago: planet: env steps 1,000 of 1,000", headline)
    planet = next(line.split() for line in rest.splitlines() if line.startswith("planet "))
    # Of four one ended and one failed; 1 + 0.25 of them are done.
    assert planet[:9] == ["planet", "running", "2", "of", "4", "1", "31", "%", "12.5"]
    assert any(line.split()[:2] == ["embed", "waiting"] for line in rest.splitlines())
    assert re.search(r"^trial_00002_horizon=5 +running +25 % +7$", rest, re.MULTILINE)
    assert "planet/trial_00000_horizon=3: ValueError: the pole broke (task.py:3)" in rest
    assert "trial_00003" not in rest  # it has not begun


def test_chains_are_told_each_and_those_to_come(tmp_path, spec):
    folder = tmp_path / "run"
    several = spec.model_copy(update={"seeds": 2})
    several.stated = {**spec.stated, "seeds": 2}
    chains = chains_of(several)
    first = folder / "chains" / chains[0].name
    first.mkdir(parents=True)
    for place, its in ((folder, several), (first, chains[0].spec)):
        (place / "spec.yaml").write_text(dump(its))
    records = [{key: value for key, value in chain._asdict().items() if key != "spec"} for chain in chains]
    (folder / "chains.json").write_text(json.dumps(records))
    state = {"status": "finished", "trials": 1, "failed_trials": 0, "checkpoint_metrics": {"score": 3.25}}
    (first / "state.json").write_text(json.dumps({"planet": state}))
    RunProgress(folder).tell("0 of 2 chains done")
    rows = [line.split() for line in status_text(folder).splitlines()]
    assert ["reference-seed0", "planet", "finished", "1", "of", "1", "0", "100", "%", "3.25", "-"] in rows
    assert ["reference-seed0", "embed", "waiting", "-", "-", "-", "-", "-"] in rows
    assert ["reference-seed1", "-", "waiting", "-", "-", "-", "-", "-"] in rows


def test_a_run_that_stopped_says_why_and_one_that_fell_silent_that_it_did(tmp_path, spec):
    (tmp_path / "spec.yaml").write_text(dump(spec))
    assert "nothing has been told yet" in status_text(tmp_path)
    progress = RunProgress(tmp_path)
    progress.tell("planet: starting")
    silent = json.loads((tmp_path / PROGRESS_FILE).read_text()) | {"at": time.time() - 600}
    (tmp_path / PROGRESS_FILE).write_text(json.dumps(silent))
    assert "said 10 min ago: planet: starting; if its process is gone" in status_text(tmp_path)
    progress.end(RuntimeError("no space left"))
    assert "stopped 0 s ago: RuntimeError: no space left; the same command continues it" in status_text(tmp_path)
    progress.end()
    assert "ended 0 s ago" in status_text(tmp_path)


def test_what_is_no_run_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(UserError, match="holds no run; give a run folder"):
        status_text(tmp_path)
    assert main(["status", "nowhere"]) == 2
    assert "no run folder 'nowhere'; give one, or the head's --address" in capsys.readouterr().err


def test_records_are_throttled_and_never_end_a_run(tmp_path):
    record, made = Throttled(tmp_path / "trials.json"), []
    for number in range(5):
        record.write(lambda number=number: made.append(number) or {"number": number})
    assert made == [0]
    record.write(lambda: {"number": 5}, now=True)
    assert json.loads((tmp_path / "trials.json").read_text())["number"] == 5
    Throttled(tmp_path / "no_such_folder" / "trials.json").write(lambda: {"number": 0}, now=True)


def test_names_say_the_searched_values_and_stay():
    parameters = {"controller/horizon": 12, "learning_rate": 0.000123456, "fine_tune": ["reward", "decoder"]}
    assert trial_name(trial_of(7, Trial.PENDING)) == "trial_00007"
    name = trial_name(trial_of(7, Trial.PENDING, parameters))
    assert name == "trial_00007_horizon=12_learning_rate=0.0001235_fine_tune=reward-decoder"
    assert len(trial_name(trial_of(7, Trial.PENDING, {f"key_{i}": "x" * 200 for i in range(9)}))) <= 120
    begun = trial_of(7, Trial.RUNNING, parameters)
    begun.storage = SimpleNamespace(trial_dir_name="trial_00007")  # by an earlier version
    assert trial_name(begun) == "trial_00007"


def test_prometheus_and_the_dashboards_actor_know_run_chain_phase_and_trial():
    class Actor(ReportsMetrics):
        def __init__(self, path):
            self._storage = SimpleNamespace(trial_fs_path=path)

    alone = Actor("/runs/tiny/planet/trial_00000")
    assert labels_of(alone) == {"run": "tiny", "phase": "planet", "trial": "trial_00000"}
    chain = Actor("bucket/tiny/chains/small-seed3/planet/trial_00001_horizon=12")
    assert labels_of(chain)["run"] == "tiny/small-seed3"
    assert repr(chain) == "tiny/small-seed3/planet/trial_00001_horizon=12"


def test_random_steps_say_nothing_of_the_time_that_is_left(monkeypatch):
    """A thousand random steps take a second; then a hundred steps, which are planned, ten."""
    progress = PhaseProgress("planet", "/nowhere", {"env_steps": 2000}, STOPS)
    progress.line = StatusLine(io.StringIO())
    trial, clock = trial_of(0, Trial.RUNNING), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def result(steps, updates, seconds):
        clock[0] = seconds
        row = {"env_steps": steps, "num_updates": updates, "time_total_s": seconds, "training_iteration": 1}
        progress.on_trial_result(0, [trial], trial, {**row, "config": {}})
        return progress.seconds_left(1)

    assert result(500, 0, 0.5) is None
    assert result(1000, 0, 1.0) is None
    assert result(1100, 1, 11.0) == pytest.approx(90.0)  # 900 steps, ten a second
    assert result(1200, 2, 21.0) == pytest.approx(80.0)


def test_the_status_line_names_the_best_of_several_trials(tmp_path):
    assert "| best trial_00001_horizon=4 |" in sweep(tmp_path).describe(running=1)
    trials, more = read_trials(tmp_path / "planet")
    assert [trial.name for trial in trials][1:] == ["trial_00001_horizon=4", "trial_00002_horizon=5"]
    assert more["total"] == 4
