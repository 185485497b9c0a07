"""The report's table and figures of an energy regression, and the quick spec through the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parsecrl.algorithms.energy_regression import report
from parsecrl.algorithms.reporting.figures import render_all
from parsecrl.algorithms.reporting.statistics import mean_interval
from parsecrl.platform.runs.tables import read_tables
from tests.platform.trial_files import last_metrics

METHODS = ("unrolled_gd", "dcem", "dcem, temperature=0.1")


def make_tables(seeds: int = 3) -> report.Tables:
    """Losses that are known: seed s of method m ends at m + 1 + s, and every inner step away from 4 adds m."""
    convergence, steps, predictions, surface = [], [], [], []
    for m, method in enumerate(METHODS):
        for seed in range(seeds):
            own = {"method": method, "seed": seed}
            for k in range(1, 21):
                loss = m + 1.0 + seed + (100.0 if k <= 18 else 0.0)  # the last two of twenty results count
                convergence.append({**own, "num_updates": 100 * k, "loss": loss, "train_loss": loss, "test_loss": loss})
            steps += [{**own, "num_steps": n, "test_loss": 1.0 + seed + m * abs(n - 4)} for n in range(1, 6)]
            for x in (0.0, 3.0, 6.0):
                predictions += [{**own, "num_steps": n, "x": x, "y": x - n, "target": x} for n in (1, 4, 5)]
                surface += [{**own, "x": x, "y": y, "energy": y, "normalized": y, "log": y} for y in (0.0, 0.5, 1.0)]
    rows = {"convergence": convergence, "steps": steps, "predictions": predictions, "surface": surface}
    rows["training"] = [{"method": method, "seed": 0, "num_steps": 4} for method in METHODS]
    return {name: pd.DataFrame(table).sample(frac=1.0, random_state=0) for name, table in rows.items()} | {
        "convergence": pd.DataFrame(convergence)
    }


def test_the_interval_of_a_mean_is_students():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of two degrees of freedom at 0.975
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(mean_interval([1.0])[1:]).all()


def test_the_result_table():
    found = report.result_table(make_tables())
    assert found.headings[3:] == ("training loss", "test loss, 1 step", "4* steps", "5 steps")
    assert [row[:3] for row in found.rows] == [
        ("unrolled gradient descent", "3", "2,000"),
        ("DCEM", "3", "2,000"),
        ("DCEM, temperature=0.1", "3", "2,000"),
    ]
    assert found.rows[0][3:] == ("2 [0, 4.48]",) * 4  # seeds 1, 2, 3
    assert found.rows[1][3:] == ("3 [0.516, 5.48]", "5 [2.52, 7.48]", "2 [0, 4.48]", "3 [0.516, 5.48]")
    single = report.result_table(make_tables(seeds=1))
    assert single.rows[1][3:] == ("2", "4", "1", "2")


def test_the_figures_are_drawn_for_both_themes(tmp_path: Path):
    images = render_all(report.plots(make_tables()), tmp_path, "study")
    assert list(images) == ["convergence", "steps", "predictions", "surface"]
    for image in images.values():
        assert image.light.stat().st_size > 5000
        assert image.dark.stat().st_size > 5000


@pytest.mark.ray
def test_the_quick_spec_through_the_command_line(tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]):
    """It runs, finds what the paper found, and goes on when its end is moved."""
    from parsecrl.platform.cli import main

    command = ["run", "energy_regression_quick", "--storage", str(tmp_path)]
    assert main([*command, "--set", "phases.regression.stop.num_updates=300"]) == 0
    assert "unrolled gradient descent  " in capsys.readouterr().out
    run = tmp_path / "energy_regression_quick"
    errors = read_tables(run, "regression")["steps"].set_index(["method", "num_steps"])["test_loss"]
    assert errors["unrolled_gd", 50] > 5 * errors["unrolled_gd", 10]
    assert errors["dcem", 50] < 1.5 * errors["dcem", 10] < 2.0
    assert all(metrics["loss"]["loss"] > 0 for metrics in last_metrics(run, "regression"))
    page = (run / "report" / "index.html").read_text()
    assert page.count("<figure>") == 6  # four of the study, two of the effects of what is searched
    assert "Results of regression" in page

    assert main([*command, "--set", "phases.regression.stop.num_updates=400"]) == 0
    for file in run.glob("regression/*/result.json"):
        assert [json.loads(line)["num_updates"] for line in file.read_text().splitlines()] == [100, 200, 300, 400]
    assert set(read_tables(run, "regression")["convergence"].groupby("method")["num_updates"].max()) == {400}
