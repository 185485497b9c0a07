"""The planning experiment: its report on tables that are known, its specs, bad input, the quick spec as a command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parsecrl.algorithms.latent_planning import report
from parsecrl.algorithms.offline_data.reading import read_dataset
from parsecrl.algorithms.reporting.figures import render_all
from parsecrl.platform.cli import main
from parsecrl.platform.runs.tables import read_tables
from parsecrl.platform.specs import load_spec
from tests.platform.trial_files import last_metrics, tensorboard_scalars

GRID, TORUS = "parsecrl/Gridworld-v0", "parsecrl/Torus-v0"
QUICK = "parsimony_planning_quick"


def make_tables(seeds: int = 2) -> report.Tables:
    """Parsimonious scores 5 + seed in every task, the RNN 4, the true dynamics 20; plans ask for 100 transitions."""
    scores, tasks = [], []
    for env in (GRID, TORUS):
        for model, score, evaluated in (("rnn", 4.0, 50), ("true_dynamics", 20.0, 100), ("parsimonious", 5.0, 25)):
            for seed in range(seeds):
                for episode in range(1, 5):
                    own = {"env": env, "model": model, "seed": seed, "episode": episode}
                    scores.append({**own, "score": score + seed * (model == "parsimonious")})
                    plans = episode - 1  # none in the first task
                    tasks.append({**own, "num_plans": plans, "num_asked": 100 * plans, "refit_seconds": 2.0})
                    tasks[-1] |= {"num_evaluated": evaluated * plans, "planning_seconds": 0.05 * plans}
                    tasks[-1]["num_transformations"] = 7 * plans if model == "parsimonious" else 0
    budget = {"budget": "paper", "horizon": 15, "num_samples": 1000, "num_elites": 200, "num_iterations": 10}
    return {
        "scores": pd.DataFrame(scores).sample(frac=1.0, random_state=0),
        "tasks": pd.DataFrame(tasks),
        "budgets": pd.DataFrame([{"env": GRID, "model": "rnn", "seed": 0, **budget, "gradient_steps": 50}] * 2),
    }


def test_the_result_table():
    found = report.result_table(make_tables())
    assert found.headings == (
        *("environment", "model", "seeds", "tasks", "total score", "last tenth", "P(parsimonious is better)"),
        *("saved", "plan ms"),
    )
    rows = {row[:2]: row[2:] for row in found.rows}
    assert list(rows)[:3] == [("gridworld", "parsimonious"), ("gridworld", "RNN"), ("gridworld", "true dynamics")]
    assert rows["torus", "parsimonious"] == (
        "2",
        "4",
        "22.0 [-3.4, 47.4]",
        "5.5 [-0.9, 11.9]",
        "-",
        "75%",
        "50",
    )  # t: 12.7
    assert rows["torus", "RNN"][4:] == ("1.00 [1.00, 1.00]", "50%", "50")
    assert rows["torus", "true dynamics"][4:] == ("-", "0%", "50")
    assert "Budget paper: horizon 15, 1000 samples, 200 elites, 10 iterations, 50 gradient steps a task." in found.note


def test_what_plans_cost():
    tasks = make_tables()["tasks"]
    part = tasks[(tasks["env"] == GRID) & (tasks["model"] == "parsimonious")]
    assert report.cost(part) == ("1.5", "100", "25", "75%", "7", "50", "2")
    assert report.cost(part[part["episode"] == 1]) == ("0.0", "-", "-", "-", "-", "-", "2")


def test_scores_are_smoothed_over_tasks_for_each_seed():
    rows = [(task, seed, 10.0 * (task == 20) + seed) for task in range(1, 41) for seed in (0, 2)]
    x, found = report.smoothed(pd.DataFrame(rows, columns=["episode", "seed", "score"]))
    mean, low, high = found.T
    assert x.tolist() == list(range(1, 41))
    bell = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)  # the filter, cut at four standard deviations
    np.testing.assert_allclose(mean[11:28] - 1.0, 10 * bell / bell.sum(), atol=1e-9)
    assert mean[[0, -1]] == pytest.approx(1.0)
    np.testing.assert_allclose(high - mean, mean - low)
    unfinished = pd.DataFrame(
        [row for row in rows if row[0] <= 30 or row[1] == 0], columns=["episode", "seed", "score"]
    )
    assert len(report.smoothed(unfinished)[0]) == 30


def test_the_figures_are_drawn_for_both_themes(tmp_path: Path):
    images = render_all(report.plots(make_tables()), tmp_path, "planning")
    assert list(images) == ["totals", "tasks"]  # no model was learned
    for image in images.values():
        assert image.light.stat().st_size > 5000
        assert image.dark.stat().st_size > 5000


def test_the_specs_hold_the_papers_comparison():
    spec = load_spec("parsimony_planning")
    assert {phase.world.id.partition("/")[2] for phase in spec.phases} == {"Gridworld-v0", "FourRooms-v0", "Torus-v0"}
    for phase in spec.phases:
        assert phase.search["seed"].values == list(range(10))
        assert {"parsimonious", "rnn", "ssm", "true_dynamics"} <= set(phase.search["model.kind"].values)
        assert phase.stop.conditions == {"tasks": 30}
        paper, reduced = phase.budgets["paper"], phase.budgets["reduced"]
        assert (paper.horizon, paper.num_iterations, paper.num_samples, paper.num_elites) == (15, 10, 1000, 200)
        asked = [b.horizon * b.num_iterations * b.num_samples for b in (paper, reduced)]
        assert asked[0] > 10 * asked[1]
    on_cpus = load_spec("parsimony_planning", ["phases.*.budget=reduced"])
    assert [phase.budget for phase in on_cpus.phases] == ["reduced"] * 3
    assert load_spec(QUICK, ["phases.planning.num_tasks=3"]).phases[0].stop.conditions == {"tasks": 3}


def test_the_sweep_has_every_model_and_seed_once():
    from ray.tune.search.variant_generator import generate_variants

    from parsecrl.platform.running.search_space import param_space

    spec = load_spec("parsimony_planning", ["phases.*.budget=reduced"])
    phase = spec.phases[0]
    config = phase.entry.make_config(phase, None, {}, 7, None)
    trials = [trial for _, trial in generate_variants(param_space(config, phase))]
    assert len({(t["model"]["kind"], t["seed"]) for t in trials}) == len(trials) == 40
    assert all(t["budgets"][t["budget"]]["num_samples"] == 300 and t["run_seed"] == 7 for t in trials)
    assert all(t["model"]["hidden_size"] == 1200 and "start" not in t["world"] for t in trials)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("budget=huge", "budget must name one of budgets (quick), got 'huge'"),
        ("budgets.quick.num_elites=80", "num_elites must lie in [1, num_samples), got 80 with num_samples=80"),
        ("budgets.quick.horizons=3", "did you mean 'horizon'?"),
        (
            "model.transformation=shear",
            "model.transformation must be 'rotation', 'translation' or 'affine', got 'shear'",
        ),
        ("model.beta=-1", "model.beta must be greater than or equal to 0, got -1"),
        ("model.kind=gru", "model.kind must be"),
        ("model.constraint=kl", "constraint and target come together, got 'kl' and None"),
        ("world.id=parsecrl/Maze-v0", "world: the environment id must be one that parsecrl.envs registers"),
        ("world.id=CartPole-v1", "world: environment 'CartPole-v1' takes no argument 'observation_size'"),
        ("world.start=[3, 11]", "start must lie in the grid of 11 x 11 cells"),
        ("world.start=[3]", "world.start"),
        ("search.world.start.grid=[[0, 0], [11, 3]]", "start must lie in the grid of 11 x 11 cells"),
        ("world.size=1", "size must be a whole number of 2 or more, got 1"),
        ("model={constraint: kl, target: 1.0, beta: 0.0}", "with a constraint beta must lie in (1e-05, 10000.0)"),
        ("slice_length=60", "slice_length must be at most the length of an episode, 25, got 60"),
        ("search={model.rollout_steps: {grid: [1, 30]}}", "slice_length must be at most the length of an episode, 25"),
        (
            "search={model.kind: {grid: [parsimonious_stochastic]}, model.transformation: {grid: [translation]}, "
            "model.period: {grid: [2.0]}}",
            "a period must be positive and goes with a deterministic translation, got 2.0",
        ),
        ("slice_length=200", "slice_length must lie in [1, batch_size], got 200 with batch_size=150"),
        ("stop.tasks=0", "stop.tasks must be greater than or equal to 1, got 0"),
    ],
)
def test_bad_input_ends_in_one_sentence(change: str, rule: str, capsys: pytest.CaptureFixture[str]):
    assert main(["specs", QUICK, "--set", f"phases.planning.{change}"]) == 2
    message = capsys.readouterr().err
    assert rule in message
    assert message.count("\n") == 1


def test_a_start_on_a_wall_is_refused(capsys: pytest.CaptureFixture[str]):
    changes = ["phases.planning.world.id=parsecrl/FourRooms-v0", "phases.planning.world.start=[0, 5]"]
    assert main(["specs", QUICK, *(part for change in changes for part in ("--set", change))]) == 2
    assert "start must not be on a wall, got (0, 5)" in capsys.readouterr().err


def learns_from_what_was_exported(run: Path, tmp_path: Path) -> None:
    """A run that searches a relative path of tasks.parquet, whose own export has the same arrays."""
    data = read_dataset(tmp_path / "tasks.parquet")
    keys = {
        **{"offline_data": "tasks.parquet", "world.layout_seed": data.about["world"]["layout_seed"]},
        **{"num_tasks": 1, "search": "{offline_data: {grid: [tasks.parquet]}}"},
    }
    changes = [part for key, value in keys.items() for part in ("--set", f"phases.planning.{key}={value}")]
    assert main(["run", QUICK, "--storage", str(tmp_path), "--name", "offline", *changes]) == 0
    (metrics,) = last_metrics(tmp_path / "offline", "planning")
    assert (metrics["env_steps"], metrics["replay_decisions"]) == (0, data.num_decisions)
    assert main(["export", str(tmp_path / "offline"), "--to", str(tmp_path / "again.parquet")]) == 0
    for one, other in zip(data.episodes, read_dataset(tmp_path / "again.parquet").episodes, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    assert main(["export", str(run), "--to", str(tmp_path / "no.parquet"), "--episodes", "1"]) == 2


@pytest.mark.ray
def test_the_quick_spec_through_the_command_line(
    tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["run", QUICK, "--storage", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "true dynamics" in printed
    assert "Budget quick: horizon 8" in printed
    run = tmp_path / QUICK
    tables = read_tables(run, "planning")
    scores = tables["scores"]
    assert scores.groupby("model")["episode"].max().to_dict() == {"parsimonious": 6, "rnn": 6, "true_dynamics": 6}
    with_true_dynamics = scores[scores["model"] == "true_dynamics"].sort_values("episode")["score"]
    assert (with_true_dynamics.tail(2) > -25).any()  # it came to a goal, by plans
    assert set(tables["transformations"]["model"]) == {"parsimonious"}
    assert set(tables["predictions"]["first"]) == {"new", "visited"}
    for trial, metrics in zip(sorted(run.glob("planning/trial_*")), last_metrics(run, "planning"), strict=True):
        assert metrics["env_steps"] == metrics["replay_decisions"] == 6 * 25
        assert metrics["trajectories"] > 0
        assert 0 < metrics["planning_seconds"]["p50"] <= metrics["planning_seconds"]["p95"]
        assert sum(metrics["time_share"]["main"].values()) == pytest.approx(1)
        shown = tensorboard_scalars(trial)
        assert shown["ray/tune/metrics/env_steps"] == metrics["env_steps"]
        assert shown["ray/tune/metrics/time_share/main/planning"] == pytest.approx(
            metrics["time_share"]["main"]["planning"]
        )
    assert main(["export", str(run), "--to", str(tmp_path / "tasks.parquet")]) == 0
    assert f"{tmp_path / 'tasks.parquet'}: 6 episodes, 150 decisions" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    learns_from_what_was_exported(run, tmp_path)
    page = (run / "report" / "index.html").read_text()
    for title in ("Results of planning", "Distinct transformations", "What planning costs"):
        assert title in page
