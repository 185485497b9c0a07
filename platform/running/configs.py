"""The config of a phase's trials."""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.open_loop_phase import OpenLoopPhase, data_folder
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.spec_models import Phase
from parsecrl.platform.specs import Spec
from parsecrl.platform.storage import Location
from parsecrl.platform.trainables import ALGORITHMS


def phase_config(folder: RunFolder, phase: Phase) -> Any:
    """The RLlib config of a phase, or the plain one, starting from the best checkpoint of the one it names."""
    spec = folder.spec
    start_from = None
    if phase.start_from is not None:
        start_from = folder.path / folder.state(phase.start_from)["checkpoint"]
    plain = phase.model_dump(exclude={"search"}, exclude_none=True)
    if isinstance(phase, OpenLoopPhase):
        plain["data"]["folder"] = data_folder(folder.path, phase)
    return make_config(spec, phase.algorithm, plain, derive_seed(spec.seed, phase.name), start_from)


def make_config(spec: Spec, algorithm: str, phase: dict[str, Any], seed: int, start_from: Location | None) -> Any:
    env = spec.env.model_dump() if spec.env else None
    return ALGORITHMS[algorithm].make_config(phase, env, spec.resources.model_dump(), seed, start_from)
