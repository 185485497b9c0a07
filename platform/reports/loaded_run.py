"""A run folder read back, tolerating whatever an unfinished or interrupted run has not written yet.

Units: returns are sums of rewards over an episode, env_steps are simulator steps, planning_ms is milliseconds for one
decision.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import yaml

from parsecrl.algorithms.registry.algorithm import Algorithm
from parsecrl.algorithms.registry.search_sizes import trajectories
from parsecrl.algorithms.reporting.statistics import Statistics, summarize
from parsecrl.algorithms.training.user_errors import sentence_in
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import COLUMNS, RANDOM
from parsecrl.platform.reports import paper_results
from parsecrl.platform.reports.local_copy import LocalCopy
from parsecrl.platform.reports.studies import entry_of
from parsecrl.platform.runs import trust
from parsecrl.platform.runs.results import ERROR_FILE, FAILURE
from parsecrl.platform.runs.run_folder import POOLED_FILE, STATE_FILE
from parsecrl.platform.runs.stored_checkpoints import METRICS, Stored, best_checkpoint
from parsecrl.platform.specs import get_path
from parsecrl.platform.storage import Location, RemotePath, location_of


@dataclass(frozen=True)
class Trial:
    """One Tune trial. rows: a row per training iteration, nested keys joined ("learners/...")."""

    name: str
    folder: Path
    parameters: dict[str, Any]
    rows: pd.DataFrame
    failure: str | None = None  # why it ended early

    @property
    def label(self) -> str:
        """What it was searched over, in words; its name where that is nothing."""
        return ", ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in self.parameters.items()) or self.name

    def column(self, key: str) -> np.ndarray:
        """The values of a key [n], a result each, NaN where a result has none."""
        if key not in self.rows:
            return np.full(len(self.rows), np.nan)
        return pd.to_numeric(self.rows[key], errors="coerce").to_numpy(dtype=float)

    def last(self, key: str) -> float | None:
        """The last finite value of a key; None where there is none."""
        values = self.column(key)
        values = values[np.isfinite(values)]
        return float(values[-1]) if values.size else None


@dataclass(frozen=True)
class Phase:
    """One phase: what the spec asked for, what Tune ran, what the evaluation measured."""

    name: str
    spec: dict[str, Any]
    controller: dict[str, Any]
    kind: str
    summary: dict[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    returns: np.ndarray = field(default_factory=lambda: np.empty(0))
    checkpoint: Path | None = None
    env_steps: float | None = None
    planning_ms: float | None = None
    statistics: Statistics | None = None
    video: Path | None = None
    video_of: dict[str, Any] = field(default_factory=dict)  # episode, seed and episode_return, and of how many episodes
    started: bool = False
    status: str = ""  # running, finished or failed, as the pipeline recorded it
    chosen: str = ""  # the name of the trial whose checkpoint is the phase's
    entry: Algorithm | None = None  # of an algorithm that is known here
    reached: dict[str, Any] = field(default_factory=dict)  # what its trial had reached when it was written

    @property
    def algorithm(self) -> str:
        """As the summary or else the spec says it."""
        return str(self.summary.get("algorithm") or self.spec.get("algorithm") or "?")

    @property
    def acts(self) -> bool:
        """Whether its agent is evaluated; other phases are analysed (`studies`)."""
        return self.entry is not None and self.entry.acts

    @property
    def keeps_controller(self) -> bool:
        """Whether its agent plans with the controller of the phase that it starts from."""
        return self.entry is not None and self.entry.keeps_controller

    @property
    def trajectories(self) -> int | None:
        """Action sequences scored for one decision."""
        try:
            return trajectories(self.controller)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def title(self) -> str:
        """What tables call its controller."""
        return paper_results.KINDS.get(self.kind, self.kind)

    @property
    def best(self) -> Trial | None:
        """The chosen trial; before there is one, that whose last return is highest."""
        named = [trial for trial in self.trials if trial.name == self.chosen]
        return next(iter(named), None) or max(
            self.trials, key=lambda t: _or(t.last("score"), _or(t.last("episode_return_mean"), -math.inf)), default=None
        )


@dataclass(frozen=True)
class Run:
    """A run folder as reports see it."""

    folder: Path
    name: str
    spec: dict[str, Any]
    spec_text: str
    summary: dict[str, Any]
    phases: tuple[Phase, ...]
    random: Phase
    pooled_from: tuple[str, ...] = ()  # the runs that its tables came from, where it is no run of its own
    copy: LocalCopy | None = None  # of a run in an object store: `folder` is in it

    def address(self, path: Path) -> Location:
        """A path of the run as a user would name it."""
        return self.copy.address_of(path) if self.copy and path.is_relative_to(self.folder) else path

    @property
    def is_own(self) -> bool:
        """Whether it was made by this user, so that code that its checkpoints name may be run."""
        return trust.is_own(trust.record_in(self.folder))

    @property
    def env(self) -> dict[str, Any]:
        """The environment, as spec and summary say it."""
        return {**_dict(self.spec.get("env")), **_dict(self.summary.get("env"))}

    @property
    def task(self) -> str:
        """The environment's short name; of a run without one, its algorithms."""
        if not self.env and self.phases:
            return ", ".join(dict.fromkeys(phase.algorithm.replace("_", " ") for phase in self.phases))
        return paper_results.task_of(str(self.env.get("id", "unknown")))

    @property
    def acting(self) -> tuple[Phase, ...]:
        """The phases whose checkpoints hold an agent."""
        return tuple(phase for phase in self.phases if phase.acts)

    @property
    def studies(self) -> tuple[Phase, ...]:
        """The phases without agents, whose trials are analysed."""
        return tuple(phase for phase in self.phases if not phase.acts)

    @property
    def rows(self) -> tuple[Phase, ...]:
        """The table's rows: the random policy first, then every phase that acts; none where no phase does."""
        return (self.random, *self.acting) if self.acting else ()


