"""What can be checked before a run begins: environments, what phases name, and resources of the trials.

Every environment is played at random for a moment, as `parsecrl.envs.inspection` has it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from parsecrl.algorithms.registry.algorithm import Algorithm, PlayedTask
from parsecrl.algorithms.registry.settings import BadSetting
from parsecrl.algorithms.registry.user_functions import is_own, one_line
from parsecrl.algorithms.reporting.study_report import StudyReport
from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.envs.inspection import SEARCH_SECONDS, SECONDS, BrokenTask, Inspection, inspect_task
from parsecrl.platform.cluster.nodes import check_resources
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.configs import env_of
from parsecrl.platform.specs import Phase, Spec, one_of_each_variant, set_path
from parsecrl.platform.specs.reading import SEARCH_KEYS, combinations


@dataclass(frozen=True)
class Checked:
    """What is no reason to refuse a run. random_returns: by phase, as `Inspection.random_return`, where known."""

    warnings: list[str] = field(default_factory=list)
    random_returns: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, inspection: Inspection, phases: Iterable[str]) -> None:
        """Take over what was found in the task of these phases."""
        self.warnings.extend(warning for warning in inspection.warnings if warning not in self.warnings)
        if inspection.random_return is not None:
            self.random_returns.update(dict.fromkeys(phases, inspection.random_return))

    def note_of_phase(self, phase: Phase, name: str, inspection: Inspection) -> None:
        """Take over what a phase's algorithm says of the task of this name."""
        task = PlayedTask(name, inspection.num_terminated > 0, inspection.obs_rms)
        with _refused(phase):
            told = [f"phases.{phase.name}: {warning}" for warning in phase.entry.task_warnings(phase, task)]
        self.warnings.extend(warning for warning in told if warning not in self.warnings)


def check_specs(spec: Spec) -> list[Checked]:
    """`check_environment` of a spec, or of each of its variants.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        What was found, the reference first.

    Raises:
        UserError: As `check_environment`.
    """
    return [check_environment(each) for each in one_of_each_variant(spec)]


def check_products() -> None:
    """Raise UserError where the environment asks for matrix products that there are not."""
    from parsecrl.algorithms.models.matrix_products import choice

    try:
        choice()
    except ValueError as error:
        raise UserError(str(error)) from None


def warnings_in(checked: Iterable[Checked]) -> list[str]:
    """All warnings of several checks.

    Args:
        checked: Of `check_specs`.

    Returns:
        Sentences, each once.
    """
    return list(dict.fromkeys(warning for each in checked for warning in each.warnings))


def check_environment(spec: Spec) -> Checked:
    """Make and play the environments of a spec. It starts nothing and writes nothing.

    Args:
        spec: Of one chain.

    Returns:
        What is no reason to refuse a run.

    Raises:
        UserError: An environment cannot be made, breaks its promises or never ends, or something that a phase names
            cannot be used.
    """
    checked = Checked()
    os.environ.update(spec.runtime.env_vars)  # as connecting does, for the environments that read them
    check_algorithms(spec)
    check_searches(spec)
    check_worlds(spec)
    _play_worlds(spec, checked)
    if spec.env is None:
        return checked
    from parsecrl.envs import make_env

    acting = [phase for phase in spec.phases if phase.acts]
    found = _played("env", spec.env.id, lambda: make_env(**env_of(spec)), _seeds(spec, acting or spec.phases))
    checked.note(found, [phase.name for phase in acting])
    check_made(spec, acting)
    for phase in acting:
        checked.note_of_phase(phase, spec.env.id, found)
    check_agents(spec, *(space.shape[0] for space in (found.observation_space, found.action_space) if space.shape))
    return checked


def check_made(spec: Spec, acting: Sequence[Phase]) -> None:
    """See that the environment is one that the algorithms of phases can use.

    Args:
        spec: Of one chain.
        acting: Its phases that act.

    Raises:
        UserError: It is not.
    """
    from parsecrl.envs import make_env

    for phase in acting:
        if type(phase.entry).check_environment is Algorithm.check_environment:
            continue
        with _refused(phase), closing(make_env(**env_of(spec))) as env:
            env.reset(seed=derive_seed(spec.seed, phase.name))
            phase.entry.check_environment(phase, env)


def _play_worlds(spec: Spec, checked: Checked) -> None:
    """Play the worlds of phases that have their own, each once."""
    played: dict[str, Inspection] = {}
    for phase in spec.phases:
        for candidate in _candidates(phase):
            with _refused(phase):
                world = phase.entry.world(candidate)
            if world is None:
                continue
            key = json.dumps(world.group, sort_keys=True, default=str)
            if key not in played:
                at, name = f"phases.{phase.name}.world", str(world.group.get("id"))
                played[key] = _played(at, name, world.make, _seeds(spec, [phase]), bounded=world.bounded)
            checked.note(played[key], [phase.name])
            checked.note_of_phase(candidate, str(world.group.get("id")), played[key])


