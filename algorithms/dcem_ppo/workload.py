"""What a round of dcem_ppo costs."""

from __future__ import annotations

import math
from typing import Any

from parsecrl.algorithms.planet.workload import planning_s
from parsecrl.algorithms.registry.workload import Stage, Workplace

DIFFERENTIATED = 3.7  # a plan with its gradient, in plans: docs/results, embedded, batch of 8


def stage(phase: Any, source: Any, work: Workplace) -> Stage:
    """A round: every runner gathers its share of the episodes, then the main process learns from all of them.

    Args:
        phase: With the settings of dcem_ppo.
        source: The phase that its controller is of.
        work: Where it is done.

    Returns:
        The stage.

    Raises:
        ValueError: As `planet.workload.planning_s`.
    """
    r, c, sizes = work.resources, work.constants, work.sizes
    R = max(r.num_env_runners, 1)
    share = phase.episodes_per_step / R
    E = min(r.num_envs_per_env_runner, math.ceil(share))
    decisions = share * sizes.episode_decisions
    act_s = decisions * work.acting_s
    plan_s = decisions / E * planning_s(source, work, E)
    minibatches = min(phase.minibatches, R * decisions)
    micro = min(phase.micro_batch, math.ceil(R * decisions / minibatches))
    per_decision = DIFFERENTIATED * planning_s(source, work, micro, learner=True) / micro
    steps = phase.stop.conditions.get("ppo_steps", math.inf)
    wanted = phase.stop.conditions.get("env_steps", math.inf) / (work.action_repeat * decisions)
    return Stage(
        name=phase.name,
        runners=r.num_env_runners,
        cores=r.num_cpus_for_main_process + r.num_env_runners * r.num_cpus_per_env_runner,
        gather_s=act_s + plan_s,
        gather_core_s=act_s + plan_s * (not r.num_gpus_per_env_runner),
        learn_s=phase.passes * decisions * per_decision + c.request_s,
        learn_core_s=phase.passes * decisions * per_decision * (not r.num_gpus_per_learner) + c.request_s,
        fragment_steps=decisions * work.action_repeat,
        fragments=min(steps * R, wanted),
        overlaps=False,
        per_iteration=R,
        iterations_per_checkpoint=phase.checkpoint_every,
        checkpoint_s=c.checkpoint_s,
        checkpoint_bytes=c.checkpoint_bytes,
        updates_per_step=phase.passes * minibatches / (R * decisions * work.action_repeat),
        overhead_s=c.start_s,
        replay_bytes=0.0,
        flight_bytes=R * (decisions * c.decision_bytes + c.weights_bytes),
        gpus=work.gpus,
    )