def load_run(run_dir: str | Location) -> Run:
    """Read a run folder, finished or not.

    Args:
        run_dir: On disk, or in an object store, whose light files are then copied to this machine.

    Returns:
        The run: spec, phases with trials and evaluation, summary.

    Raises:
        UserError: There is nothing that could be a run, or one of another layout.
    """
    location = location_of(run_dir)
    if isinstance(location, RemotePath):
        copy = LocalCopy(location)
        return replace(_load(copy.folder, location), copy=copy)
    folder = location.resolve()
    return _load(folder, folder)


def _load(folder: Path, shown: Location) -> Run:
    spec_file = folder / "spec.yaml"
    if not spec_file.is_file():
        raise UserError(f"a run folder holds a spec.yaml, {shown} does not; give the folder that `parsec run` printed")
    trust.check_layout(folder, shown)
    spec_text = spec_file.read_text(encoding="utf-8", errors="replace")
    spec, summary = _dict(_read_yaml(spec_text)), _read_json(folder / "summary.json")
    file = folder / "evaluation.csv"
    episodes = pd.read_csv(file, dtype={"phase": str}) if file.is_file() else pd.DataFrame(columns=list(COLUMNS))
    summaries = _dict(summary.get("phases"))
    phases: list[Phase] = []
    for own in map(_dict, spec.get("phases") or []):
        phases.append(_phase(folder, own, _dict(summaries.get(str(own.get("name")))), episodes, phases))
    random_summary = _dict(summaries.get(RANDOM))
    random = Phase(RANDOM, {}, {}, "random policy", random_summary, **_evaluated(RANDOM, random_summary, episodes))
    origins = tuple(_read_json(folder / POOLED_FILE).get("runs", ()))
    return Run(folder, str(spec.get("name") or folder.name), spec, spec_text, summary, tuple(phases), random, origins)


def _phase(
    folder: Path, spec: dict[str, Any], summary: dict[str, Any], episodes: pd.DataFrame, earlier: list[Phase]
) -> Phase:
    name = str(spec.get("name", "?"))
    phase_folder = folder / name
    trials, stored = read_trials(phase_folder, _dict(spec.get("search"))), best_checkpoint(phase_folder)
    chosen = str(summary.get("best_trial") or (stored.trial if stored else ""))
    draft = Phase(name, spec, {}, "", summary, trials, chosen=chosen)
    draft = replace(draft, entry=entry_of(draft.algorithm, is_own=trust.is_own(trust.record_in(folder))))
    best = draft.best
    checkpoint = _find_checkpoint(phase_folder, summary.get("checkpoint"), stored)
    controller = _controller(draft, best, checkpoint, earlier)
    measured = _evaluated(name, summary, episodes)
    for key in ("env_steps", "planning_ms"):
        if measured[key] is None and best is not None:
            measured[key] = best.last(key)
    video, states = folder / "videos" / f"{name}.mp4", _read_json(folder / STATE_FILE)
    return replace(
        draft,
        controller=controller,
        kind="ppo" if draft.keeps_controller else str(controller.get("kind") or "?"),
        checkpoint=checkpoint,
        video=video if video.is_file() else None,
        started=phase_folder.is_dir(),
        video_of=_dict(states.get(f"video of {name}")),
        status=str(_dict(states.get(name)).get("status") or ""),
        reached=_read_json(checkpoint / METRICS) if checkpoint else {},
        **measured,
    )


