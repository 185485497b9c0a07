"""Checkpoints of a phase on disk: which are whole, which is best, which may go.

Tune numbers them <phase>/<trial>/checkpoint_000007. A checkpoint counts once its `metrics.json` is there, which is
written last; so nothing here depends on Tune's own state, which lags behind when a run is killed. For the same reason
Tune keeps all checkpoints and `prune` deletes: Tune would delete ones that its state on disk still asks for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from parsecrl.algorithms.registry.algorithm import EVALUATED_UPDATES, EVALUATION
from parsecrl.algorithms.reporting.diagnostics import RANDOM_EPISODES, RANDOM_MEAN, RANDOM_STD
from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.storage import Location, RemotePath, in_parallel, read_json, remove_tree, write_atomically

METRICS = "metrics.json"
SCORE = "score"  # result key, higher is better; that of an agent is its mean return, of training or of evaluations
KEPT_RESULTS = (
    *(SCORE, "episode_return_mean", "loss", "env_steps", "num_updates", "ppo_steps", "episodes", "tasks"),
    *("planning_ms", "training_iteration", "time_total_s", RANDOM_MEAN, RANDOM_STD, RANDOM_EPISODES),
    *(EVALUATION, EVALUATED_UPDATES),
)
KEEP_BEST = 3
_known: dict[Any, Stored] = {}  # by path and stat, of those in a store
# Tune saves its state every few seconds. What it held within the last minute must stay, for a restart to find.
KEEP_SECONDS = 60.0


@dataclass(frozen=True)
class Stored:
    """One whole checkpoint."""

    path: Location
    trial: str
    number: int
    metrics: dict[str, Any]
    written: float  # seconds since the epoch

    @property
    def score(self) -> float:
        """The result that decides which checkpoint is best; -inf where there is none."""
        value = self.metrics.get(SCORE)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf

    @property
    def score_is_own(self) -> bool:
        """Whether the score is of these weights: not where a trial is evaluated, and was so before its last update."""
        return self.metrics.get(EVALUATED_UPDATES) in (None, self.metrics.get("num_updates"))

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """The best has the highest. Before its first update an agent's score is the random policy's, not its own."""
        return self.metrics.get("num_updates") != 0, self.score_is_own, self.score, self.number


def mark_whole(path: Location, result: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> None:
    """Say that a checkpoint is complete, what the trial had reached, and with which searched parameters.

    Args:
        path: Of the checkpoint.
        result: Of the trial; `KEPT_RESULTS` are kept.
        parameters: Searched values by dotted key.
    """
    metrics: dict[str, Any] = {key: _plain(result[key]) for key in KEPT_RESULTS if _plain(result.get(key)) is not None}
    if parameters:
        metrics["parameters"] = dict(parameters)
    write_atomically(path / METRICS, json.dumps(metrics))


def stored_checkpoints(phase_folder: Location, trial: str = "*") -> list[Stored]:
    """The whole checkpoints of a phase.

    Args:
        phase_folder: In a run's folder.
        trial: Name of one trial; "*": all of them.

    Returns:
        The checkpoints, oldest first within each trial.
    """
    files: list[Any] = sorted(phase_folder.glob(f"{trial}/checkpoint_*/{METRICS}"))
    if isinstance(phase_folder, RemotePath):
        return [stored for stored in in_parallel(_stored, files) if stored is not None]
    return [stored for file in files if (stored := _stored(file)) is not None]


def _stored(file: Location) -> Stored | None:
    """The checkpoint that a metrics.json belongs to, unless it is not whole."""
    folder = file.parent
    # Pruning looks at a trial's checkpoints again and again: in a store those that are known are not read twice.
    key = (str(file), file.stat()) if isinstance(file, RemotePath) else None
    if key in _known:
        return _known[key]
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        agent = read_json(folder / "agent.json")
        # Tune reuses a number after a restart: half of a new checkpoint in an old folder does not count.
        if "env_steps" in metrics and agent.get("env_steps", metrics["env_steps"]) != metrics["env_steps"]:
            return None
        found = Stored(folder, folder.parent.name, number_of(folder), metrics, file.stat().st_mtime)
    except StorageUnreachable:  # not the same as a checkpoint that is not there
        raise
    except (OSError, ValueError, UserError):
        return None
    if key is not None:
        if len(_known) > 10_000:
            _known.clear()
        _known[key] = found
    return found


def best_checkpoint(phase_folder: Location) -> Stored | None:
    """The checkpoint of the highest score among those that have learned, the later of equals.

    Args:
        phase_folder: In a run's folder.

    Returns:
        The checkpoint; None where there is none that is whole.
    """
    return max(stored_checkpoints(phase_folder), key=lambda c: c.rank, default=None)


def prune(phase_folder: Location, trial: str, protected: Collection[str] = ()) -> None:
    """Delete what is neither among the best, nor needed for a restart, nor protected.

    Args:
        phase_folder: In a run's folder.
        trial: Whose checkpoints.
        protected: Addresses of checkpoints that stay.
    """
    stored = stored_checkpoints(phase_folder, trial)
    best = sorted(stored, key=lambda c: c.rank)[-KEEP_BEST:]
    # The clock of a store, or of a shared mount, is not ours; the last checkpoint was written a moment ago.
    now = max((c.written for c in stored), default=0.0)
    settled = [checkpoint for checkpoint in stored if checkpoint.written < now - KEEP_SECONDS]
    for checkpoint in settled[:-1]:
        if checkpoint not in best and str(checkpoint.path) not in protected:
            (checkpoint.path / METRICS).unlink()  # first: a deletion that is cut short leaves nothing that counts
            remove_tree(checkpoint.path)


def forget_after(trial_folder: Location, number: int) -> None:
    """Delete later checkpoints: a restart goes on from an earlier one and will write them anew.

    Args:
        trial_folder: Of one trial.
        number: Of the last checkpoint that stays.
    """
    for folder in trial_folder.glob("checkpoint_*"):
        if number_of(folder) > number:
            (folder / METRICS).unlink(missing_ok=True)
            remove_tree(folder)


def number_of(folder: Location | PurePath) -> int:
    """The number in a checkpoint folder's name.

    Args:
        folder: checkpoint_000007, say.

    Returns:
        The number; -1 where there is none.
    """
    suffix = folder.name.rpartition("_")[2]
    return int(suffix) if suffix.isdigit() else -1


def _plain(value: Any) -> float | int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number
