"""Reports of a small run folder whose files are in the formats that Tune and the pipeline write."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from parsecrl.algorithms.reporting.cells import score
from parsecrl.algorithms.reporting.figures import THEMES
from parsecrl.algorithms.reporting.statistics import interquartile_mean, summarize
from parsecrl.algorithms.training.user_errors import Failed
from parsecrl.platform.errors import UserError
from parsecrl.platform.reports import build_comparison, build_report, figures, format_table, paper_results
from parsecrl.platform.reports.iterates import compute_iterates, nearest_iterations
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.reports.opening import opening, opening_over_seeds
from parsecrl.platform.reports.over_seeds import ChainRecord, Chains, summary_of
from parsecrl.platform.reports.warnings import warnings_of
from parsecrl.platform.runs.random_policy import CHECKS
from parsecrl.platform.runs.run_folder import STATE_FILE
from tests.platform import chromium

PHASES = ("planet", "embed", "finetune")
FULL = {"kind": "full", "horizon": 4, "num_samples": 30, "num_elites": 5, "num_iterations": 6}
EMBEDDED = {"kind": "embedded", "latent_size": 3, "horizon": 4, "num_samples": 20, "num_elites": 4, "num_iterations": 3}
WORLD_MODEL = {"deterministic_size": 8, "stochastic_size": 4, "hidden_size": 8, "min_std": 0.1}
DECODER = {"hidden_size": 8, "num_layers": 1, "init_scale": 1.0, "conditioning": "none"}
SPEC = {
    "name": "cheetah_tiny",
    "env": {"id": "dm_control/cheetah-run-v0", "action_repeat": 4},
    "seed": 3,
    "phases": [
        {"name": "planet", "algorithm": "planet", "controller": FULL, "stop": {"env_steps": 240_000}},
        {
            "name": "embed",
            "algorithm": "planet",
            "start_from": "planet",
            "controller": EMBEDDED,
            "search": {"controller.num_iterations": {"grid": [3, 5]}, "keep_replay": {"grid": [True, False]}},
            "stop": {"env_steps": 20_000},
        },
        {"name": "finetune", "algorithm": "dcem_ppo", "start_from": "embed", "stop": {"ppo_steps": 20}},
    ],
    "evaluate": {"episodes": 20, "phases": list(PHASES), "random": True, "videos": True},
}


def returns_of(phase: str) -> np.ndarray:
    centre = {"random": 5.0, "planet": 420.0, "embed": 350.0, "finetune": 390.0}[phase]
    rng = np.random.default_rng(len(phase))
    return centre + 0.12 * centre * rng.standard_normal(20)


def write_trial(folder: Path, controller: dict, keep_replay: bool, steps: int, unit: str, final: float) -> None:
    """A Tune trial folder: params.json and result.json, an object a line."""
    folder.mkdir(parents=True)
    config = {"controller": controller, "keep_replay": keep_replay, "env": "parsecrl.envs:parsecrl/Control-v0"}
    (folder / "params.json").write_text(json.dumps(config))
    rows = []
    for i in range(1, 21):
        rows.append(
            {
                "training_iteration": i,
                "env_steps": steps * i // 20,
                "episode_return_mean": float("nan") if i == 1 else final * (1 - np.exp(-i / 5)) + 10 * np.sin(3 * i),
                "planning_ms": 12.5,
                "time_total_s": 30.0 * i,
                **({"ppo_steps": i} if unit == "ppo_steps" else {"num_updates": 10 * i}),
                "learners": {
                    "__all_modules__": {"num_env_steps_trained": 80},
                    "default_policy": {"model_loss": 9.0 / i, "reward": 2.0 / i, "kl": 1.0, "weights_seq_no": i},
                },
            }
        )
    with (folder / "result.json").open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def write_checkpoint(folder: Path, algorithm: str, controller: dict, env_steps: int) -> None:
    import torch

    from parsecrl.algorithms.checkpoints.agent import save_agent
    from parsecrl.algorithms.controllers import PlanningAgent

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = PlanningAgent(17, 6, WORLD_MODEL, controller, DECODER)
    description = {"algorithm": algorithm, "env": SPEC["env"], "env_steps": env_steps}
    save_agent(folder, agent, {**description, "world_model": WORLD_MODEL, "controller": controller, "decoder": DECODER})
    reached = {"episode_return_mean": 300.0, "env_steps": env_steps, "ppo_steps": 15, "training_iteration": 15}
    (folder / "metrics.json").write_text(json.dumps(reached))


def write_evaluation(folder: Path, phases: tuple[str, ...]) -> None:
    with (folder / "evaluation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "controller", "episode", "seed", "episode_return", "env_steps", "planning_ms"])
        for phase in phases:
            kind = {"random": "random", "planet": "full"}.get(phase, "embedded")
            for episode, value in enumerate(returns_of(phase)):
                ms = 0.0 if phase == "random" else 12.5
                writer.writerow([phase, kind, episode, 1000 + episode, repr(float(value)), 1000, ms])


def write_summary(folder: Path, checkpoints: dict[str, Path]) -> None:
    phases = {}
    for phase, checkpoint in checkpoints.items():
        phases[phase] = {
            "algorithm": "dcem_ppo" if phase == "finetune" else "planet",
            "controller": "full" if phase == "planet" else "embedded",
            "best_trial": checkpoint.parent.name,
            "checkpoint": str(checkpoint),
            "env_steps": {"planet": 240_000, "embed": 20_000, "finetune": 120_000}[phase],
            "wall_time_s": 600.0,
            "planning_ms": 12.5,
            **summarize(returns_of(phase))._asdict(),
        }
    machine = {"cpu": "2 cores <test>", "versions": {"torch": "2.13.0", "ray": "2.60.0"}}
    summary = {"name": SPEC["name"], "spec": SPEC, "env": SPEC["env"], "machine": machine, "phases": phases}
    (folder / "summary.json").write_text(json.dumps(summary))


def write_video(path: Path) -> None:
    import imageio.v2 as imageio

    path.parent.mkdir(exist_ok=True)
    ramp = np.arange(64, dtype=np.uint8)
    frames = [np.broadcast_to((ramp * 3 + i)[None, :, None], (48, 64, 3)).copy() for i in range(12)]
    imageio.mimwrite(path, frames, fps=12, macro_block_size=16)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: three phases (the second a sweep of four trials), evaluation, summary, one video."""
    run = tmp_path_factory.mktemp("storage") / "cheetah_tiny"
    run.mkdir()
    (run / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    checkpoints = {}
    write_trial(run / "planet/trial_00000", FULL, True, 240_000, "env_steps", 400)
    write_checkpoint(run / "planet/trial_00000/checkpoint_000001", "planet", FULL, 180_000)
    checkpoints["planet"] = run / "planet/trial_00000/checkpoint_000001"
    for i, (iterations, keep) in enumerate([(3, True), (3, False), (5, True), (5, False)]):
        controller = {**EMBEDDED, "num_iterations": iterations}
        write_trial(run / f"embed/trial_0000{i}", controller, keep, 20_000, "env_steps", 250 + 40 * i)
    checkpoints["embed"] = run / "embed/trial_00002/checkpoint_000001"
    write_checkpoint(checkpoints["embed"], "planet", {**EMBEDDED, "num_iterations": 5}, 15_000)
    write_trial(run / "finetune/trial_00000", EMBEDDED, True, 120_000, "ppo_steps", 380)
    checkpoints["finetune"] = run / "finetune/trial_00000/checkpoint_000001"
    write_checkpoint(checkpoints["finetune"], "dcem_ppo", {**EMBEDDED, "num_iterations": 5}, 90_000)
    write_evaluation(run, ("random", *PHASES))
    write_summary(run, checkpoints)
    write_video(run / "videos/planet.mp4")
    return run


@pytest.fixture(scope="module")
def report(run_dir: Path) -> Path:
    return build_report(run_dir)


class Page(HTMLParser):
    """Whatever a browser would load, the text, and whether every tag is closed."""

    void = frozenset({"meta", "link", "img", "source", "br", "hr"})

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "srcset", "data", "poster") or (tag == "link" and key == "href"):
                self.loads.append(value or "")
            elif key == "href":
                self.links.append(value or "")
            elif key == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read_page(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


# --- numbers ---------------------------------------------------------------------------------------------------------


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


# --- reading ---------------------------------------------------------------------------------------------------------


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
    from parsecrl.algorithms.reporting.figures import THEMES, color_of
    from parsecrl.platform.reports import figures

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


# --- iterates --------------------------------------------------------------------------------------------------------


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


# --- pages -----------------------------------------------------------------------------------------------------------


def test_report_is_one_self_contained_page(run_dir: Path, report: Path):
    assert report == run_dir / "report" / "index.html"
    page = read_page(report)
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    assert "script" not in page.tags
    assert "url(" not in report.read_text()
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    q25, median, q75 = np.percentile(returns_of("planet"), [25, 50, 75])
    assert f"{score(median)} [{score(q25)}, {score(q75)}]" in page.text
    for expected in ("2 cores <test>", "parsec report", "num_iterations=5, keep_replay=True (chosen)", "torch"):
        assert expected in page.text


def test_report_saves_its_figures(report: Path):
    import matplotlib.image

    names = {"returns", *(f"{kind}-{p}" for p in PHASES for kind in ("curve", "losses", "iterates", "predictions"))}
    files = {f.stem: f for f in (report.parent / "figures").glob("*.png")}
    assert set(files) == names | {f"{name}-dark" for name in names}
    for file in files.values():
        pixels = matplotlib.image.imread(file)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.01


def test_report_embeds_videos_and_names_those_that_lack(report: Path):
    page = read_page(report)
    assert page.tags.count("video") == 1
    assert "There is no video of phase embed" in page.text
    assert "There is no video of phase planet" not in page.text


def test_a_large_video_is_named_and_not_embedded(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    from parsecrl.algorithms.reporting import markup

    monkeypatch.setattr(markup, "VIDEO_LIMIT", 100)
    text = markup.video(run_dir / "videos/planet.mp4", "planet")
    assert "<video" not in text
    assert "open videos/planet.mp4" in text


def test_a_run_with_only_its_first_phase(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(
        run_dir,
        tmp_path / "half",
        ignore=shutil.ignore_patterns("report", "videos", "embed", "finetune", "summary.json"),
    )
    write_evaluation(copy, ("random", "planet"))
    text = read_page(build_report(copy, iterates=False)).text
    assert "Phase embed was not run." in text
    assert "Phase finetune was not run." in text
    assert "summary.json is missing" in text
    assert "There is no video of phase planet" in text
    assert format_table(copy).count("not evaluated") == 2


def test_a_run_that_has_just_begun(tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "planet" / "trial").mkdir(parents=True)
    (tmp_path / "planet" / "trial" / "params.json").write_text("{}")
    (tmp_path / "state.json").write_text(json.dumps({"planet": {"status": "running", "stop": {"env_steps": 240_000}}}))
    text = read_page(build_report(tmp_path)).text
    assert "Phase planet has not finished." in text
    assert "Phase planet was started, but has no training result yet." in text
    assert "The random policy was not evaluated." in text


def test_a_broken_checkpoint_and_short_training_are_reported(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "embed", "finetune"))
    spec = {**SPEC, "phases": [{**SPEC["phases"][0], "stop": {"env_steps": 1_000_000}}]}
    (copy / "spec.yaml").write_text(yaml.safe_dump(spec))
    (copy / "planet/trial_00000/checkpoint_000001/agent.safetensors").write_bytes(b"not weights")
    text = read_page(build_report(copy)).text
    assert "iterates of phase planet could not be computed" in text
    assert "stopped at env_steps 240,000, short of the spec's 1,000,000" in text


def test_text_from_specs_is_escaped(run_dir: Path, tmp_path: Path):
    bad = '<script>alert("1")</script>&$x_{'
    spec = json.loads(json.dumps(SPEC).replace("cheetah_tiny", "NAME"))
    spec["name"] = bad
    spec["env"]["id"] = bad
    spec["phases"][0]["name"] = "<b>$\\frac{"
    copy = tmp_path / "run"
    shutil.copytree(run_dir / "embed", copy / "embed")
    params = copy / "embed/trial_00000/params.json"
    params.write_text(params.read_text().replace('"num_iterations": 3', f'"num_iterations": {json.dumps(bad)}'))
    (copy / "spec.yaml").write_text(yaml.safe_dump(spec))
    page = read_page(build_report(copy, iterates=False))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert bad in page.text
    assert bad in format_table(copy)


def test_comparison_of_two_runs(run_dir: Path, tmp_path: Path):
    other = shutil.copytree(run_dir, tmp_path / "cheetah_tiny", ignore=shutil.ignore_patterns("report", "finetune"))
    out, table = build_comparison([run_dir, other], tmp_path / "comparison")
    assert table == ""  # no study
    page = read_page(out)
    assert out == tmp_path / "comparison" / "index.html"
    assert all(load.startswith("data:") for load in page.loads)
    assert len(list((out.parent / "figures").glob("*.png"))) == 2 * (1 + 3)
    assert str(other) in page.text
    with pytest.raises(UserError, match="at least two"):
        build_comparison([run_dir], tmp_path)


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
@pytest.mark.parametrize("width", [1280, 390])
def test_page_renders_in_chromium_without_errors_or_requests(report: Path, tmp_path: Path, width: int):
    """The page's own policy forbids all requests but data URIs: any other would be an error on the console."""
    assert console_of(report, tmp_path, width) == []
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
def test_the_pages_policy_blocks_scripts_and_requests(report: Path, tmp_path: Path):
    """What the test above relies on: a request or a script in the page shows on the console."""
    page = tmp_path / "tampered.html"
    bad = '<main><img src="http://127.0.0.1:9/x.png"><script>1</script>'
    page.write_text(report.read_text().replace("<main>", bad))
    lines = console_of(page, tmp_path, 800)
    assert len(lines) == 2
    assert "img-src" in lines[0]


def console_of(page: Path, scratch: Path, width: int) -> list[str]:
    """Load a page in headless Chromium, save scratch/page.png, return the console's lines."""
    done = chromium.load(page.as_uri(), scratch / "page.png", width, 900, "--enable-logging=stderr")
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_with_what_was_done_and_what_came_out(report: Path, run_dir: Path, tmp_path: Path):
    text = Page(report.read_text()).text
    assert "This run trained planet (240,000 environment steps, 10 min), embed (4 trials, 20,000 environ" in text
    medians = {phase: np.median(returns_of(phase)) for phase in ("planet", "random")}
    assert f"Over 20 episodes the median return of planet reached {medians['planet']:,.4g}" in text
    assert f", against {medians['random']:,.4g} of the random policy." in text
    copy = tmp_path / "begun"
    copy.mkdir()
    shutil.copy(run_dir / "spec.yaml", copy)
    assert "No phase of cheetah_tiny has begun. Its agents were not evaluated yet." in opening(load_run(copy))


def test_a_page_over_seeds_opens_likewise(run_dir: Path):
    chains = [
        ChainRecord(f"{variant}-seed{seed}", variant, seed, {}) for variant in ("spec", "wide") for seed in (0, 1)
    ]
    found = Chains(chains, {chain.name: load_run(run_dir) for chain in chains[:3]})
    text = opening_over_seeds(found, summary_of(found))
    medians = {phase: np.median([*returns_of(phase), *returns_of(phase)]) for phase in ("planet", "random")}
    assert text.startswith(
        "This run trained planet, embed and finetune over 2 seeds and 2 variants; 3 of 4 chains have begun. Over all "
        f"seeds of spec the median return of planet reached {medians['planet']:,.4g}, embed reached"
    )
    assert text.endswith(f"against {medians['random']:,.4g} of the random policy.")


def test_evaluations_are_drawn_beside_the_training_return(run_dir: Path, tmp_path: Path):
    def drawn(every: int):
        copy = shutil.copytree(run_dir, tmp_path / f"run{every}", ignore=shutil.ignore_patterns("report", "videos"))
        file = copy / "planet/trial_00000/result.json"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for i, row in enumerate(rows):
            here = every and i % every == every - 1
            row |= {"evaluation_return_mean": 300.0 if here else float("nan"), "evaluation_return_std": 20.0}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return figures.curves(load_run(copy).phases[0], "cheetah.run")

    with_them, without = drawn(5), drawn(0)
    assert "Dots: evaluations" in with_them.caption
    assert "Dots" not in without.caption
    figure = Figure()
    with_them.draw(figure, THEMES[0])
    (bars,) = figure.axes[0].containers
    assert bars.lines[0].get_ydata().tolist() == [300.0] * 4


@pytest.mark.parametrize(("size", "line"), [(1, "None"), (2, "None"), (3, "-")])
def test_curves_of_one_or_two_results_are_points(run_dir: Path, tmp_path: Path, size: int, line: str):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "videos"))
    file = copy / "planet/trial_00000/result.json"
    file.write_text(
        "".join(f"{row}\n" for row in file.read_text().splitlines()[1 : 1 + size])
    )  # the first has no return
    figure = Figure()
    figures.curves(load_run(copy).phases[0], "another task").draw(figure, THEMES[0])
    curve = figure.axes[0].lines[0]
    assert (curve.get_linestyle(), len(curve.get_xdata())) == (line, size)
