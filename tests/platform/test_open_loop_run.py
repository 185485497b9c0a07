"""Open-loop prediction of pixels: its report on tables that are known, its specs, bad input, the quick spec."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from parsecrl.algorithms.offline_data.picture_files import read_episode
from parsecrl.algorithms.open_loop import report
from parsecrl.algorithms.open_loop.analysis import encode
from parsecrl.algorithms.reporting.figures import render_all
from parsecrl.platform.cli import main
from parsecrl.platform.runs.tables import read_tables
from parsecrl.platform.specs import dump, load_spec
from tests.open_loop.episodes import write_dataset
from tests.platform.trial_files import last_metrics

QUICK = "open_loop_pixels_quick"


def make_tables() -> report.Tables:
    """The parsimonious model has KL 1 + seed and error 0.002 at every step, the RSSM 3 + seed and 0.004."""
    rows = []
    for model, kl, error in (("rssm", 3.0, 0.004), ("parsimonious", 1.0, 0.002)):
        for seed in (0, 1):
            for step in (1, 2, 3):
                own = {"model": model, "seed": seed, "step": step, "kl": kl + seed, "kl_inferred": kl}
                rows.append({**own, "error": error, "error_closed": 0.001})
    rows += [
        {"model": "last_frame", "seed": seed, "step": step, "error": 0.01} for seed in (0, 1) for step in (1, 2, 3)
    ]
    images = torch.randint(256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    films = [
        {"model": model, "seed": seed, "sequence": 0, "context": 2, "frames": encode(images)}
        for model, seed in (("truth", 0), ("rssm", 0), ("parsimonious", 0), ("parsimonious", 1))
    ]
    training = [
        {
            "model": model,
            "seed": 0,
            "num_updates": n,
            "reconstruction": 100.0 / n,
            "transition": 1.0,
            "waiting_share": (n - 25) * 4e-4,
        }
        for model in ("rssm", "parsimonious")
        for n in (25, 50)
    ]
    codes = [
        {"model": "parsimonious", "seed": seed, "action": action, "codes": 1 + seed * action, "on": 0.1}
        for seed in (0, 1)
        for action in range(6)
    ]
    tables = {"horizon": rows, "films": films, "training": training, "codes": codes}
    return {name: pd.DataFrame(table).assign(env="parsecrl/GoalsMaze-v0") for name, table in tables.items()}


def test_the_result_table():
    found = report.result_table(make_tables())
    rows = {row[0]: row[1:] for row in found.rows}
    assert list(rows) == ["parsimonious", "RSSM", "last frame"]
    assert rows["parsimonious"] == (
        "2",
        "1.5 [-4.853, 7.853]",
        "1",
        "2",
        "1",
        "1 to 3.5",
    )  # t of one degree of freedom: 12.7
    assert rows["last frame"] == ("-", "-", "-", "10", "-", "-")
    assert found.note.startswith("World: parsecrl/GoalsMaze-v0. Open loop")
    assert "Parsimonious less the RSSM of the same seed: KL -2, error -2; lower in 2 and 2 of 2." in found.note
    assert "Waiting for batches: 0.50% of the time, at most 1.00%." in found.note


def test_figures_strips_and_films(tmp_path: Path):
    tables = make_tables()
    images = render_all(report.plots(tables), tmp_path, "pixels")
    assert list(images) == ["horizon", "training", "strip-0"]
    assert all(image.light.stat().st_size > 3000 for image in images.values())
    assert [model for model, _ in report.panels(tables["films"], 0)] == ["truth", "parsimonious", "rssm"]
    film = report.write_film(tables["films"], 0, tmp_path / "film.mp4")
    assert film.read_bytes()[4:8] == b"ftyp"
    assert sorted(file.name for file in tmp_path.glob("*.mp4")) == ["film.mp4"]


def test_the_specs_hold_the_papers_numbers():
    phase = load_spec("open_loop_pixels").phases[0]
    assert phase.stop.conditions == {"num_updates": 25 * 250}
    assert (phase.batch_size, phase.sequence_length) == (50, 50)
    assert (phase.data.held_out, phase.data.held_out_steps) == (30, 149)
    assert (phase.model.transition_weight, phase.model.parsimony_weight) == (0.1, 0.5)
    assert phase.search["model.kind"].values == ["parsimonious", "rssm"]
    small = load_spec("open_loop_pixels_2core").phases[0]
    assert small.stop.conditions == {"num_updates": 25 * 120}
    assert len(small.search["seed"].values) == 3
    assert small.data.held_out == 30


def test_where_the_episodes_lie():
    phase = load_spec(QUICK).phases[0]
    assert phase.entry.resolve(phase, "/run/pixels_data").data.folder == "/run/pixels_data"
    shared = load_spec(QUICK, ["phases.pixels.data.folder=some/where"]).phases[0]
    assert shared.entry.resolve(shared, "/run/pixels_data").data.folder == str(Path.cwd() / "some" / "where")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("model.kind=gru", "model.kind must be 'parsimonious' or 'rssm', got 'gru'"),
        ("model.transition_weight=-1", "model.transition_weight must be greater than or equal to 0, got -1"),
        ("model.precision=float16", "model.precision must be 'float32' or 'bfloat16', got 'float16'"),
        ("sequence_length=60", "sequence_length must be at most data.max_steps + 1, got 60 with 40"),
        ("context=16", "context must be at most data.held_out_steps, got 16 with 15"),
        ("data.episode=3", "did you mean 'episodes'?"),
        ("world.id=parsecrl/Nowhere-v0", "must be one that parsecrl.envs registers, got 'parsecrl/Nowhere-v0'"),
    ],
)
def test_bad_input_ends_in_one_sentence(change: str, rule: str, capsys: pytest.CaptureFixture[str]):
    assert main(["specs", QUICK, "--set", f"phases.pixels.{change}"]) == 2
    message = capsys.readouterr().err
    assert rule in message
    assert message.count("\n") == 1


def test_the_episodes_of_pictures_are_exported_wherever_they_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    (run / "pixels").mkdir(parents=True)
    (run / "state.json").write_text('{"pixels": {"status": "running"}}')
    for name, changes in {"own": [], "shared": [f"phases.pixels.data.folder={tmp_path / 'elsewhere'}"]}.items():
        write_dataset(tmp_path / "elsewhere" if changes else run / "pixels_data", [3, 4])
        (run / "spec.yaml").write_text(dump(load_spec(QUICK, changes)))
        assert main(["export", str(run), "--to", str(tmp_path / name)]) == 0
        assert "train, each a Minari dataset" in capsys.readouterr().out
        assert len(read_episode(tmp_path / name / "train", 1).actions) == 4
    (run / "spec.yaml").write_text(dump(load_spec(QUICK)).replace("algorithm: open_loop", "algorithm: nowhere:X"))
    assert main(["export", str(run), "--to", str(tmp_path / "no")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


@pytest.mark.ray
def test_the_quick_spec_through_the_command_line(tmp_path: Path, ray_runtime: None, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("vizdoom")
    assert main(["run", QUICK, "--storage", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "parsimonious" in printed
    assert "RSSM" in printed
    run = tmp_path / QUICK
    assert len(list((run / "pixels_data" / "train").glob("[0-9]*"))) == 4
    tables = read_tables(run, "pixels")
    horizon = tables["horizon"]
    assert set(horizon["model"]) == {"parsimonious", "rssm", "last_frame", "mean_frame"}
    assert horizon["step"].max() == 16 - 5
    assert tables["training"].groupby("model")["num_updates"].max().to_dict() == {"parsimonious": 20, "rssm": 20}
    for metrics in last_metrics(run, "pixels"):
        assert metrics["gradient_norm"]["model"] > 0
        assert {"loss", "reconstruction"} <= metrics["loss"].keys()
        assert metrics["time_share"]["main"]["learning"] > 0.5
    assert tables["codes"].groupby(["model", "seed"]).size().to_dict() == {("parsimonious", 0): 6}
    assert (tables["codes"]["codes"] >= 1).all()
    assert tables["training"]["waiting_share"].between(0, 1).all()
    page = (run / "report" / "index.html").read_text()
    assert "World: parsecrl/HealthGathering-v0" in page
    for title in ("Results of pixels", "Predicted images", "Films"):
        assert title in page

    # Moved, it goes on with the episodes that it has; the new place is the only one that Tune's state may name.
    moved = run.rename(tmp_path / "moved")
    more = ["--set", "phases.pixels.stop.num_updates=25"]
    assert main(["run", QUICK, "--storage", str(tmp_path), "--name", "moved", *more]) == 0
    assert read_tables(moved, "pixels")["training"].groupby("model")["num_updates"].max().tolist() == [25, 25]
    assert not run.exists()
    files = [file for file in moved.rglob("*") if file.is_file() and "state-" not in file.name]
    places = (str(run).encode(), str(moved).encode())
    named = [file for file in files if any(place in file.read_bytes() for place in places)]
    assert {file.name for file in named} <= {"tuner.pkl"}
