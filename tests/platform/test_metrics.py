"""The table of metrics, what is generated from it, and the loggers."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from parsecrl.algorithms.training.measurements import Measurements, PlanLog, PlanTime, RolloutTimes
from parsecrl.platform.errors import UserError
from parsecrl.platform.metrics import dashboards, table
from parsecrl.platform.running import loggers
from parsecrl.platform.specs import load_spec

ROOT = Path(__file__).resolve().parents[2]
RESULT = {
    "env_steps": 400,
    "episode_return_mean": float("nan"),
    "evaluated_return": 12.5,
    "trajectories": 1600,
    "replay_decisions": 100,
    "measured": {
        "planning_seconds": {"mean": 0.02, "p50": 0.02, "p95": 0.03},
        "time_shares": {"main": {"learning": 0.25, "waiting": 0.75}, "runner": {"planning": 1.0}},
        "losses": {"kl": 3.0},
        "gradient_norms": {"model": 2.0},
        "soft_top_k_entropy": 1.5,
    },
}


def test_results_are_named_as_the_table_says():
    found = table.as_results(RESULT)
    assert found == {
        "env_steps": 400,
        "evaluation_return": 12.5,
        "planning_seconds": {"mean": 0.02, "p50": 0.02, "p95": 0.03},
        "trajectories": 1600,
        "time_share": {"main": {"learning": 0.25, "waiting": 0.75}, "runner": {"planning": 1.0}},
        "loss": {"kl": 3.0},
        "soft_top_k_entropy": 1.5,
        "replay_decisions": 100,
        "gradient_norm": {"model": 2.0},
    }  # and no return, since there is none yet
    assert table.as_results({}) == {}
    names = [m.name for m in table.METRICS]
    assert len(set(names)) == len(names)


def test_counters_begin_at_the_checkpoints_values():
    counted = table.counters({"env_steps": 300, "trajectories": 1600})
    assert counted == {"env_steps": 300, "trajectories": 1600}
    assert table.increments(counted, table.counters(RESULT)) == {"env_steps": 100}
    assert table.increments({}, {"env_steps": 5.0}) == {"env_steps": 5.0}


def test_plan_log_tells_planning_stepping_and_waiting_apart():
    log = PlanLog()
    log.begin()
    time.sleep(0.02)
    log.add(0.008, 4, 80, None)
    log.add(0.001, 4, 0, None)  # random actions
    first = log.finish()
    assert first.waiting_seconds == 0
    assert first.seconds >= 0.02
    assert first.planning_seconds == pytest.approx(0.009)
    assert first.plans == (PlanTime(0.002, 4),)
    assert (first.num_decisions, first.trajectories) == (8, 80)
    time.sleep(0.03)
    log.begin()
    second = log.finish()
    assert 0.03 <= second.waiting_seconds < 1.0
    assert second.plans == ()
    assert math.isnan(second.entropy)


def test_shares_and_quantiles():
    measurements = Measurements()
    with measurements.time("learning"):
        time.sleep(0.02)
    measurements.add(RolloutTimes(3.0, 2.0, 1.0, 12, (PlanTime(0.1, 9), PlanTime(0.5, 1)), 120, 1.5))
    measurements.add(RolloutTimes(1.0, 1.0, 3.0, 2))
    taken = measurements.take()
    assert taken["time_shares"]["runner"] == {"planning": 3 / 8, "stepping": 1 / 8, "waiting": 4 / 8}
    main = taken["time_shares"]["main"]
    assert sum(main.values()) == pytest.approx(1)
    assert main["waiting"] == 0
    assert main["learning"] > 0.5
    assert taken["planning_seconds"]["mean"] == pytest.approx(0.14)
    assert taken["planning_seconds"]["p50"] == 0.1
    assert taken["soft_top_k_entropy"] == 1.5
    again = measurements.take()
    assert again.keys() == {"time_shares"}
    assert again["time_shares"]["main"]["other"] == 1


def test_the_committed_dashboard_and_docs_are_the_generated_ones():
    assert (ROOT / dashboards.DASHBOARD).read_text() == dashboards.dashboard_text()
    docs = (ROOT / dashboards.DOCS).read_text()
    assert docs == dashboards.docs_text(docs)
    assert all(f"`{m.prometheus_name}`" in docs for m in table.METRICS)


def test_the_dashboard_is_what_grafana_reads():
    """Grafana itself is not here: the structure it needs, and that nothing refers to what is not provisioned."""
    board = json.loads((ROOT / dashboards.DASHBOARD).read_text())
    assert [panel["title"].removesuffix(" per second").replace(" ", "_") for panel in board["panels"]] == [
        m.name for m in table.METRICS
    ]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] <= 24 - at["w"]
        places.add((at["x"], at["y"]))
    assert len(places) == len(board["panels"])
    provisioning = ROOT / "docker/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    used = {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]}
    used |= {variable["datasource"]["uid"] for variable in board["templating"]["list"]}
    assert used == {source["uid"]}
    assert {variable["name"] for variable in board["templating"]["list"]} == set(table.LABELS)
    (provider,) = yaml.safe_load((provisioning / "dashboards/parsecrl.yml").read_text())["providers"]
    assert provider["type"] == "file"


def test_metrics_cost_nothing_beside_planning():
    """Logging a planner's call and observing it, per call: microseconds, where a plan takes milliseconds."""
    log, calls = PlanLog(), 2000
    log.begin()
    start = time.perf_counter()
    for _ in range(calls):
        log.add(0.01, 8, 800, None)
    log.finish()
    assert (time.perf_counter() - start) / calls < 100e-6


def test_loggers_are_imported_when_named_only():
    code = (
        "import sys\n"
        "from parsecrl.platform.running.loggers import check_loggers, logger_callbacks\n"
        "check_loggers(['tensorboard'])\n"
        "print([type(c).__name__ for c in logger_callbacks([], 'r', 'p')])\n"
        "assert not {'wandb', 'mlflow'} & {name.split('.')[0] for name in sys.modules}\n"
        "assert not {name for name in sys.modules if name.startswith('ray.air.integrations.')}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "['JsonLoggerCallback', 'CSVLoggerCallback']"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_logger_ends_a_run_before_it_starts(name, tmp_path):
    if loggers.find_spec(name):
        pytest.skip(f"{name} is installed here")
    from parsecrl.platform.running.pipeline import run_spec

    spec = load_spec("cheetah_run_quick", [f"loggers=[tensorboard, {name}]"])
    with pytest.raises(UserError, match=rf"{name} needs the package .* run pip install {name}"):
        run_spec(spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wandb_without_a_key_is_refused(monkeypatch):
    pytest.importorskip("wandb")
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match="wandb login"):
        loggers.check_loggers(["wandb"])


def test_mlflow_with_a_bad_uri_is_refused(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        loggers.check_loggers(["mlflow"])


def test_an_unknown_logger_is_refused():
    with pytest.raises(UserError, match=r"loggers.*'tensorboard', 'wandb' or 'mlflow'.*did you mean"):
        load_spec("cheetah_run_quick", ["loggers=[tensorbord]"])
