"""What can be checked before a run begins: environments, what phases name, and resources of the trials."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from parsecrl.algorithms.registry.algorithm import is_own
from parsecrl.algorithms.registry.settings import BadSetting
from parsecrl.algorithms.registry.user_functions import one_line
from parsecrl.algorithms.reporting.study_report import StudyReport
from parsecrl.platform.cluster.nodes import check_resources
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.configs import env_of
from parsecrl.platform.specs import Phase, Spec, set_path


def check_environment(spec: Spec) -> None:
    """Raise UserError when an environment cannot be made or has actions of another kind."""
    check_algorithms(spec)
    check_worlds(spec)
    if spec.env is None:
        return
    from parsecrl.envs import make_env

    try:
        env = make_env(**env_of(spec))
    except ValueError as error:
        raise UserError(f"env.id: {error}") from None
    env.close()
    check_agents(spec, *(space.shape[0] for space in (env.observation_space, env.action_space) if space.shape))


def check_algorithms(spec: Spec) -> None:
    """Raise UserError where an algorithm of other code has no class, config or report that a run can use."""
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
        except Exception as error:  # of the user's own code
            raise UserError(f"{said} cannot be used ({one_line(error)}); correct it") from error
        if not issubclass(trainable, Trainable):
            raise UserError(f"{said}: trainable() must return a subclass of ray.tune.Trainable; correct it")
        if report is not None and not isinstance(report, StudyReport):
            raise UserError(f"{said}: report() must return a StudyReport or None, got {report!r}; correct it")


def check_agents(spec: Spec, obs_size: int, action_size: int) -> None:
    """Raise UserError where an agent that a phase makes of a user's own code, or begins with, cannot do its work."""
    phases = {phase.name: phase for phase in spec.phases}
    for phase in spec.phases:
        try:
            phase.entry.check_task(phase, obs_size, action_size, phases)
        except ValueError as error:
            raise UserError(f"phases.{phase.name}.{' '.join(str(error).split())}") from error


def check_worlds(spec: Spec) -> None:
    """Raise UserError where what a phase names, or one that it searches over, cannot be made."""
    for phase in spec.phases:
        for candidate in _candidates(phase):
            try:
                phase.entry.check(candidate)
            except BadSetting as error:
                raise UserError(f"phases.{phase.name}.{error.key}: {error}") from error
            except ValueError as error:
                raise UserError(f"phases.{phase.name}: {error}") from None


def _candidates(phase: Phase) -> list[Phase]:
    """The phase with each combination of the searched values that its algorithm checks."""
    checked = phase.entry.checked
    searched = {path: domain.values for path, domain in phase.search.items() if path.partition(".")[0] in checked}
    found = []
    for values in itertools.product(*searched.values()):
        settings = phase.model_dump(exclude={"search"})
        for path, value in zip(searched, values, strict=True):
            set_path(settings, path.split("."), value)
        found.append(type(phase).model_validate(settings))
    return found


def check_trial_resources(spec: Spec, nodes: Sequence[Mapping[str, float]] | None = None) -> None:
    """Raise UserError when the cluster can never run a trial of some phase.

    nodes: what each node has, by default those of the cluster that this process is connected to.
    """
    for phase in spec.phases:
        processes = phase.entry.processes(phase, env_of(spec) or None, spec.resources.model_dump())
        check_resources(processes, f"a trial of phase {phase.name}", nodes)
