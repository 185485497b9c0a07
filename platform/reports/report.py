"""One self-contained page for a run: report/index.html, and its figures as files in report/figures/."""

from __future__ import annotations

import math
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from parsecrl.platform.reports import figures, markup, paper, studies
from parsecrl.platform.reports.data import RANDOM, Phase, Run, load_run
from parsecrl.platform.reports.iterates import Iterates, compute_iterates
from parsecrl.platform.reports.missing import what_is_missing
from parsecrl.platform.reports.pooling import studies_of
from parsecrl.platform.reports.table import (
    EXPLANATION,
    HEADINGS,
    NOT_EVALUATED,
    NOTHING,
    count,
    milliseconds,
    table_rows,
)
from parsecrl.platform.storage import Location

LOSS_LIMIT = 12
LEARNER = "learners/default_policy/"
BOOKKEEPING = re.compile(r"/|^(num_|total_loss$|module_train|weights_seq)|learning_rate|throughput|diff_num|timers?$")


def build_report(run_dir: str | Location | Run, *, iterates: bool = True) -> Location:
    """Write report/index.html into a run folder, finished or not, and return its path.

    run_dir: a path, an address in an object store, or a run that was loaded from there.
    iterates: also load each phase's checkpoint and plan once with it, to show what the planner tries (seconds a phase).
    Raises UserError where the folder holds no run.
    """
    run = run_dir if isinstance(run_dir, Run) else load_run(run_dir)
    out = run.folder / "report"
    problems: list[str] = []
    body = [_header(run)]
    if run.acting:
        body += [
            _tiles(run),
            markup.section(
                "results",
                "Results",
                markup.table(HEADINGS, table_rows(run)),
                markup.paragraph(EXPLANATION, "soft small"),
                markup.paragraph(paper.note(run.task), "soft small"),
            ),
            _boxes(run, out / "figures"),
            _curves(run, out / "figures"),
            _iterates(run, out / "figures", problems) if iterates else "",
            _planning(run),
            _videos(run, problems),
        ]
    for study in studies_of([(run.name, run)]):
        body += studies.sections_of(study.phase, study.names, study.tables, out / "figures")
    body += [
        _missing(run, problems),
        markup.section("spec", "Spec, as resolved", markup.code(run.spec_text.strip() or "not recorded")),
        _machine(run),
        _commands(run),
    ]
    page = markup.write_page(
        out / "index.html", markup.page(f"{run.name}: {run.task}", [part for part in body if part])
    )
    if run.mirror is not None:
        run.mirror.send_back(out)
    return run.address(page)


def _header(run: Run) -> str:
    env = run.env
    world = f"{env.get('id', 'unknown environment')}, action repeat {env.get('action_repeat', 1)}"
    facts = [
        *([world] if run.acting else []),
        f"seed {run.spec.get('seed', 0)}",
        f"report made {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    ]
    acting = {
        "results": "Results",
        "returns": "Returns",
        "curves": "Learning curves",
        "iterates": "What the planner tries",
        "planning": "Planning cost",
        "videos": "Videos",
    }
    anchors = {
        **(acting if run.acting else {}),
        **{f"results-{study.phase.name}": f"Results of {study.names}" for study in studies_of([(run.name, run)])},
        "missing": "Not run",
        "spec": "Spec",
        "machine": "Machine",
        "commands": "Reproduce",
    }
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in anchors.items())
    return (
        f"<header><h1>{markup.escape(run.name)}: {markup.escape(run.task)}</h1>"
        + markup.paragraph(" · ".join(facts), "soft")
        + f"<nav>{links}</nav></header>"
    )


def _tiles(run: Run) -> str:
    tiles = []
    for phase in run.rows:
        s = phase.statistics
        reference = paper.result_for(run.task, phase.kind)
        if s:
            value, notes = (
                f"{s.median:.0f}",
                [f"median of {s.episodes} episodes", f"quartiles {s.q25:.0f} to {s.q75:.0f}"],
            )
            notes += [f"the paper's median: {reference.median:.0f}"] if reference else []
        else:
            value, notes = NOTHING, [NOT_EVALUATED]
        label = "random policy" if phase.name == RANDOM else f"{phase.name}: {phase.title}"
        tiles.append(markup.tile(label, value, notes, figures.KIND_COLORS.get(phase.kind, figures.PALETTE[4])))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _boxes(run: Run, folder: Path) -> str:
    shown = [p for p in run.rows if p.statistics]
    if not shown:
        return markup.section("returns", "Returns by controller", markup.paragraph("Nothing was evaluated yet."))
    size = (max(5.0, 1.4 + 2.0 * len(shown)), 4.2)
    image = figures.render(
        figures.draw_boxes(run), folder, "returns", size, "Box plot of evaluation returns by controller"
    )
    caption = (
        f"Evaluation returns on {run.task}: box, quartiles and median; whiskers, the farthest episode within 1.5 times "
        f"the interquartile range; dots, episodes beyond. After the paper's figure 4; where it has a box for the "
        f"controller, that stands beside ours, without whiskers."
    )
    return markup.section("returns", "Returns by controller", markup.figure(image, caption))


