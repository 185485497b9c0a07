"""`parsecrl.load_agent`: from a checkpoint, wherever it is stored, to an agent that acts; no Ray."""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms.controllers.acting import TrainedAgent, space_of
from parsecrl.envs.conversions import Vectors, action_of
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.command import find_checkpoint, made_here
from parsecrl.platform.evaluation.policies import agent_files, load_policy
from parsecrl.platform.storage import location_of


def load_agent(path: Any, seed: int = 0, *, trust: bool = False) -> TrainedAgent:
    """The trained agent of a checkpoint, on the CPU. Nothing is unpickled, and neither Ray nor the task is needed.

    Args:
        path: A checkpoint folder of an algorithm with agents, or the folder of a run's phase, whose best checkpoint is
            taken; a path, or an s3:// or gs:// address.
        seed: Of a planner's candidates, at least 0; that of `parsec evaluate` makes the same decisions.
        trust: Whether code that the checkpoint names (controller, world model or objective as module:name) may run.
            Code of a run that this user made needs no trust.

    Returns:
        The agent, which acts on the task's own observations and gives the task's own actions, as numpy arrays.

    Raises:
        ValueError: There is no checkpoint of this version, it is damaged, or it names code that is not trusted.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    try:
        folder = location_of(path)
        if not any((folder / name).is_file() for name in agent_files()):
            folder = find_checkpoint(folder)
    except UserError as error:
        raise ValueError(str(error)) from None
    if not any((folder / name).is_file() for name in agent_files()):
        known = ", ".join(agent_files())
        raise ValueError(f"{folder} holds no agent ({known}); give a checkpoint of an algorithm with agents")
    policy, description = load_policy(folder, seed, trust or made_here(folder))
    seen, action = (space_of(description["spaces"][kind]) for kind in ("observation", "action"))
    return TrainedAgent(policy, seen, action, Vectors(seen).read, action_of(action), description)
