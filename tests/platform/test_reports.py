"""Numbers, trials and iterates of reports, of a small run folder."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from parsecrl.algorithms.reporting.cells import score
from parsecrl.algorithms.reporting.figures import THEMES
from parsecrl.algorithms.reporting.statistics import interquartile_mean
from parsecrl.algorithms.training.user_errors import Failed
from parsecrl.platform.errors import UserError
from parsecrl.platform.reports import build_report, figures, format_table, paper_results
from parsecrl.platform.reports.iterates import compute_iterates, nearest_iterations
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.reports.warnings import warnings_of
from parsecrl.platform.runs.random_policy import CHECKS
from parsecrl.platform.runs.run_folder import STATE_FILE
from tests.platform.finished_run import DECODER, FULL, PHASES, WORLD_MODEL, returns_of
from tests.platform.html_page import read_page


def test_table_holds_numpys_percentiles(run_dir: Path):
    lines = format_table(run_dir).splitlines()
    names = [line.split()[0] for line in lines[3:7]]
    assert names == ["random", *PHASES]
    for line, phase in zip(lines[3:7], names, strict=True):
        q25, median, q75 = np.percentile(returns_of(phase), [25, 50, 75])
        assert f"{score(median)} [{score(q25)}, {score(q75)}]" in line
        assert f"{score(interquartile_mean(returns_of(phase)))} (" in line
    assert "701 [683, 714]" in lines[4]
    assert "652 [592, 681]" in lines[5]
    assert "685 [597, 716]" in lines[6]
    assert re.search(r"planet +CEM, full action space +180 +240,000 +20 ", lines[4])
    notes = " ".join(lines[7:])
    assert paper_results.LABEL in notes
    assert "Its numbers are for its own budgets" in notes
    assert len({len(line) for line in lines[2:7]}) == 1


def test_table_of_episodes_without_a_summary_is_the_same(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "cheetah_tiny", ignore=shutil.ignore_patterns("report"))
    (copy / "summary.json").unlink()
    assert format_table(copy) == format_table(run_dir)


def test_a_good_run_has_no_warnings(run_dir: Path, report: Path):
    assert warnings_of(load_run(run_dir)) == []
    assert "warning" not in format_table(run_dir)
    assert "warnings" not in read_page(report).ids


def test_a_controller_worse_than_random_is_said_in_the_last_lines(run_dir: Path, tmp_path: Path):
    run = tmp_path / "bad"
    shutil.copytree(run_dir, run)
    table = (run / "evaluation.csv").read_text().replace("random,random", "was,random").replace("embed,", "random,")
    (run / "evaluation.csv").write_text(table.replace("was,random", "embed,embedded"))
    (run / STATE_FILE).write_text(json.dumps({CHECKS: {"warnings": ["a task's own warning"]}}))
    (own, worse) = warnings_of(load_run(run))
    assert (own.phase, own.rule, own.text) == ("", "task", "a task's own warning")
    assert (worse.phase, worse.rule) == ("embed", "worse_than_random")
    lines = format_table(run).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("warning: embed: evaluated returns are worse than"))
    assert at >= len(lines) - 3
    page = read_page(build_report(run, iterates=False))
    assert "warnings" in page.ids
    assert page.ids.index("warnings") < page.ids.index("results")
    assert "evaluated returns are worse than the random policy's" in page.text


def test_training_returns_are_measured_by_what_is_known_of_the_random_policy(run_dir: Path, tmp_path: Path):
    """Before the evaluation: seed episodes of any phase in the task, or those played before the run."""
    run = tmp_path / "bad"
    shutil.copytree(run_dir, run)
    (run / "evaluation.csv").unlink()
    (run / "summary.json").unlink()
    assert warnings_of(load_run(run)) == []
    seed = {"random_return_mean": 500.0, "random_return_std": 10.0, "random_episodes": 5}
    played = {phase: {"mean": 500.0, "std": 10.0, "episodes": 4} for phase in PHASES}
    for states in ({"planet": {"checkpoint_metrics": seed}}, {CHECKS: {"random_returns": played}}):
        (run / STATE_FILE).write_text(json.dumps(states))
        assert [(w.phase, w.rule) for w in warnings_of(load_run(run))] == [(p, "worse_than_random") for p in PHASES]


def test_task_names_and_paper_rows():
    assert paper_results.task_of("dm_control/cheetah-run-v0") == "cheetah.run"
    assert paper_results.task_of("dm_control/humanoid_CMU-run-v0") == "humanoid_CMU.run"
    assert paper_results.task_of("HalfCheetah-v5") == "HalfCheetah"
    assert paper_results.result_for("walker.walk", "ppo") == (892, 843, 928, 1000)
    assert paper_results.result_for("cartpole.swingup", "full") is None
    assert "no figures for HalfCheetah" in paper_results.note("HalfCheetah")


def test_trials_carry_their_search_parameters(run_dir: Path):
    embed = load_run(run_dir).phases[1]
    assert [t.label for t in embed.trials][:2] == [
        "num_iterations=3, keep_replay=True",
        "num_iterations=3, keep_replay=False",
    ]
    assert embed.best is embed.trials[2]
    assert embed.trajectories == 100
    assert load_run(run_dir).phases[2].trajectories == 100  # its controller is the checkpoint's


def test_a_resumed_trial_keeps_the_later_rows_and_half_a_line_is_skipped(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "videos"))
    file = copy / "planet/trial_00000/result.json"
    again = [{"training_iteration": i, "env_steps": 12_000 * i, "episode_return_mean": -1.0} for i in (15, 16)]
    file.write_text(file.read_text() + "".join(json.dumps(row) + "\n" for row in again) + '{"training_it')
    trial = load_run(copy).phases[0].trials[0]
    assert trial.column("training_iteration").tolist() == list(range(1, 17))
    assert trial.column("episode_return_mean")[-2:].tolist() == [-1.0, -1.0]


def test_the_best_stored_checkpoint_stands_in_for_a_missing_summary(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "summary.json"))
    embed = load_run(copy).phases[1]
    assert embed.best is embed.trials[2]
    assert embed.checkpoint == copy / "embed/trial_00002/checkpoint_000001"
    assert embed.reached["env_steps"] == 15_000


def test_a_large_sweep_names_only_the_chosen_trial_in_its_legend(run_dir: Path, tmp_path: Path):
    from parsecrl.algorithms.reporting.figures import color_of

    embed = load_run(run_dir).phases[1]
    many = replace(embed, trials=tuple(replace(embed.trials[i % 4], name=f"trial_{i:05}") for i in range(30)))
    figure = Figure(layout="constrained")
    figures.curves(many, "cheetah.run").draw(figure, THEMES[0])
    assert len(figure.axes[0].collections[0].get_segments()) == 30
    assert len(figure.axes[0].lines) == 2  # the chosen one, and the star
    assert [text.get_text() for text in figure.legends[0].texts] == ["num_iterations=5, keep_replay=True (chosen)"]
    assert len({color_of(i, 30) for i in range(30)}) == 30


def test_a_trial_that_failed_says_why(run_dir: Path, tmp_path: Path):
    unwanted = shutil.ignore_patterns("report", "checkpoint_*", "summary.json")
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=unwanted)
    first = "Failure # 1 (occurred at 2026-01-01)\nThe actor died\n\tclass_name: A\n"
    last = 'ray::planet.train()\n  File "/a.py", line 3, in step\n    f()\n'
    last += f"{Failed.__module__}.Failed: LicenceError: no licence (/home/me/worlds.py:12)\n"
    (copy / "embed/trial_00001/error.txt").write_text(f"{first}Failure # 2 (occurred at 2026-01-01)\n{last}")
    text = read_page(build_report(copy)).text
    assert "num_iterations=3, keep_replay=False ended early: LicenceError: no licence (/home/me/worlds.py:12)" in text
    assert "the traceback is in embed/trial_00001/error.txt" in text
    assert "Phase embed has no checkpoint here" in text


def test_a_trial_that_went_on_after_an_error_did_not_fail(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    (copy / "embed/trial_00001/error.txt").write_text("Failure # 1: the actor died")  # Tune leaves it there
    assert [trial.failure for trial in load_run(copy).phases[1].trials if trial.failure] == [
        "Failure # 1: the actor died; the traceback is in embed/trial_00001/error.txt"
    ]
    file = copy / "embed/trial_00001/result.json"
    last = {"training_iteration": 21, "env_steps": 21_000, "done": True}
    file.write_text(file.read_text() + json.dumps(last) + "\n")
    assert not [trial.failure for trial in load_run(copy).phases[1].trials if trial.failure]


def test_a_moved_run_finds_its_checkpoints(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("report"))
    summary = (copy / "summary.json").read_text().replace(str(run_dir), "/gone/cheetah_tiny")
    (copy / "summary.json").write_text(summary)
    assert [p.checkpoint for p in load_run(copy).phases] == [
        copy / "planet/trial_00000/checkpoint_000001",
        copy / "embed/trial_00002/checkpoint_000001",
        copy / "finetune/trial_00000/checkpoint_000001",
    ]


def test_a_folder_without_a_run_is_a_users_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds a spec\.yaml"):
        build_report(tmp_path)


def test_nearest_iterations():
    assert nearest_iterations(10) == [1, 5, 7, 10]
    assert nearest_iterations(12) == [1, 5, 7, 10, 12]
    assert nearest_iterations(3) == [1, 3]
    assert nearest_iterations(1) == [1]


@pytest.mark.parametrize(("phase", "numbers", "samples"), [(0, [1, 5, 6], 30), (1, [1, 5], 20)])
def test_iterates_of_a_checkpoint(run_dir: Path, phase: int, numbers: list[int], samples: int):
    checkpoint = load_run(run_dir).phases[phase].checkpoint
    assert checkpoint is not None
    found = compute_iterates(checkpoint, decisions=3)
    assert [v.number for v in found.views] == numbers
    assert (found.decisions, found.env_steps, found.horizon, found.action_size) == (3, 12, 4, 6)
    for view in found.views:
        assert view.actions.shape == (samples, 4, 6)
        assert view.mean.shape == (4, 6)
        assert np.abs(view.actions).max() <= 1
        assert view.costs.shape == (samples,)
    again = compute_iterates(checkpoint, decisions=3)
    assert (again.views[-1].actions == found.views[-1].actions).all()


def test_iterates_are_of_the_task_with_its_own_arguments(tmp_path: Path):
    from parsecrl.algorithms.checkpoints.agent import save_agent
    from parsecrl.algorithms.controllers import PlanningAgent

    agent = PlanningAgent(3, 1, WORLD_MODEL, FULL, DECODER)
    groups = {"world_model": WORLD_MODEL, "controller": FULL, "decoder": DECODER}

    def costs(**described: object) -> np.ndarray:
        env = {"id": "Pendulum-v1", "action_repeat": 4, **described}
        save_agent(tmp_path, agent, {"algorithm": "planet", "env": env, "env_steps": 0, **groups})
        return compute_iterates(tmp_path, decisions=3).views[0].costs

    assert (costs(kwargs={"g": 10.0}) == costs()).all()  # the default
    assert (costs(kwargs={"g": 1.0}) != costs()).any()
    with pytest.raises(ValueError, match="wings"):
        costs(kwargs={"wings": 2})