def _curves(run: Run, folder: Path) -> str:
    parts: list[str] = []
    for phase in run.acting:
        axis = figures.curve_axis(phase)
        drawn = [t for t in phase.trials if np.isfinite(t.column(axis) * t.column("episode_return_mean")).any()]
        parts.append(markup.heading(f"{phase.name}: {phase.title}"))
        if not drawn:
            parts.append(markup.paragraph("No training result was found.", "soft"))
            continue
        name = f"curve-{_slug(phase.name)}"
        size = (9.4, 3.7 + 0.2 * (min(len(phase.trials), figures.LEGEND_LIMIT) if len(phase.trials) > 1 else 0))
        alt = f"Learning curve of phase {phase.name}"
        image = figures.render(figures.draw_curves(phase, run.task), folder, name, size, alt)
        unit = "PPO steps" if axis == "ppo_steps" else "environment steps (simulator steps)"
        star = " Star: the checkpoint that was chosen." if phase.reached else ""
        parts.append(markup.figure(image, f"Return of training episodes, exploration included, over {unit}.{star}"))
        if len(phase.trials) > 1:
            listing = _trial_table(phase)
            parts.append(
                markup.details(f"All {len(phase.trials)} trials", listing) if len(phase.trials) > 12 else listing
            )
        parts.append(_losses(phase, axis, folder))
    return markup.section("curves", "Learning curves", *parts)


def _trial_table(phase: Phase) -> str:
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
        swatches.append(figures.color_of(i, len(phase.trials)))
    headings = ("trial", "env steps", "PPO steps", "last return", "best return", "time")
    used = [i for i in range(len(headings)) if any(row[i] != NOTHING for row in rows)]
    return markup.table([headings[i] for i in used], [[row[i] for i in used] for row in rows], swatches)


def _losses(phase: Phase, axis: str, folder: Path) -> str:
    """What the learner reports of the chosen trial: losses, their terms, gradient norms; without Ray's bookkeeping."""
    trial = phase.best
    if trial is None:
        return ""
    names = {key: str(key).removeprefix(LEARNER) for key in trial.rows.columns if str(key).startswith(LEARNER)}
    keys = [
        key
        for key, name in sorted(names.items(), key=lambda item: ("loss" not in item[1], item[1]))
        if not BOOKKEEPING.search(name) and np.isfinite(trial.column(key)).sum() > 1
    ][:LOSS_LIMIT]
    if not keys:
        return ""
    image = figures.render(
        figures.draw_losses(trial, axis, keys),
        folder,
        f"losses-{_slug(phase.name)}",
        figures.loss_size(keys),
        f"Learner metrics of phase {phase.name}",
    )
    return markup.details(
        "Learner metrics", markup.figure(image, f"What the learner reported, trial {trial.label}.", wide=True)
    )


def _iterates(run: Run, folder: Path, problems: list[str]) -> str:
    parts: list[str] = []
    for phase in run.acting:
        if phase.checkpoint is None:
            continue
        try:
            found = compute_iterates(run.address(phase.checkpoint), seed=_seed(run))
        except Exception as error:  # a report is never lost to a checkpoint that this machine cannot play
            problems.append(f"The planning iterates of phase {phase.name} could not be computed: {_first_line(error)}")
            continue
        parts += [markup.heading(f"{phase.name}: {phase.title}"), _iterates_figure(phase, found, folder)]
    if not parts:
        parts = [markup.paragraph("No phase has a checkpoint that could be loaded; see “Not run”.", "soft")]
    return markup.section("iterates", "What the planner tries", *parts)


