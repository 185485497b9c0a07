"""Parts of one sweep, from run folders of their own, put together."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from parsecrl.platform.cli import main
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.reports.pooling import studies_of
from parsecrl.platform.runs.tables import read_tables
from parsecrl.platform.storage import location_of, upload

GRID = "parsecrl/Gridworld-v0"
BETTER = {"parsimonious": 2.0, "encoder_only": 1.0}  # the score of every episode, less a tenth of the seed


def part(
    folder: Path,
    seeds: list[int],
    beta: float = 1.0,
    run_seed: int = 0,
    models: tuple[str, ...] = tuple(BETTER),
    worlds: dict[str, str] | None = None,
) -> Path:
    """A run folder as it is left when nothing but its spec and its tables is kept. worlds: of each phase."""
    worlds = worlds or {"grid": GRID}
    search = {"model.kind": {"grid": list(models)}, "seed": {"grid": seeds}}
    common = {"algorithm": "latent_sac", "model": {"kind": "parsimonious", "beta": beta}, "stop": {"episodes": 4}}
    phases: list[dict[str, Any]] = [
        {"name": name, **common, "world": {"id": world}, "checkpoint_every": len(seeds), "search": search}
        for name, world in worlds.items()
    ]
    folder.mkdir()
    (folder / "spec.yaml").write_text(yaml.safe_dump({"name": folder.name, "seed": run_seed, "phases": phases}))
    for name, world in worlds.items():
        rows = [
            (world, model, seed, episode, BETTER[model] - seed / 10)
            for model in models
            for seed in seeds
            for episode in range(1, 5)
        ]
        tables = folder / "analysis" / name
        tables.mkdir(parents=True)
        columns = ["env", "model", "seed", "episode", "score"]
        pd.DataFrame(rows, columns=columns).to_csv(tables / "scores.csv", index=False)
    return folder


def pooled(*folders: Path):
    return [pool for study in studies_of([(f.name, load_run(f)) for f in folders]) for pool in study.pools]


def test_what_differs_in_what_was_searched_alone_is_pooled_each_trial_once(tmp_path: Path):
    first, second = part(tmp_path / "a", [0, 1]), part(tmp_path / "b", [1, 2], models=("parsimonious",))
    (found,) = pooled(first, second)
    assert found.runs == ("a", "b")
    assert found.repeated == 1
    counts = found.tables["scores"].groupby(["model", "seed"]).size()
    assert counts.to_dict() == {
        **{("parsimonious", seed): 4 for seed in (0, 1, 2)},
        **{("encoder_only", seed): 4 for seed in (0, 1)},
    }
    assert found.spec["search"]["seed"] == {"grid": [0, 1, 2]}
    assert found.spec["search"]["model.kind"] == {"grid": ["parsimonious", "encoder_only"]}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"beta": 0.5}, "phase grid is not the same experiment in a and b"),
        ({"run_seed": 1}, "phase grid is not the same"),
    ],
)
def test_other_settings_and_another_run_seed_stay_apart(tmp_path: Path, change, rule: str, capsys):
    a, b = part(tmp_path / "a", [0]), part(tmp_path / "b", [1], **change)
    assert [pool.runs for pool in pooled(a, b)] == [("a",), ("b",)]
    assert main(["report", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<figure>") == 2
    assert main(["report", str(a), str(b), "--out", str(tmp_path / "both")]) == 2
    assert rule in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_of_one_run_a_folder_keeps_what_is_light(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = part(tmp_path / "a", [0, 1])
    (run / "grid").mkdir()
    assert main(["report", str(run), "--out", str(tmp_path / "kept")]) == 0
    capsys.readouterr()
    kept = {str(file.relative_to(tmp_path / "kept")) for file in (tmp_path / "kept").rglob("*") if file.is_file()}
    assert {"index.html", "pooled.json", "spec.yaml", "analysis/grid/scores.csv"} < kept
    assert main(["report", str(tmp_path / "kept")]) == 0
    assert "gridworld" in capsys.readouterr().out


@pytest.mark.parametrize(("out", "rule"), [("a", "must not be a run's own folder"), ("s3://b/x", "on this machine")])
def test_where_a_pool_cannot_be_written(tmp_path: Path, out: str, rule: str, capsys):
    a, b = part(tmp_path / "a", [0]), part(tmp_path / "b", [1])
    (a / "state.json").write_text("{}")
    assert main(["report", str(a), str(b), "--out", out if "://" in out else str(tmp_path / out)]) == 2
    assert rule in capsys.readouterr().err
    assert yaml.safe_load((a / "spec.yaml").read_text())["phases"][0]["search"]["seed"] == {"grid": [0]}


def test_tables_without_rows_and_tables_that_one_part_lacks(tmp_path: Path):
    """As of a model that cannot predict, beside one that can."""
    a, b, c = (part(tmp_path / name, [seed]) for seed, name in enumerate("abc"))
    row = pd.DataFrame([(GRID, "parsimonious", 1, 0.5)], columns=["env", "model", "seed", "relative"])
    row.iloc[:0].to_csv(a / "analysis" / "grid" / "predictions.csv", index=False)
    row.to_csv(b / "analysis" / "grid" / "predictions.csv", index=False)
    (found,) = pooled(a, b, c)
    pd.testing.assert_frame_equal(found.tables["predictions"], row)
    (alone,) = pooled(a, c)
    assert list(alone.tables["predictions"].columns) == ["env", "model", "seed", "relative"]
    assert alone.tables["scores"]["score"].dtype == float


def test_phases_in_worlds_of_their_own_are_shown_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    worlds = {"grid": GRID, "ring": "parsecrl/Torus-v0", "grid_again": GRID, "later": "parsecrl/FourRooms-v0"}
    folder = part(tmp_path / "a", [0, 1], worlds=worlds)
    shutil.rmtree(folder / "analysis" / "later")
    run = load_run(folder)
    assert [study.names for study in studies_of([("a", run)])] == ["grid, ring", "grid_again", "later"]
    assert main(["report", str(tmp_path / "a")]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith(("gridw", "torus"))]
    grid, ring = [["gridworld", "parsimonious"], ["gridworld", "no"]], [["torus", "parsimonious"], ["torus", "no"]]
    assert rows == [*grid, *ring, *grid]
    page = (tmp_path / "a" / "report" / "index.html").read_text()
    assert page.count("<figure>") == 2
    assert "Results of grid, ring" in page


def test_a_part_may_lack_some_of_the_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torus = {"ring": "parsecrl/Torus-v0"}
    a, b = part(tmp_path / "a", [0, 1], worlds={"grid": GRID, **torus}), part(tmp_path / "b", [2], worlds=torus)
    other = part(tmp_path / "other", [0, 1], beta=0.5, worlds={"grid": GRID, "rooms": "parsecrl/FourRooms-v0"})
    studies = studies_of([(folder.name, load_run(folder)) for folder in (a, b, other)])
    assert [study.title for study in studies] == ["grid, ring of a, b", "grid, rooms of other"]
    assert main(["report", str(a), str(b), "--out", str(tmp_path / "both")]) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["gridworld", "parsimonious", "2"] in lines
    assert ["torus", "parsimonious", "3"] in lines
    assert (tmp_path / "both" / "index.html").read_text().count("<figure>") == 1


def test_a_pool_that_is_written_is_reported_on_and_pooled_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b, c = (part(tmp_path / name, [seed]) for seed, name in enumerate("abc"))
    both, everything = tmp_path / "both", tmp_path / "everything"
    assert main(["report", str(a), str(b), "--out", str(both)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "grid of a, b"
    assert next(line for line in lines if line.startswith("gridworld")).split()[:4] == [
        "gridworld",
        "parsimonious",
        "2",
        "4",
    ]
    assert len(read_tables(both, "grid")["scores"]) == 16
    page = (both / "index.html").read_text()
    assert "Results of grid of a, b" in page
    assert page.count("<figure>") == 1

    assert main(["report", str(both), str(c), "--out", str(everything)]) == 0
    assert main(["report", str(everything)]) == 0
    table = capsys.readouterr().out
    assert "everything: latent sac" in table
    assert "7.6 [6.6, 8.6]" in table  # of 8.0, 7.6 and 7.2: Student's t, 4.303 standard errors
    report = (everything / "report" / "index.html").read_text()
    assert f"the trials are in {both}, {c}" in report
    assert main(["run", str(c / "spec.yaml"), "--name", "everything", "--storage", str(tmp_path)]) == 2
    assert "holds tables of several runs" in capsys.readouterr().err
    assert main(["report", str(both), str(c), "--out", str(both)]) == 0
    assert "more than once" not in capsys.readouterr().out


def test_a_run_whose_spec_is_of_another_version_is_still_reported_on(tmp_path: Path, capsys):
    run = part(tmp_path / "a", [0])
    (run / "state.json").write_text("{}")
    spec = yaml.safe_load((run / "spec.yaml").read_text())
    (run / "spec.yaml").write_text(yaml.safe_dump({**spec, "of_another_version": 1}))
    assert main(["report", str(run)]) == 0
    assert "gridworld" in capsys.readouterr().out


def test_a_part_in_an_object_store_is_reported_on_there(tmp_path: Path, s3: str, capsys: pytest.CaptureFixture[str]):
    run, place = part(tmp_path / "a", [0, 1]), location_of(f"{s3}/a")
    for file in [file for file in run.rglob("*") if file.is_file()]:
        upload(file, place / file.relative_to(run).as_posix())
    assert main(["report", f"{s3}/a"]) == 0
    assert f"report: {s3}/a/report/index.html" in capsys.readouterr().out
    assert "gridworld" in (place / "report" / "index.html").read_text()
    assert (place / "report" / "figures" / "grid-curves.png").is_file()
