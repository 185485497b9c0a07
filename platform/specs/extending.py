"""`extends: NAME`: a spec that is another one with changes.

The changes are merged as JSON merge patches are (RFC 7386): groups key by key, null takes a key away, everything else
replaces. Phases go by their names.
"""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms.registry.messages import short
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs.groups import KINDS

CHOICES = ("kind", "algorithm")  # a key that chooses which keys its group has


def extended(base: dict[str, Any], changes: dict[str, Any], source: str) -> dict[str, Any]:
    """A spec with changes.

    Args:
        base: The spec that is extended, as read.
        changes: What the extending file says, `extends` aside.
        source: What messages call the extending file.

    Returns:
        The merged spec; base and changes stay as they are.

    Raises:
        UserError: The changes' phases are neither a group by name nor a list of phases with names.
    """
    changes = dict(changes)
    spec = merged(base, {key: value for key, value in changes.items() if key != "phases"})
    if "phases" in changes:
        phases: dict[str, Any] = {str(phase.get("name")): phase for phase in base.get("phases") or []}
        for name, change in _by_name(changes["phases"], source).items():
            if change is None and name not in phases:
                raise UserError(
                    f"{source}: phases.{name} is taken away and is not there; the extended spec has "
                    f"{', '.join(phases) or 'none'}"
                )
            phases = merged(phases, {name: change if change is None else {"name": name, **change}})
        spec["phases"] = list(phases.values())
    return spec


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A group with changes. A group whose `kind` or `algorithm` changes keeps none of its other keys, and so does a
    searched key whose kind of values changes.

    Args:
        base: The group; stays as it is.
        changes: Values by key; None takes a key away.

    Returns:
        The changed group.
    """
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        if value is None:
            found.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict) and not _chooses_anew(old, value):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _chooses_anew(old: dict[str, Any], new: dict[str, Any]) -> bool:
    kinds = [set(KINDS) & group.keys() for group in (old, new)]  # of a searched key
    if all(kinds) and kinds[0] != kinds[1]:
        return True
    return any(choice in old and choice in new and old[choice] != new[choice] for choice in CHOICES)


def _by_name(phases: Any, source: str) -> dict[str, dict[str, Any] | None]:
    """Changes of phases, by name: {name: {key: value}}, or a list of groups that say their names."""
    if isinstance(phases, list) and all(isinstance(phase, dict) and "name" in phase for phase in phases):
        phases = {phase["name"]: {key: value for key, value in phase.items() if key != "name"} for phase in phases}
    if not isinstance(phases, dict) or not all(value is None or isinstance(value, dict) for value in phases.values()):
        raise UserError(
            f"{source}: the phases of a spec that extends another are groups by name, such as "
            f"phases: {{embed: {{train_ratio: 0.2}}}}, or a list of phases with names, got {short(phases)}"
        )
    return phases
