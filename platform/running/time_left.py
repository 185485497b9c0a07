"""How long a run takes after the phase that runs: work by the capacity model, pace by the phase's own trials."""

from __future__ import annotations

import logging
from collections.abc import Callable

from parsecrl.algorithms.registry.workload import Constants
from parsecrl.platform.capacity.estimate import estimate_phases, evaluations_s, matrix_rate, scaled, sizes_of
from parsecrl.platform.specs import Phase, Spec

logger = logging.getLogger(__name__)

MEASURING_S = 0.2  # of matrix products: plans cost more or less of a phase on another processor


def rest_of_run(spec: Spec, phase: Phase, cpus: float, gpus: float) -> Callable[[float], float] | None:
    """What comes after a phase: the phases behind and all evaluations.

    Args:
        spec: Of one chain.
        phase: Of the spec.
        cpus: Cores of the cluster.
        gpus: GPUs of the cluster.

    Returns:
        From the seconds that a whole trial of the phase takes here, the seconds of all that follows. None where the
        work of a phase is not known.
    """
    behind = spec.phases[spec.phases.index(phase) + 1 :]
    try:
        sizes, constants = sizes_of(spec), scaled(Constants(), matrix_rate(MEASURING_S))
        loads = estimate_phases(spec, constants, cpus, gpus, sizes)
        of_phase = {load.stage.name: load for load in loads}
        if any(part.name not in of_phase for part in (phase, *behind)):
            return None
        rest_s = 3600 * sum(of_phase[part.name].hours for part in behind)
        rest_s += evaluations_s(spec, loads, sizes, constants)
        trial_s = 3600 * of_phase[phase.name].trial_hours
    except Exception:  # an estimate is no reason for a run to fail
        logger.debug("no estimate of the run's time", exc_info=True)
        return None
    return (lambda seconds: rest_s * seconds / trial_s) if trial_s > 0.0 else None
