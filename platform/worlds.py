"""Whether the worlds, models, dynamics and energies that a study names can be made, before anything runs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import gymnasium

from parsecrl.platform.errors import UserError
from parsecrl.platform.latent_phases import LatentPlanningPhase
from parsecrl.platform.latent_sac_phase import LatentSACPhase
from parsecrl.platform.open_loop_phase import OpenLoopPhase
from parsecrl.platform.spec_models import Phase
from parsecrl.platform.specs import Spec, set_path
from parsecrl.platform.study_phases import CartpoleEmbeddingPhase, EnergyRegressionPhase

OF_A_WORLD = {"world", "model", "slice_length", "target_entropy"}  # keys that a world or a model may refuse


def check_worlds(spec: Spec) -> None:
    """Raise UserError where what a phase names, or one that it searches over, cannot be made."""
    for phase in spec.phases:
        if isinstance(phase, LatentPlanningPhase | LatentSACPhase):
            _check(phase)
        elif isinstance(phase, OpenLoopPhase):
            _check_pixels(phase)
        elif isinstance(phase, CartpoleEmbeddingPhase):
            from parsecrl.algorithms.cartpole_embedding.settings import make_dynamics

            _check_named(phase, "dynamics", phase.dynamics, make_dynamics)
        elif isinstance(phase, EnergyRegressionPhase):
            make = functools.partial(_make_energy, phase.energy.model_dump())
            _check_named(phase, "energy.kind", phase.energy.kind, make)


def _check(phase: LatentPlanningPhase | LatentSACPhase) -> None:
    """World and model, and what must fit them, in every combination of what is searched of these."""
    searched = {path: domain.values for path, domain in phase.search.items() if path.partition(".")[0] in OF_A_WORLD}
    for values in itertools.product(*searched.values()):
        settings = phase.model_dump(include=OF_A_WORLD)
        for path, value in zip(searched, values, strict=True):
            set_path(settings, path.split("."), value)
        world = {key: value for key, value in settings["world"].items() if value is not None}
        try:
            env = _make(phase, world)
        except ValueError as error:
            raise UserError(f"phases.{phase.name}.world: {error}") from None
        try:
            _check_fit(phase, env, settings)
        except ValueError as error:
            raise UserError(f"phases.{phase.name}: {error}") from None
        finally:
            env.close()


def _check_fit(phase: LatentPlanningPhase | LatentSACPhase, env: gymnasium.Env, settings: dict[str, Any]) -> None:
    from parsecrl.algorithms.latent_study import check_model, check_slices, space_sizes

    check_model(settings["model"], env)
    if isinstance(phase, LatentSACPhase):
        from parsecrl.algorithms.latent_sac.latent_sac_rl_module import check_target_entropy

        check_slices(env, settings["model"]["rollout_steps"], "model.rollout_steps")
        check_target_entropy(settings["target_entropy"], space_sizes(env)[1])
    else:
        from parsecrl.algorithms.latent_planning.settings import slice_length

        check_slices(env, slice_length(settings), "slice_length")


def _make_energy(options: dict[str, Any], kind: str) -> object:
    from parsecrl.algorithms.energy_regression.checkpoint import make_energy

    return make_energy({**options, "kind": kind})


def _check_named(phase: Phase, key: str, value: str, make: Callable[[str], object]) -> None:
    for name in phase.search[key].values if key in phase.search else [value]:
        try:
            make(name)
        except Exception as error:  # of the user's own function, whatever it is
            raise UserError(f"phases.{phase.name}.{key}: {' '.join(str(error).split())}") from error


def _check_pixels(phase: OpenLoopPhase) -> None:
    from parsecrl.algorithms.open_loop.collector import make_world

    try:
        make_world(phase.world.model_dump(exclude_none=True)).close()
    except ValueError as error:
        raise UserError(f"phases.{phase.name}.world: {error}") from None


def _make(phase: LatentPlanningPhase | LatentSACPhase, world: dict[str, Any]) -> gymnasium.Env:
    if isinstance(phase, LatentSACPhase):
        from parsecrl.algorithms.latent_study import make_env

        return make_env(world, layout_seed=0)
    from parsecrl.algorithms.latent_planning.experiment import make_world as make_planning_world

    return make_planning_world(world, seed=0)