def _played(key: str, name: str, make: Callable[[], Any], seeds: Sequence[int], *, bounded: bool = False) -> Inspection:
    """Play an environment that a group of the spec describes. bounded: it needs no end of its own."""
    try:
        found = inspect_task(make, name, seeds, search_seconds=SECONDS if bounded else SEARCH_SECONDS)
    except BrokenTask as error:
        raise UserError(f"{key}: {error}") from error
    except ValueError as error:
        raise UserError(f"{key}.id: {error}") from None
    if not (found.ends or bounded):
        raise UserError(
            f"{key}.max_episode_steps must be set where episodes have no end of their own: {name!r} tells no limit, "
            f"and no end came in {SEARCH_SECONDS:g} s of random actions; set it, such as 1000"
        )
    return found


def _seeds(spec: Spec, phases: Iterable[Phase]) -> list[int]:
    """A seed of training for each phase, and one of evaluation."""
    from parsecrl.platform.evaluation.lockstep import episode_seed

    return [*(derive_seed(spec.seed, phase.name) for phase in phases), episode_seed(spec.seed, 0)]


def check_algorithms(spec: Spec) -> None:
    """See that algorithms of other code have a class, config and report that a run can use.

    Args:
        spec: Of one chain.

    Raises:
        UserError: An algorithm lacks one of these.
    """
    for phase in spec.phases:
        if is_own(type(phase.entry).__module__):
            continue
        from parsecrl.platform.cluster.connection import quiet_ray

        quiet_ray()
        from ray.tune import Trainable

        from parsecrl.platform.running.trainables import trainable_of

        said = f"phases.{phase.name}.algorithm {phase.algorithm}"
        try:
            trainable, report = trainable_of(phase.algorithm), phase.entry.report()
            phase.entry.processes(phase, env_of(spec) or None, spec.resources.model_dump())
            phase.entry.episodes(phase.entry.resolve(phase, "data"))
        except ValueError as error:  # a sentence of its own
            raise UserError(f"{said} cannot be used: {' '.join(str(error).split())}") from error
        except Exception as error:
            raise UserError(f"{said} cannot be used ({one_line(error)}); correct it") from error
        if not issubclass(trainable, Trainable):
            raise UserError(f"{said}: trainable() must return a subclass of ray.tune.Trainable; correct it")
        if report is not None and not isinstance(report, StudyReport):
            raise UserError(f"{said}: report() must return a StudyReport or None, got {report!r}; correct it")


def check_searches(spec: Spec) -> None:
    """See that what searches need is installed.

    Args:
        spec: Of one chain.

    Raises:
        UserError: Optuna is missing.
    """
    for phase in spec.phases:
        if phase.search_alg == "optuna" and find_spec("optuna") is None:
            raise UserError(
                f"phases.{phase.name}.search_alg optuna needs the package optuna, which is not installed; "
                f"run pip install 'parsec-rl[optuna]', or set search_alg to random"
            )


def check_agents(spec: Spec, obs_size: int, action_size: int) -> None:
    """See that the agents that phases make of a user's own code, or begin with, can do their work.

    Args:
        spec: Of one chain.
        obs_size: O, of the task as the agent sees it.
        action_size: A.

    Raises:
        UserError: One of them cannot.
    """
    phases = {phase.name: phase for phase in spec.phases}
    for phase in spec.phases:
        with _refused(phase):
            phase.entry.check_task(phase, obs_size, action_size, phases)


def check_worlds(spec: Spec) -> None:
    """See that what phases name, or search over, can be made.

    Args:
        spec: Of one chain.

    Raises:
        UserError: Something cannot.
    """
    for phase in spec.phases:
        for candidate in _candidates(phase):
            with _refused(phase):
                phase.entry.check(candidate)


@contextmanager
def _refused(phase: Phase) -> Iterator[None]:
    """Within it, a ValueError refuses the phase: its sentence begins with the key at fault, or with no key."""
    try:
        yield
    except BadSetting as error:
        raise UserError(f"phases.{phase.name}.{error.key}: {error}") from error
    except ValueError as error:
        said = " ".join(str(error).split())
        names_key = re.split(r"\W", said, maxsplit=1)[0] in type(phase).model_fields
        raise UserError(f"phases.{phase.name}{'.' if names_key else ': '}{said}") from error


def _candidates(phase: Phase) -> list[Phase]:
    """The phase with each combination of the searched values that its algorithm checks."""
    checked = phase.entry.checked
    found = []
    for chosen in combinations(phase, [path for path in phase.search if path.partition(".")[0] in checked]):
        settings = phase.model_dump(exclude=set(SEARCH_KEYS))
        for path, value in chosen.items():
            set_path(settings, path.split("."), value)
        found.append(type(phase).model_validate(settings))
    return found


def check_trial_resources(spec: Spec, nodes: Sequence[Mapping[str, float]] | None = None) -> None:
    """See that the cluster can run a trial of each phase.

    Args:
        spec: Of one chain.
        nodes: What each node has, by the names of Ray's resources; None: those of the connected cluster.

    Raises:
        UserError: A trial of some phase can never run.
    """
    for phase in spec.phases:
        processes = phase.entry.processes(phase, env_of(spec) or None, spec.resources.model_dump())
        check_resources(processes, f"a trial of phase {phase.name}", nodes)
