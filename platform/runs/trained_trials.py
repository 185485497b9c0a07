"""The trials of a phase at their end, read from their checkpoints."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from parsecrl.platform.runs.stored_checkpoints import Stored, stored_checkpoints
from parsecrl.platform.specs import set_path
from parsecrl.platform.storage import Location


@dataclass(frozen=True)
class TrainedTrial:
    """One trial at its end. parameters: what the phase searched over, by dotted key; config: all of its settings."""

    name: str
    parameters: dict[str, Any]
    config: dict[str, Any]
    checkpoint: Location  # the last one
    metrics: dict[str, Any]  # at that checkpoint


def trained_trials(phase_folder: Location, config: dict[str, Any]) -> list[TrainedTrial]:
    """The trials that left a checkpoint, each at its last one.

    Args:
        phase_folder: In a run's folder.
        config: The phase's, before the search.

    Returns:
        Trials by their names.
    """
    last: dict[str, Stored] = {}
    for stored in stored_checkpoints(phase_folder):
        last[stored.trial] = stored  # by number: a copy of a run has other times
    trials = []
    for name, stored in sorted(last.items()):
        own = copy.deepcopy(config)
        parameters = dict(stored.metrics.get("parameters", {}))
        for path, value in parameters.items():
            set_path(own, path.split("."), value)
        trials.append(TrainedTrial(name, parameters, own, stored.path, stored.metrics))
    return trials
