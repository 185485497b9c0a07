"""The quick spec of policies over latents through the command line, and what is refused."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from parsecrl.algorithms.latent_sac import report
from parsecrl.platform.runs.tables import read_tables

QUICK = "parsimony_sac_quick"


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("world.start=[4, 0]", "start must lie in the grid of 4 x 4 cells"),
        ("world={id: parsecrl/FourRooms-v0, goal: [5, 0]}", "goal must not be on a wall, got (5, 0)"),
        ("world={id: parsecrl/FourRooms-v0, start: [1, 1], goal: [1, 1]}", "start and goal must be two cells"),
        ("world.id=parsecrl/Maze-v0", "must be one that parsecrl.envs registers, got 'parsecrl/Maze-v0'"),
        ("exploration.bonus=error", "exploration.bonus=error needs a model that predicts"),
        ("encoder_tau=0.5", "encoder_tau below 1 needs an encoder that the model alone trains"),
        ("world={id: CartPole-v1, size: 3}", "'CartPole-v1' takes no argument 'size'"),
        ("model.transformation=shear", "must be 'rotation', 'translation' or 'affine', got 'shear'"),
        ("model.beta=-1", "model.beta must be greater than or equal to 0, got -1"),
        ("search={model.kind: {grid: [parsimonious, gru]}}", "gru"),
        ("encoder_training=none", "must be 'dynamics' or 'both', got 'none'"),
        ("alpha=0", "alpha must be greater than 0, got 0"),
        ("target_entropy=1.7", "target_entropy must be less than that of uniform actions, 1.609 nats for 5, got 1.7"),
        ("search={target_entropy: {grid: [1.0, 5.0]}}", "target_entropy must be less than that of uniform actions"),
        ("model.rollout_steps=99", "model.rollout_steps must be at most the length of an episode, 40, got 99"),
        ("model.kind=ssm", "model.kind must be"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_written(setting, rule, tmp_path: Path, capsys, monkeypatch):
    from parsecrl.platform.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["run", QUICK, "--set", f"phases.sac.{setting}", "--storage", str(tmp_path / "runs")]) == 2
    assert rule in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_the_measurement_that_is_shown_is_the_last_with_most_trials():
    rows = []
    for seed in range(3):
        for episodes in (5, 10, 20):
            firsts = ["visited"] + ["new"] * (episodes < 20 or seed == 0)
            rows += [("parsecrl/Torus-v0", "parsimonious", seed, episodes, 1 / episodes, f, 1) for f in firsts]
    predictions = pd.DataFrame(rows, columns=["env", "model", "seed", "episodes", "unvisited", "first", "step"])
    assert report.measured_moments({"predictions": predictions}) == {"parsecrl/Torus-v0": (10, pytest.approx(0.1))}
    assert report.measured_moments({"predictions": predictions.iloc[:0]}) == {}


@pytest.mark.ray
def test_the_quick_spec_through_the_command_line(tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]):
    """It runs, reports, and goes on when its end is moved."""
    from parsecrl.platform.cli import main

    command = ["run", QUICK, "--storage", str(tmp_path)]
    assert main([*command, "--set", "phases.sac.stop.episodes=10"]) == 0
    out = capsys.readouterr().out
    assert "no representation objective" in out
    run = tmp_path / QUICK
    tables = read_tables(run, "sac")
    assert tables["scores"].groupby(["model", "seed"]).size().tolist() == [10] * 4
    assert set(tables["predictions"]["model"]) == {"parsimonious"}
    page = (run / "report" / "index.html").read_text()
    assert page.count("<figure>") == 7
    assert "Distinct transformations" in page

    assert main([*command, "--set", "phases.sac.stop.episodes=15"]) == 0
    for file in run.glob("sac/*/result.json"):
        assert [json.loads(line)["episodes"] for line in file.read_text().splitlines()] == [5, 10, 15]
    again = read_tables(run, "sac")["scores"]
    assert again.groupby(["model", "seed"]).size().tolist() == [15] * 4
    key = ["model", "seed", "episode"]
    before = tables["scores"].set_index(key)["score"].sort_index()
    assert again[again["episode"] <= 10].set_index(key)["score"].sort_index().equals(before)

    # As a kill leaves it while one of four trials is on its way: the others are reported on, in a run of one's own.
    state = json.loads((run / "state.json").read_text())
    state["sac"]["status"] = "running"
    (run / "state.json").write_text(json.dumps(state))
    shutil.rmtree(run / "analysis")
    for file in sorted(run.glob("sac/*/checkpoint_*/metrics.json")):
        metrics = json.loads(file.read_text())
        if metrics["parameters"] == {"model.kind": "parsimonious", "seed": 1}:
            file.write_text(json.dumps({**metrics, "episodes": 10}))
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert "sac: not at its end; 3 trials are" in capsys.readouterr().out
    assert read_tables(run, "sac")["scores"].groupby(["model", "seed"]).size().to_dict() == {
        **{("encoder_only", seed): 15 for seed in (0, 1)},
        ("parsimonious", 0): 15,
    }
    shutil.rmtree(run / "analysis")
    (run / "made_by.json").unlink()
    assert main(["report", str(run)]) == 0
    assert not (run / "analysis").exists()


@pytest.mark.ray
def test_a_trial_that_diverges_is_named_and_the_others_are_analysed(tmp_path: Path, ray_runtime: None, capsys):
    from parsecrl.platform.cli import main

    search = "phases.sac.search={policy_learning_rate: {grid: [1.0e-4, 1.0e+30]}, seed: {grid: [0]}}"
    own = ["--set", search, "--set", "phases.sac.stop.episodes=10"]
    assert main(["run", QUICK, "--storage", str(tmp_path), *own]) == 0
    notes = " ".join(capsys.readouterr().err.split())
    assert "sac: 1 of 2 trials failed, the first because FloatingPointError: the " in notes
    assert "lower the learning rates" in notes
    assert read_tables(tmp_path / QUICK, "sac")["scores"].groupby(["model", "seed"]).size().tolist() == [10]


@pytest.mark.ray
def test_a_phase_is_analysed_before_the_next_begins(
    tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]
):
    """The second diverges, which shows when it learns; the first can be reported on."""
    import yaml

    from parsecrl.platform.cli import main
    from parsecrl.platform.specs import dump, load_spec

    spec = yaml.safe_load(dump(load_spec(QUICK, ["phases.sac.search={}", "phases.sac.stop.episodes=5"])))
    good = spec["phases"][0]
    torus = {**good["world"], "id": "parsecrl/Torus-v0"}
    bad = {**good, "name": "bad", "world": torus, "policy_learning_rate": 1e30}
    spec["phases"].append(bad)
    spec["resources"]["max_failures"] = 0
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec))
    assert main(["run", str(file), "--storage", str(tmp_path), "--name", "two"]) == 1
    assert len(read_tables(tmp_path / "two", "sac")["scores"]) == 5
    capsys.readouterr()
    assert main(["report", str(tmp_path / "two")]) == 0
    assert "gridworld" in capsys.readouterr().out
