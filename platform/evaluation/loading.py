"""`parsecrl.load_agent`: from a checkpoint, wherever it is stored, to an agent that acts; no Ray."""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms.checkpoints.agent import DESCRIPTION
from parsecrl.algorithms.checkpoints.agent import load_agent as load_planning_agent
from parsecrl.algorithms.controllers.acting import PlanningPolicy, TrainedAgent, space_of
from parsecrl.algorithms.latent_sac import checkpoint as latent_sac
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.command import find_checkpoint, made_here
from parsecrl.platform.storage import location_of


def load_agent(path: Any, seed: int = 0, *, trust: bool = False) -> TrainedAgent:
    """The trained agent of a checkpoint, on the CPU. Nothing is unpickled, and neither Ray nor the task is needed.

    Args:
        path: A checkpoint folder of planet, dcem_ppo or latent_sac, or the folder of a run's phase, whose best
            checkpoint is taken; a path, or an s3:// or gs:// address.
        seed: Of a planner's candidates, at least 0; that of `parsec evaluate` makes the same decisions.
        trust: Whether code that the checkpoint names (controller, world model or objective as module:name) may run.
            Code of a run that this user made needs no trust.

    Raises:
        ValueError: There is no checkpoint of this version, it is damaged, or it names code that is not trusted.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    try:
        folder = location_of(path)
        if not (folder / latent_sac.FILES.description_file).is_file():
            folder = find_checkpoint(folder)
    except UserError as error:
        raise ValueError(str(error)) from None
    policy: Any
    if (folder / DESCRIPTION).is_file():
        agent, description = load_planning_agent(folder, trust or made_here(folder))
        policy = PlanningPolicy(agent, seed)
    else:
        policy, description = latent_sac.load_policy(folder)
    spaces = description["spaces"]
    return TrainedAgent(policy, space_of(spaces["observation"]), space_of(spaces["action"]), description)
