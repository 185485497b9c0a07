"""Which algorithm reads the agent of a checkpoint: the one that wrote it, where that reads its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from parsecrl.algorithms.checkpoints.agent import read_description
from parsecrl.algorithms.planet.algorithm import PLANET
from parsecrl.algorithms.registry.algorithm import Algorithm
from parsecrl.algorithms.registry.lookup import usable
from parsecrl.platform.storage import Location


def agent_files() -> list[str]:
    """The files of a checkpoint that tell of an agent."""
    return list(dict.fromkeys(entry.agent_file for entry in _readers()))


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
    readers = [entry for entry in _readers() if (folder / entry.agent_file).is_file()]
    if not readers:
        readers, _ = [PLANET], read_description(folder)  # which says what is missing
    if len(readers) > 1:  # an agent of an algorithm without a reader of its own is a planning one, planet's
        wrote = read_description(folder).get("algorithm")
        readers = [entry for entry in readers if entry.name == wrote] or [PLANET]
    return readers[0].load_policy(folder, seed, trust)


def _readers() -> list[Algorithm]:
    return [entry for entry in usable() if vars(type(entry)).get("agent_file")]  # not those that inherit one
