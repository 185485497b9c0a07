"""What a sweep says, on responses whose effects are known."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from parsecrl.platform.reports import build_report
from parsecrl.platform.reports.figures import curves
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.reports.sweep import sweep_of
from parsecrl.platform.reports.sweep_page import sweep_section
from parsecrl.platform.specs import load_spec, parse_spec
from tests.platform import chromium
from tests.platform.tiny import PLANET
from tests.platform.trial_files import write_trial

TOY = "tests.platform.toy_search:TOY"
WIDTH = {8: 0.0, 16: 3.0, 32: -2.0}  # what each value adds to the score
KIND = {"plain": 0.0, "fancy": 1.0}
SEARCH = {
    "inner.width": {"grid": list(WIDTH)},
    "kind": {"grid": list(KIND)},
    "extra": {"grid": [0.0, 0.5]},  # without effect
    "seed": {"grid": [0, 1, 2, 3, 4]},
}


@pytest.fixture(scope="module")
def grid_run(tmp_path_factory):
    """A full grid: 20 for seed 0 and one more for each seed after it, main effects, and noise of a tenth."""
    run = tmp_path_factory.mktemp("grid") / "toy"
    phase = {"name": "study", "algorithm": TOY, "search": SEARCH, "stop": {"env_steps": 100}, "scheduler": "median"}
    spec = {"name": "toy", "phases": [phase], "loggers": []}
    parse_spec(spec, "toy.yaml")
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    noise = np.random.default_rng(0)
    for i, (width, kind, extra, seed) in enumerate(itertools.product(WIDTH, KIND, [0.0, 0.5], range(5))):
        score = 20 + seed + WIDTH[width] + KIND[kind] + noise.normal(0, 0.1)
        settings = {"inner": {"width": width, "rate": 0.5}, "kind": kind, "extra": extra, "seed": seed}
        rows = [{"env_steps": n, "score": score * n / 100, "time_total_s": n / 10} for n in (50, 100)]
        write_trial(run / f"study/trial_{i:05d}", settings, rows)
    return run


def phase_of(run):
    return load_run(run).phases[0]


def test_a_full_grid_tells_the_main_effects_by_pairs(grid_run):
    sweep = sweep_of({0: phase_of(grid_run)})
    assert sweep.keys == ("inner.width", "kind", "extra")  # seeds pair; they are no setting
    assert sweep.is_full_grid
    found = {(e.key, e.value): e for e in sweep.effects}
    known = {("inner.width", "16"): 3.0, ("inner.width", "32"): -2.0, ("kind", "fancy"): 1.0, ("extra", "0.5"): 0.0}
    words = ["better", "worse", "better", "not told apart"]
    for (key, effect), word in zip(known.items(), words, strict=True):
        e = found[key]
        assert e.low < effect < e.high
        assert e.verdict == word
        # Noise of 0.1 in each of a pair, over all pairs: the seeds' differences of 1 are not in the interval.
        assert 0.5 < (e.high - e.low) / (2 * 2 * 0.1 * np.sqrt(2 / e.trials)) < 1.6
    assert [found["inner.width", v].trials for v in ("8", "16", "32")] == [20, 20, 20]
    assert found["inner.width", "8"].verdict == "reference"


def test_trials_that_do_not_pair_have_welchs_interval(grid_run):
    sweep = sweep_of({0: phase_of(grid_run)})
    part = replace(sweep, rows=sweep.rows.iloc[:-1])
    assert not part.is_full_grid
    e = next(e for e in part.effects if (e.key, e.value) == ("inner.width", "16"))
    assert e.low < 3.0 < e.high
    assert e.high - e.low > 0.5  # the seeds' differences are in it


def test_importance_follows_the_variance_of_the_effects(grid_run):
    importance = sweep_of({0: phase_of(grid_run)}).importance
    assert list(importance) == ["inner.width", "kind", "extra"]
    assert sum(importance.values()) == pytest.approx(1.0)
    # Variances of the effects: 38/9 of width, 1/4 of kind.
    assert importance["inner.width"] > 0.6
    assert importance["extra"] < 0.1


def test_the_best_settings_come_with_the_lines_that_reproduce_them(grid_run, tmp_path):
    sweep = sweep_of({0: phase_of(grid_run)})
    best = sweep.best(1).iloc[0]
    assert (best["inner.width"], best["kind"], best["seed"], best["seeds"]) == (16, "fancy", 4, "0/4")
    (tmp_path / "best.yaml").write_text(f"extends: {grid_run / 'spec.yaml'}\n{sweep.reproduction}")
    phase = load_spec(tmp_path / "best.yaml").phases[0]
    assert (phase.inner.width, phase.kind, phase.seed, phase.search) == (16, "fancy", 4, {})
    assert phase.scheduler == "none"
    assert phase.num_trials == 1


def test_what_was_spent(grid_run):
    budget = sweep_of({0: phase_of(grid_run)}).budget
    assert budget == {"trials": 60, "failed": 0, "env_steps": 6000.0, "hours": pytest.approx(60 * 10 / 3600)}


def test_the_page_and_its_tables(grid_run):
    page = build_report(grid_run).read_text()
    for said in ("Sweep of study", "Best settings", "Importance", "Pairs of keys", "60 trials over 5 seeds"):
        assert said in page
    tables = grid_run / "report/tables"
    effects = pd.read_csv(tables / "sweep-study-effects.csv")
    width = effects[(effects.key == "inner.width") & (effects.value == "16")].iloc[0]
    assert width.low < 3.0 < width.high
    assert len(pd.read_csv(tables / "sweep-study-trials.csv")) == 60
    latex = (tables / "sweep-study-effects.tex").read_text()
    assert latex.startswith("\\begin{tabular}")
    assert "not told apart" in latex
    drawn = {file.stem for file in (grid_run / "report/figures").glob("sweep-study-*.png")}
    kinds = {"effects", "importance", "pairs", "parallel"}
    assert {f"sweep-study-{kind}{theme}" for kind in kinds for theme in ("", "-dark")} == drawn


def test_ranges_are_grouped_and_seeds_of_chains_pair(tmp_path):
    """Drawn values: the effect of a range is told by groups of its values."""
    search = {"inner.rate": {"uniform": [0.0, 1.0]}, "kind": {"choice": ["plain", "fancy"]}}
    spec = {"name": "toy", "phases": [{"name": "study", "algorithm": TOY, "search": search, "stop": {"env_steps": 9}}]}
    random, phases = np.random.default_rng(1), {}
    for seed in (3, 7):
        run = tmp_path / f"seed{seed}"
        run.mkdir()
        (run / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        for i in range(40):
            rate = random.uniform()
            settings = {"inner": {"rate": rate}, "kind": ["plain", "fancy"][i % 2]}
            write_trial(run / f"study/trial_{i:05d}", settings, [{"env_steps": 9, "score": 10 * rate}])
        write_trial(run / "study/trial_00040", {"inner": {"rate": 0.5}, "kind": "plain"}, [])
        phases[seed] = phase_of(run)
    sweep = sweep_of(phases)
    assert not sweep.is_full_grid
    assert set(sweep.rows["seeds"]) == {"3", "7"}
    assert (sweep.budget["trials"], sweep.budget["failed"]) == (82, 2)
    means = [e.mean for e in sweep.effects if e.key == "inner.rate"]
    assert means == pytest.approx([1, 3, 5, 7, 9], abs=0.9)
    assert {e.verdict for e in sweep.effects if e.key == "kind"} == {"reference", "not told apart"}
    assert next(iter(sweep.importance)) == "inner.rate"


def test_a_population_shows_how_settings_changed(tmp_path):
    search = {"inner.rate": {"uniform": [0.0, 1.0]}}
    phase = {"name": "study", "algorithm": TOY, "search": search, "search_alg": "pbt", "num_samples": 4}
    spec = {"name": "toy", "phases": [phase | {"stop": {"env_steps": 90}}]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    for i in range(4):
        rows = [
            {"env_steps": 10 * n, "score": i + n, "parameters": {"inner.rate": 0.1 * i + 0.01 * n}} for n in range(9)
        ]
        write_trial(tmp_path / f"study/trial_{i:05d}", {"inner": {"rate": 0.1 * i + 0.08}}, rows)
    section = sweep_section({0: phase_of(tmp_path)}, "sweep-study", "Sweep", tmp_path / "report")
    assert "changed the settings" in section
    assert (tmp_path / "report/figures/sweep-study-schedules.png").is_file()


def test_curves_of_a_hundred_trials_are_thin_lines_with_a_bar(tmp_path):
    from matplotlib.figure import Figure

    from parsecrl.algorithms.reporting.figures import THEMES

    search = "    search: {learning_rate: {loguniform: [1.0e-4, 1.0e-3]}}\n    num_samples: 100\n"
    spec = "name: many\nenv: {id: dm_control/cheetah-run-v0}\nphases:\n" + PLANET + search
    (tmp_path / "spec.yaml").write_text(spec + "    stop: {env_steps: 1000}\n")
    for i in range(100):
        rows = [{"env_steps": 100 * n, "episode_return_mean": i * n, "score": i * n} for n in range(10)]
        write_trial(tmp_path / f"planet/trial_{i:05d}", {"learning_rate": 1e-4 * (i + 1)}, rows)
    figure = Figure()
    curves(phase_of(tmp_path), "no task of the paper").draw(figure, THEMES[0])
    (lines,) = figure.axes[0].collections
    assert len(lines.get_segments()) == 100
    assert np.ptp([segment[-1][1] for segment in lines.get_segments()[-10:]]) < np.ptp(lines.get_array())
    assert len(figure.axes[0].get_lines()) == 1  # the chosen one
    assert len(figure.axes) == 2
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_of_a_sweep_renders_without_errors(grid_run, tmp_path, width):
    page = build_report(grid_run)
    done = chromium.load(page.as_uri(), tmp_path / "page.png", width, 900, "--enable-logging=stderr")
    assert "ERROR:CONSOLE" not in done.stderr
    assert "CONSOLE(" not in done.stderr
    assert (tmp_path / "page.png").stat().st_size > 20_000
