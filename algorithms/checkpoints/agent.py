"""An agent on disk: agent.json (what it is) and agent.safetensors (its weights), beside Ray's own checkpoint files.

Nothing here is pickled: a checkpoint from elsewhere can be read without running code of its author's. An agent.json may
name code that makes the agent (controller.kind, controller.objective and world_model.kind as module:name); that runs
only where it is trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from parsecrl.algorithms.checkpoints.files import Folder
from parsecrl.algorithms.checkpoints.pair import CheckpointPair
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.registry.user_functions import own_code_of

FILES = CheckpointPair("agent", "an agent", format=2)
DESCRIPTION, WEIGHTS = FILES.description_file, FILES.tensor_file
read_description, read_weights = FILES.read_description, FILES.read_tensors


def save_agent(folder: str | Path, agent: PlanningAgent, description: dict[str, Any]) -> None:
    """Write the agent into an existing folder; each file appears whole or not at all.

    Args:
        folder: An existing one.
        agent: Whose weights are stored.
        description: algorithm, env {id, action_repeat}, world_model, controller, decoder, env_steps; value, of an agent
            that has one; and spaces, the task's own {observation, action} as `describe_space` has them; without these
            the task's are the agent's vectors.
    """
    sizes = {"obs_size": agent.model.obs_size, "action_size": agent.model.action_size}
    own = {
        "observation": describe_space(spaces.Box(-np.inf, np.inf, (sizes["obs_size"],), np.float32)),
        "action": describe_space(spaces.Box(-1.0, 1.0, (sizes["action_size"],), np.float32)),
    }
    FILES.write(folder, {**sizes, "spaces": own, **description}, agent.state_dict())


def check_trust(
    folder: Folder, description: Mapping[str, Any], trust: bool | Collection[str], remedy: str = "trust=True"
) -> None:
    """See that an agent is made of code that is trusted.

    Args:
        folder: Where the agent is, for the message.
        description: Of the agent.
        trust: All code, none, or that of these names.
        remedy: What trusts it in Python, for the message.

    Raises:
        ValueError: The description names code that is not trusted.
    """
    unknown = [name for name in own_code_of(description) if not (trust if isinstance(trust, bool) else name in trust)]
    if unknown:
        raise ValueError(
            f"{folder} holds an agent that is made by the code {', '.join(unknown)}, which would run on this machine; "
            f"give --trust ({remedy} in Python) if you trust who wrote the checkpoint"
        )


def load_agent(folder: Folder, trust: bool | Collection[str] = False) -> tuple[PlanningAgent, dict[str, Any]]:
    """The agent of a checkpoint folder, on the CPU and in evaluation mode, and its description.

    Args:
        folder: The checkpoint, a path or an address.
        trust: Whether the code that the agent names may be run, or the names (module:name) that may.

    Returns:
        The agent, and its description.

    Raises:
        ValueError: The folder holds no agent, one whose weights are not those that its description asks for, or one
            that names code that is not trusted, cannot be imported or does not meet its protocol.
    """
    description = read_description(folder)
    check_trust(folder, description, trust)
    try:
        agent = PlanningAgent(
            description["obs_size"],
            description["action_size"],
            description["world_model"],
            description["controller"],
            description["decoder"],
            description.get("value"),
        )
    except ValueError as error:
        raise ValueError(f"{folder}/{DESCRIPTION}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}/{DESCRIPTION} describes no agent of this version ({error}); use the version that wrote it"
        ) from error
    stored, own = read_weights(folder), agent.state_dict()
    for name in sorted(stored.keys() | own.keys()):
        got, wanted = (list(d[name].shape) if name in d else "none" for d in (stored, own))
        if got != wanted:
            raise ValueError(
                f"{folder} holds {name} of shape {got}, where its {DESCRIPTION} asks for {wanted}; "
                f"give a checkpoint whose two files were written together"
            )
    agent.load_state_dict(stored)
    return agent.eval(), description


def load_matching_weights(agent: PlanningAgent, folder: Folder) -> list[str]:
    """Copy the weights that an agent shares with a stored one (the decoder only if both have it).

    Args:
        agent: That gets them.
        folder: Of the stored agent.

    Returns:
        The names of the agent's own weights that stayed as they were.

    Raises:
        ValueError: A weight that both have differs in shape.
    """
    stored = read_weights(folder)
    own = agent.state_dict()
    for name, value in own.items():
        if name in stored and stored[name].shape != value.shape:
            raise ValueError(
                f"{folder} was trained with {name} of shape {list(stored[name].shape)}, this phase needs "
                f"{list(value.shape)}; start from a checkpoint of the same environment and model sizes"
            )
    agent.load_state_dict({name: stored.get(name, value) for name, value in own.items()})
    return [name for name in own if name not in stored]
