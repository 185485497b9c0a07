"""Parts of one sweep, from run folders of their own, put together."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from parsecrl.platform.analysis import read_tables
from parsecrl.platform.cli import main
from parsecrl.platform.reports.data import load_run
from parsecrl.platform.reports.pooling import pools

GRID = "parsecrl/Gridworld-v0"
BETTER = {"parsimonious": 2.0, "encoder_only": 1.0}  # the score of every episode, less a tenth of the seed


def part(
    folder: Path, seeds: list[int], beta: float = 1.0, run_seed: int = 0, models: tuple[str, ...] = tuple(BETTER)
) -> Path:
    """A run folder as it is left when nothing but its spec and its tables is kept."""
    search = {"model.kind": {"grid": list(models)}, "seed": {"grid": seeds}}
    phase: dict[str, Any] = {"name": "grid", "algorithm": "latent_sac", "model": {"kind": "parsimonious", "beta": beta}}
    phase |= {"world": {"id": GRID}, "stop": {"episodes": 4}, "checkpoint_every": len(seeds), "search": search}
    spec = {"name": folder.name, "seed": run_seed, "phases": [phase]}
    rows = [
        (GRID, model, seed, episode, BETTER[model] - seed / 10)
        for model in models
        for seed in seeds
        for episode in range(1, 5)
    ]
    tables = folder / "analysis" / "grid"
    tables.mkdir(parents=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    columns = ["env", "model", "seed", "episode", "score"]
    pd.DataFrame(rows, columns=columns).to_csv(tables / "scores.csv", index=False)
    return folder


def pooled(*folders: Path):
    return pools([(folder.name, load_run(folder)) for folder in folders])


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


@pytest.mark.parametrize("change", [{"beta": 0.5}, {"run_seed": 1}])
def test_other_settings_and_another_run_seed_stay_apart(tmp_path: Path, change: dict[str, Any]):
    found = pooled(part(tmp_path / "a", [0]), part(tmp_path / "b", [1], **change))
    assert [pool.runs for pool in found] == [("a",), ("b",)]


def test_a_pool_that_is_written_is_reported_on_and_pooled_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b, c = (part(tmp_path / name, [seed]) for seed, name in enumerate("abc"))
    both, everything = tmp_path / "both", tmp_path / "everything"
    assert main(["report", str(a), str(b), "--out", str(both)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "grid of a, b"
    assert next(line for line in lines if line.startswith("gridworld")).split()[:4] == ["gridworld", "ours", "2", "4"]
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
    assert "its tables alone are here" in report
