"""The config of a phase's trials."""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms.checkpoints.agent import check_trust, read_description
from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.errors import UserError
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import Phase, Spec
from parsecrl.platform.specs.pretrained import is_pretrained
from parsecrl.platform.storage import Location, location_of


def phase_config(folder: RunFolder, phase: Phase) -> Any:
    """The config of a phase's trials, starting from the best checkpoint of the phase that it names.

    Args:
        folder: Of the run, in which that phase has ended.
        phase: Of its spec.

    Returns:
        RLlib's config, or the plain one.

    Raises:
        UserError: The agent that it starts from names code that is not trusted.
    """
    spec = folder.spec
    start_from: Any = None
    if phase.start_from is not None:
        start_from = origin_of(folder, phase)
        try:
            check_trust(start_from, read_description(start_from), folder.trusted_code)
        except ValueError as error:
            raise UserError(str(error)) from error
    seed = derive_seed(spec.seed, phase.name)
    env, resources = env_of(spec) or None, spec.resources.model_dump()
    config = phase.entry.make_config(resolved(folder, phase), env, resources, seed, start_from)
    if start_from is not None and hasattr(config, "trust_start_from"):  # `check_trust` has passed
        config.trust_start_from()
    return config


def origin_of(folder: RunFolder, phase: Phase) -> Location:
    """The checkpoint that a phase with start_from starts from.

    Args:
        folder: Of the run.
        phase: Of its spec.

    Returns:
        The best one of the phase that it names, or the pretrained agent.
    """
    name = str(phase.start_from)
    return location_of(name) if is_pretrained(name) else folder.path / folder.state(name)["checkpoint"]


def resolved(folder: RunFolder, phase: Phase) -> Phase:
    """A phase with what its run decides.

    Args:
        folder: Of the run.
        phase: Of its spec.

    Returns:
        The phase; its data lie in <run>/<phase>_data where it has some.
    """
    return phase.entry.resolve(phase, str(folder.path / f"{phase.name}_data"))


def env_of(spec: Spec) -> dict[str, Any]:
    """The spec's group `env`, as `make_env` takes it.

    Args:
        spec: Of one chain.

    Returns:
        The keys that are set; empty where no phase acts.
    """
    return spec.env.plain() if spec.env else {}