def _iterates_figure(phase: Phase, found: Iterates, folder: Path) -> str:
    image = figures.render(
        figures.draw_iterates(found),
        folder,
        f"iterates-{_slug(phase.name)}",
        figures.iterates_size(found),
        f"Planning iterates of phase {phase.name}",
        layout=None,
    )
    numbers = ", ".join(str(v.number) for v in found.views)
    caption = (
        f"Iterations {numbers} of one plan, for the belief after {found.decisions} decisions ({found.env_steps} "
        f"environment steps) from a random initial state. Each thin line is one sample ({found.sampled}), coloured by "
        f"its cost, which is minus the return predicted over the horizon; red: the mean after the iteration. At most "
        f"{figures.SAMPLE_LIMIT} samples a panel, evenly over their ranks. After figures 14 and 15 in the appendix of "
        f"the paper's earlier version."
    )
    return markup.figure(image, caption, wide=True)


def _planning(run: Run) -> str:
    headings = (
        "phase",
        "controller",
        "variables",
        "samples × iterations",
        "trajectories",
        "horizon",
        "model steps",
        "plan ms",
        "trajectories, paper",
    )
    rows = []
    for phase in run.acting:
        c = phase.controller
        reference = paper.result_for(run.task, phase.kind)
        horizon = c.get("horizon")
        known = phase.trajectories is not None and isinstance(horizon, int)
        rows.append(
            (
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
        )
    return markup.section(
        "planning",
        "Planning cost per decision",
        markup.table(headings, rows),
        markup.paragraph(
            "model steps: trajectories times horizon, the model's transitions computed for one decision; plan ms: "
            "milliseconds for one decision as measured in this run, on the machine below.",
            "soft small",
        ),
    )


def _videos(run: Run, problems: list[str]) -> str:
    films = []
    for phase in run.acting:
        if phase.video is not None:
            try:
                films.append(markup.video(phase.video, f"{phase.name}: {phase.title}"))
            except OSError as error:
                problems.append(f"The video of phase {phase.name} could not be read: {_first_line(error)}")
    content = f'<div class="videos">{"".join(films)}</div>' if films else markup.paragraph("There are none.", "soft")
    return markup.section("videos", "Videos", content)


def _missing(run: Run, problems: list[str]) -> str:
    lines = what_is_missing(run) + problems
    if not lines:
        return markup.section(
            "missing", "Not run", markup.paragraph("Nothing is missing: all phases ran and were evaluated.")
        )
    return markup.section("missing", "Not run", markup.bullets(lines), kind="missing")


def _machine(run: Run) -> str:
    machine = run.summary.get("machine")
    facts = _flat(machine) if isinstance(machine, dict) else []
    times = [
        (f"wall time, {p.name}", _duration(p.summary.get("wall_time_s")))
        for p in run.phases
        if p.summary.get("wall_time_s") is not None
    ]
    if not facts and not times:
        return markup.section("machine", "Machine and versions", markup.paragraph("Not recorded yet.", "soft"))
    return markup.section("machine", "Machine and versions", markup.table(("", ""), facts + times))


def _commands(run: Run) -> str:
    home = run.address(run.folder)
    folder = shlex.quote(str(home))
    spec = shlex.quote("spec.yaml" if run.mirror else str(run.folder / "spec.yaml"))
    storage = shlex.quote(str(home.parent))
    stated = run.summary.get("command")
    if run.pooled_from:
        again = " ".join(map(shlex.quote, run.pooled_from))
        lines = [
            "# these tables",
            f"parsec report {again} --out {folder}",
            "",
            "# this page",
            f"parsec report {folder}",
        ]
        return markup.section("commands", "Reproduce", markup.code("\n".join(lines)))
    lines = ["# this run"]
    lines += [str(stated)] if stated else []
    lines += [f"parsec run {spec} --name {shlex.quote(run.folder.name)} --storage {storage}"]
    lines += ["", "# the same from the start, in a new folder", f"parsec run {spec} --fresh"]
    episodes = run.spec.get("evaluate", {}).get("episodes", 100) if isinstance(run.spec.get("evaluate"), dict) else 100
    checkpoints = [(p.name, run.address(p.checkpoint)) for p in run.acting if p.checkpoint is not None]
    if checkpoints:
        lines += ["", "# one controller again"]
    for name, checkpoint in checkpoints:
        film = shlex.quote(f"{_slug(name)}.mp4")
        lines.append(f"parsec evaluate {shlex.quote(str(checkpoint))} --episodes {episodes} --video {film}")
    lines += ["", "# this page", f"parsec report {folder}"]
    return markup.section("commands", "Reproduce", markup.code("\n".join(lines)))


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
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return NOTHING
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _seed(run: Run) -> int:
    seed = run.spec.get("seed", 0)
    return seed if isinstance(seed, int) and 0 <= seed < 2**32 else 0


def _slug(text: str) -> str:
    """A phase's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text) or "_"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
