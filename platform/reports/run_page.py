"""One self-contained page for a run: report/index.html, and its figures as files in report/figures/."""

from __future__ import annotations

import math
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOT_EVALUATED, NOTHING, count, milliseconds
from parsecrl.algorithms.reporting.figures import PALETTE, Plot, color_of, render
from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.evaluation.prediction_figures import prediction_plot
from parsecrl.platform.evaluation.predictions import predict_episode
from parsecrl.platform.reports import figures
from parsecrl.platform.reports.iterates import compute_iterates
from parsecrl.platform.reports.loaded_run import Phase, Run, load_run
from parsecrl.platform.reports.not_run import what_is_missing
from parsecrl.platform.reports.opening import opening
from parsecrl.platform.reports.over_seeds import has_chains
from parsecrl.platform.reports.over_seeds_page import build_chains_report
from parsecrl.platform.reports.pages import write_page
from parsecrl.platform.reports.paper_results import note, result_for
from parsecrl.platform.reports.pooling import studies_of
from parsecrl.platform.reports.results_table import EXPLANATION, HEADINGS, study_sections, table_rows
from parsecrl.platform.reports.sweep_page import sweep_section
from parsecrl.platform.reports.warnings import warnings_of
from parsecrl.platform.storage import Location, location_of
from parsecrl.platform.terminal import duration

LOSS_LIMIT = 12
PREDICTED_DECISIONS = 100  # of an episode, at most
LEARNER = "learners/default_policy/"
BOOKKEEPING = re.compile(r"/|^(num_|total_loss$|module_train|weights_seq)|learning_rate|throughput|diff_num|timers?$")
CONTENTS = {"missing": "Not run", "spec": "Spec", "machine": "Machine", "commands": "Reproduce"}
ACTING_CONTENTS = {
    "results": "Results",
    "returns": "Returns",
    "curves": "Learning curves",
    "iterates": "What the planner tries",
    "predictions": "What the model predicts",
    "planning": "Planning cost",
    "videos": "Videos",
}
PLANNING_HEADINGS = (
    *("phase", "controller", "variables", "samples × iterations", "trajectories", "horizon", "model steps", "plan ms"),
    "trajectories, paper",
)


def build_report(run_dir: str | Location | Run, *, iterates: bool = True) -> Location:
    """Write report/index.html into a run folder, finished or not. It needs no other file.

    Args:
        run_dir: A run folder, on disk or in an object store, or a run that was loaded.
        iterates: Also load each phase's checkpoint and play with it, to show what the planner tries and what the model
            predicts: seconds a phase.

    Returns:
        The page, where the run is.

    Raises:
        UserError: The folder holds no run.
    """
    if not isinstance(run_dir, Run) and has_chains(location_of(run_dir)):
        return build_chains_report(run_dir)
    run = run_dir if isinstance(run_dir, Run) else load_run(run_dir)
    out = run.folder / "report"
    folder, studies, problems = out / "figures", studies_of([(run.name, run)]), list[str]()
    sweeps = {
        (f"sweep-{_slug(phase.name)}", f"Sweep of {phase.name}"): phase for phase in run.phases if len(phase.trials) > 1
    }
    told = {key: part for key, phase in sweeps.items() if (part := sweep_section({_seed(run): phase}, *key, out))}
    contents = {
        **(ACTING_CONTENTS if run.acting else {}),
        **dict(told.keys()),
        **{f"results-{study.phase.name}": f"Results of {study.names}" for study in studies},
        **CONTENTS,
    }
    if not iterates:
        for anchor in ("iterates", "predictions"):
            contents.pop(anchor, None)
    acting: dict[str, Any] = {}
    if run.acting:
        acting = {
            "tiles": [_tile(run, phase) for phase in run.rows],
            "results": (HEADINGS, table_rows(run)),
            "explanation": EXPLANATION,
            "paper_note": note(run.task),
            "returns": _drawn(figures.boxes(run), folder, "returns") if any(p.statistics for p in run.rows) else "",
            "curves": [(phase, _curves(run, phase, folder)) for phase in run.acting],
            "iterates": _iterates(run, folder, problems) if iterates else [],
            "predictions": _predictions(run, folder, problems) if iterates else [],
            "planning": (PLANNING_HEADINGS, [_planning(run, phase) for phase in run.acting]),
            "videos": _videos(run, problems),
        }
    page = write_page(
        out / "index.html",
        "run_page.html",
        title=f"{run.name}: {run.task}",
        run=run,
        opening=opening(run),
        facts=_facts(run),
        contents=contents,
        warnings=[warning.text for warning in warnings_of(run)],
        studies=[*told.values(), *(p for s in studies for p in study_sections(s, s.phase.name, s.names, folder))],
        missing=what_is_missing(run) + problems,
        machine=_machine(run),
        commands="\n".join(_commands(run)),
        **acting,
    )
    if run.copy is not None:
        run.copy.send_back(out)
    return run.address(page)


