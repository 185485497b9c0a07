"""Who reads the agent of a checkpoint: the algorithm that wrote it, where that reads its own, or else any planner's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from parsecrl.algorithms.checkpoints.agent import DESCRIPTION, load_agent, read_description
from parsecrl.algorithms.controllers.acting import PlanningPolicy
from parsecrl.algorithms.registry.algorithm import Algorithm
from parsecrl.algorithms.registry.lookup import usable
from parsecrl.platform.storage import Location


def agent_files() -> list[str]:
    """The files of a checkpoint that tell of an agent."""
    return list(dict.fromkeys([DESCRIPTION, *(entry.agent_file for entry in _readers())]))


def load_policy(folder: Location, seed: int, trust: bool | Collection[str]) -> tuple[Any, dict[str, Any]]:
    """The trained policy of a checkpoint.

    Args:
        folder: Of the checkpoint.
        seed: Of what the policy draws, at least 0.
        trust: Whether code that the checkpoint names may run, or the names that may.

    Returns:
        The policy, and the checkpoint's description.

    Raises:
        ValueError: There is no agent of this version, it is damaged, or it names code that is not trusted.
    """
    reader = reader_of(folder)
    if reader is None:
        wrote = read_description(folder).get("algorithm")  # which says what is missing
        reader = next((entry for entry in _readers() if entry.name == wrote), None)
    if reader is not None:
        return reader.load_policy(folder, seed, trust)
    agent, description = load_agent(folder, trust)
    return PlanningPolicy(agent, seed), description


def reader_of(folder: Location) -> Algorithm | None:
    """The algorithm whose own file tells of the agent of a checkpoint.

    Args:
        folder: Any.

    Returns:
        None where there is no such file.
    """
    own = [entry for entry in _readers() if entry.agent_file != DESCRIPTION]
    return next((entry for entry in own if (folder / entry.agent_file).is_file()), None)


def _readers() -> list[Algorithm]:
    return [entry for entry in usable() if vars(type(entry)).get("agent_file")]  # not those that inherit one