def _evaluated(name: str, summary: dict[str, Any], episodes: pd.DataFrame) -> dict[str, Any]:
    """Returns and planning time of the episodes, and the environment steps of training."""
    mine = episodes[episodes["phase"] == name]
    returns = mine["episode_return"].to_numpy(dtype=float)
    return {
        "returns": returns,
        "statistics": summarize(returns) if returns.size else None,
        "env_steps": _number(summary.get("env_steps")),
        "planning_ms": _number(mine["planning_ms"].median()),
    }


def read_trials(folder: Path, search: dict[str, Any]) -> tuple[Trial, ...]:
    """The trials of a Tune experiment folder, in the order of their names, those without a result too.

    Args:
        folder: Of a phase; it need not exist.
        search: The spec's, whose keys are the parameters of the trials.

    Returns:
        The trials with their results, and why they failed, if they did.
    """
    if not folder.is_dir():
        return ()
    trials = []
    for child in sorted(p for p in folder.iterdir() if p.is_dir()):
        if not any((child / file).exists() for file in ("result.json", "params.json")):
            continue
        rows, config = _read_rows(child), _read_json(child / "params.json")
        parameters = {key: get_path(config, key.split(".")) for key in search}
        # The file stays when the trial went on after an error, from its last checkpoint, and reached its end.
        ended = "done" in rows and len(rows) and bool(rows["done"].iloc[-1])
        failure = str(rows[FAILURE].iloc[-1]) if ended and FAILURE in rows and rows[FAILURE].notna().iloc[-1] else None
        if not ended and (child / ERROR_FILE).exists():
            text = (child / ERROR_FILE).read_text(encoding="utf-8", errors="replace")
            said = sentence_in(re.split(r"^Failure # .*\n", text, flags=re.MULTILINE)[-1])
            failure = f"{said}; the traceback is in {folder.name}/{child.name}/{ERROR_FILE}"
        trials.append(Trial(child.name, child, {k: v for k, v in parameters.items() if v is not None}, rows, failure))
    return tuple(trials)


def _read_rows(folder: Path) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    result = folder / "result.json"
    if result.is_file():
        with result.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(json.JSONDecodeError):  # a kill -9 in mid-write leaves half a line
                    records.append(json.loads(line))
    rows = pd.json_normalize(records, sep="/")
    if "training_iteration" in rows:
        # A trial that was resumed repeats the iterations since its last checkpoint: the later rows are what it kept.
        later_minimum = rows["training_iteration"][::-1].cummin()[::-1].shift(-1)
        rows = rows[~(rows["training_iteration"] >= later_minimum)].reset_index(drop=True)
    return rows


def _controller(phase: Phase, best: Trial | None, checkpoint: Path | None, earlier: list[Phase]) -> dict[str, Any]:
    """The controller that was used: the checkpoint's word, then the spec's, with what was searched.

    A phase that PPO fine-tunes has none of its own in the spec: it keeps that of the phase it starts from.
    """
    if checkpoint is not None:
        saved = _dict(_read_json(checkpoint / "agent.json").get("controller"))
        if saved:
            return saved
    base = dict(_dict(phase.spec.get("controller")))
    if phase.keeps_controller:
        base |= next((other.controller for other in earlier if other.name == phase.spec.get("start_from")), {})
    for key, value in (best.parameters if best else {}).items():
        if key.startswith("controller."):
            base[key.removeprefix("controller.")] = value
    return base


def _find_checkpoint(phase_folder: Path, stated: Any, stored: Stored | None) -> Path | None:
    """The phase's checkpoint with an agent.json: the summary's, which this folder has where it was moved or copied."""
    candidates = []
    if isinstance(stated, str) and stated:
        candidates.append(phase_folder / Path(*PurePosixPath(stated).parts[-2:]))
    if stored is not None:
        candidates.append(Path(str(stored.path)))
    return next((folder.resolve() for folder in candidates if (folder / "agent.json").is_file()), None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _read_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
