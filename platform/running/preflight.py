"""What can be checked before a run begins: environments, and resources of the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parsecrl.platform.cluster.nodes import check_resources
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import Spec


def check_environment(spec: Spec) -> None:
    """Raise UserError when an environment cannot be made or has actions of another kind."""
    from parsecrl.platform.worlds import check_worlds

    check_worlds(spec)
    if spec.env is None:
        return
    from parsecrl.envs import make_env

    try:
        make_env(spec.env.id, spec.env.action_repeat).close()
    except ValueError as error:
        raise UserError(f"env.id: {error}") from None


def check_trial_resources(spec: Spec, nodes: Sequence[Mapping[str, float]] | None = None) -> None:
    """Raise UserError when the cluster can never run a trial of some phase.

    nodes: what each node has, by default those of the cluster that this process is connected to.
    """
    from parsecrl.platform.running.configs import make_config
    from parsecrl.platform.trainables import ALGORITHMS

    for phase in spec.phases:
        # The phases that act ask for the same runners and learners; only planet's config is valid before any has run.
        algorithm = "planet" if phase.acts else phase.algorithm
        plain = {} if phase.acts else phase.model_dump(exclude={"search"}, exclude_none=True)
        config = make_config(spec, algorithm, plain, spec.seed, None)
        processes = ALGORITHMS[algorithm].resources_of_processes(config)
        check_resources(processes, f"a trial of phase {phase.name}", nodes)