def _drawn(plot: Plot, folder: Path, name: str) -> Markup:
    return markup.figure(render(plot, folder, name))


def _facts(run: Run) -> list[str]:
    env = run.env
    world = f"{env.get('id', 'unknown environment')}, action repeat {env.get('action_repeat', 1)}"
    world += "".join(f", {name} = {value}" for name, value in (env.get("kwargs") or {}).items())
    world += f", at most {limit} steps an episode" if (limit := env.get("max_episode_steps")) else ""
    return [
        *([world] if run.acting else []),
        f"seed {run.spec.get('seed', 0)}",
        f"report made {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    ]


class Tile(NamedTuple):
    """A phase's median return, at the head of the page."""

    label: str
    value: str
    notes: list[str]
    color: str


def _tile(run: Run, phase: Phase) -> Tile:
    label = "random policy" if phase.name == RANDOM else f"{phase.name}: {phase.title}"
    color = figures.KIND_COLORS.get(phase.kind, PALETTE[4])
    s, reference = phase.statistics, result_for(run.task, phase.kind)
    if s is None:
        return Tile(label, NOTHING, [NOT_EVALUATED], color)
    notes = [f"median of {s.episodes} episodes", f"quartiles {s.q25:.0f} to {s.q75:.0f}"]
    notes += [f"the paper's median: {reference.median:.0f}"] if reference else []
    return Tile(label, f"{s.median:.0f}", notes, color)


def _curves(run: Run, phase: Phase, folder: Path) -> list[Markup]:
    if not any(figures.has_curve(trial, figures.curve_axis(phase)) for trial in phase.trials):
        return []
    parts = [_drawn(figures.curves(phase, run.task), folder, f"curve-{_slug(phase.name)}")]
    if len(phase.trials) > 1:
        listing = _trial_table(phase)
        parts.append(markup.details(f"All {len(phase.trials)} trials", listing) if len(phase.trials) > 12 else listing)
    return parts + _losses(phase, folder)


def _trial_table(phase: Phase) -> Markup:
    rows, swatches = [], []
    for i, trial in enumerate(phase.trials):
        returns = trial.column("episode_return_mean")
        returns = returns[np.isfinite(returns)]
        mark = " (chosen)" if trial is phase.best else ""
        rows.append(
            (
                trial.label + mark + (" (failed)" if trial.failure else ""),
                count(trial.last("env_steps")),
                count(trial.last("ppo_steps")),
                f"{returns[-1]:.0f}" if returns.size else NOTHING,
                f"{returns.max():.0f}" if returns.size else NOTHING,
                _duration(trial.last("time_total_s")),
            )
        )
        swatches.append(color_of(i, len(phase.trials)))
    if len(phase.trials) >= figures.MANY:
        swatches = []
    headings = ("trial", "env steps", "PPO steps", "last return", "best return", "time")
    used = [i for i in range(len(headings)) if any(row[i] != NOTHING for row in rows)]
    return markup.table([headings[i] for i in used], [[row[i] for i in used] for row in rows], swatches)


def _losses(phase: Phase, folder: Path) -> list[Markup]:
    """What the learner reports of the chosen trial: losses, their terms, gradient norms; without Ray's bookkeeping."""
    trial = phase.best
    if trial is None:
        return []
    names = {key: str(key).removeprefix(LEARNER) for key in trial.rows.columns if str(key).startswith(LEARNER)}
    keys = [
        key
        for key, name in sorted(names.items(), key=lambda item: ("loss" not in item[1], item[1]))
        if not BOOKKEEPING.search(name) and np.isfinite(trial.column(key)).sum() > 1
    ][:LOSS_LIMIT]
    if not keys:
        return []
    image = _drawn(figures.losses(phase, trial, keys), folder, f"losses-{_slug(phase.name)}")
    return [markup.details("Learner metrics", image)]


def _iterates(run: Run, folder: Path, problems: list[str]) -> list[tuple[Phase, Markup]]:
    parts = []
    for phase in run.acting:
        if phase.checkpoint is None:
            continue
        try:
            found = compute_iterates(run.address(phase.checkpoint), seed=_seed(run), trust=run.is_own)
        except Exception as error:  # a report is never lost to a checkpoint that this machine cannot play
            problems.append(f"The planning iterates of phase {phase.name} could not be computed: {_first_line(error)}")
            continue
        if found is None:
            continue
        plot = figures.plan_iterates(phase, found)
        parts.append((phase, _drawn(plot, folder, f"iterates-{_slug(phase.name)}")))
    return parts


def _predictions(run: Run, folder: Path, problems: list[str]) -> list[tuple[Phase, Markup]]:
    parts = []
    for phase in run.acting:
        if phase.checkpoint is None:
            continue
        episode = int(phase.video_of.get("episode", 0))
        try:
            found = predict_episode(
                run.address(phase.checkpoint),
                None,
                _seed(run),
                episode=episode,
                decisions=PREDICTED_DECISIONS,
                trust=run.is_own,
            )
        except Exception as error:  # a report is never lost to a checkpoint that this machine cannot play
            problems.append(f"The predictions of phase {phase.name} could not be computed: {_first_line(error)}")
            continue
        if found is not None:
            plot = prediction_plot(found, f"phase {phase.name}")
            parts.append((phase, _drawn(plot, folder, f"predictions-{_slug(phase.name)}")))
    return parts


def _planning(run: Run, phase: Phase) -> tuple[str, ...]:
    """Cells in the order of PLANNING_HEADINGS."""
    c, horizon = phase.controller, phase.controller.get("horizon")
    reference = result_for(run.task, phase.kind)
    known = phase.trajectories is not None and isinstance(horizon, int)
    return (
        phase.name,
        phase.title,
        f"{c['latent_size']} latent" if c.get("kind") == "embedded" and "latent_size" in c else "actions",
        f"{c.get('num_samples', '?')} × {c.get('num_iterations', '?')}",
        count(phase.trajectories),
        str(horizon if horizon is not None else NOTHING),
        count(phase.trajectories * horizon if known and phase.trajectories and horizon else None),
        milliseconds(phase.planning_ms),
        count(reference.trajectories if reference else None),
    )


def _videos(run: Run, problems: list[str]) -> list[Markup]:
    films = []
    for phase in run.acting:
        if phase.video is not None:
            try:
                films.append(markup.video(phase.video, _film_caption(phase)))
            except OSError as error:
                problems.append(f"The video of phase {phase.name} could not be read: {_first_line(error)}")
    return films


def _film_caption(phase: Phase) -> str:
    shown, label = phase.video_of, f"{phase.name}: {phase.title}"
    if not {"episode", "seed", "episode_return", "of"} <= shown.keys():
        return label
    which = f", the nearest to the median of {shown['of']}" if shown["of"] > 1 else ""
    return f"{label}. Episode {shown['episode']}{which}: return {shown['episode_return']:.1f}, seed {shown['seed']}."


def _machine(run: Run) -> list[tuple[str, str]]:
    machine = run.summary.get("machine")
    times = [
        (f"wall time, {phase.name}", _duration(phase.summary.get("wall_time_s")))
        for phase in run.phases
        if phase.summary.get("wall_time_s") is not None
    ]
    return (_flat(machine) if isinstance(machine, dict) else []) + times


def _commands(run: Run) -> list[str]:
    # Without the place of the folder, which may be moved.
    name, runs = run.folder.name, '"$RUNS"/' if run.copy else ""
    folder = f"{runs}{shlex.quote(name)}"
    where = f"# RUNS is the address that {name} lies below" if run.copy else f"# in the folder that holds {name}"
    spec = shlex.quote("spec.yaml" if run.copy else f"{name}/spec.yaml")
    stated = run.summary.get("command")
    if run.pooled_from:
        again = " ".join(map(shlex.quote, run.pooled_from))
        tables = ["# these tables", f"parsec report {again} --out {folder}"]
        return [where, "", *tables, "", "# this page", f"parsec report {folder}"]
    lines = [where, "", "# this run"]
    lines += [str(stated)] if stated else []
    lines += [f"parsec run {spec} --name {shlex.quote(name)} --storage {runs.rstrip('/') or '.'}"]
    lines += ["", "# the same from the start, in a new folder", f"parsec run {spec} --fresh"]
    episodes = run.spec.get("evaluate", {}).get("episodes", 100) if isinstance(run.spec.get("evaluate"), dict) else 100
    checkpoints = [(p.name, "/".join(p.checkpoint.parts[-3:])) for p in run.acting if p.checkpoint is not None]
    if checkpoints:
        lines += ["", "# one controller again"]
    for phase, checkpoint in checkpoints:
        film = shlex.quote(f"{_slug(phase)}.mp4")
        lines.append(f"parsec evaluate {folder}/{shlex.quote(checkpoint)} --episodes {episodes} --video {film}")
    return [*lines, "", "# this page", f"parsec report {folder}"]


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key} ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{key}".replace("_", " "), text))
    return rows


def _duration(seconds: Any) -> str:
    known = isinstance(seconds, int | float) and math.isfinite(seconds)
    return duration(seconds) if known else NOTHING


def _seed(run: Run) -> int:
    seed = run.spec.get("seed", 0)
    return seed if isinstance(seed, int) and 0 <= seed < 2**32 else 0


def _slug(text: str) -> str:
    """A phase's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text) or "_"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
