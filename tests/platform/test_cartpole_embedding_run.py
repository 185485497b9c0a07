"""The quick spec of the embedded cartpole through the command line."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from parsecrl.platform.cli import main
from tests.platform.trial_files import last_metrics


def test_dynamics_that_are_none_are_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, words in (("acrobot", "one of cartpole, pendulum, or module:function"), ("math:f", "PYTHONPATH")):
        change = f"phases.embedding.dynamics={name}"
        assert main(["run", "cartpole_embedding_quick", "--set", change, "--storage", str(tmp_path / "runs")]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert len(error.strip().splitlines()) == 1
    change = "phases.regression.energy.kind=math:f"
    assert main(["run", "energy_regression_quick", "--set", change, "--storage", str(tmp_path / "runs")]) == 2
    assert "phases.regression.energy.kind" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.ray
def test_dynamics_of_ones_own_through_the_command_line(
    tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]
):
    changes = [
        *("stop.num_updates=50", "updates_per_step=25", "validate_every=25", "controller.temperature=1.0"),
        *("control_states=2", "control_steps=5", "search={}"),
        "dynamics=parsecrl.algorithms.models.pendulum:pendulum",
    ]
    command = ["run", "cartpole_embedding_quick", "--storage", str(tmp_path)]
    assert main([*command, *(part for change in changes for part in ("--set", f"phases.embedding.{change}"))]) == 0
    assert "embedded DCEM, 2" in (printed := capsys.readouterr().out)
    assert "Amos" not in printed  # the paper has no such dynamics
    episodes = pd.read_csv(tmp_path / "cartpole_embedding_quick" / "analysis" / "embedding" / "episodes.csv")
    assert sum(column.startswith("state_") for column in episodes) == 3


@pytest.mark.ray
def test_the_quick_spec_through_the_command_line(tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]):
    command = ["run", "cartpole_embedding_quick", "--storage", str(tmp_path)]
    small = ["phases.embedding.stop.num_updates=100", "phases.embedding.updates_per_step=25"]
    assert main([*command, *(part for change in small for part in ("--set", change))]) == 0
    printed = capsys.readouterr().out
    assert "embedded DCEM, 2" in printed
    run = tmp_path / "cartpole_embedding_quick"
    curve = pd.read_csv(run / "analysis" / "embedding" / "convergence.csv")
    assert set(curve["temperature"]) == {0.0, 1.0}
    assert curve["num_updates"].max() == 100
    for _, trial in curve.groupby("temperature"):
        assert trial["validation_cost"].min() < trial["validation_cost"].iloc[0] - 1  # it learns
    improvement = pd.read_csv(run / "analysis" / "embedding" / "improvement.csv")
    assert len(improvement) == 2
    assert (improvement["expert_cost"] < -4).all()
    page = (run / "report" / "index.html").read_text()
    assert "Results of embedding" in page
    assert "video/mp4" in page
    assert json.loads((run / "summary.json").read_text())
    assert all(metrics["loss"]["planned_cost"] < 0 for metrics in last_metrics(run, "embedding"))
    # Tables that are taken away are made again, and the report with them.
    shutil.rmtree(run / "analysis")
    (run / "report" / "index.html").write_text("old")
    assert main([*command, *(part for change in small for part in ("--set", change))]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(run / "analysis" / "embedding" / "improvement.csv"), improvement)
    assert "Results of embedding" in (run / "report" / "index.html").read_text()
