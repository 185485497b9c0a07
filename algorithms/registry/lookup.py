"""Where algorithms are found by their names. An installed package registers one by an entry point:

    [project.entry-points."parsecrl.algorithms"]
    mine = "my_package.algorithm:MINE"

or a spec names it where it lies, as `algorithm: my_package.algorithm:MINE`. Neither Ray nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from parsecrl.algorithms.registry.algorithm import PHASE_KEYS, TIME_KEY, Algorithm, StopCondition
from parsecrl.algorithms.registry.settings import RUN_KEYS, Settings
from parsecrl.algorithms.registry.user_functions import is_own, load_named, nearest

ENTRY_POINTS = "parsecrl.algorithms"


class RegistryError(ValueError):
    """An algorithm that is not found, or is not one."""


@cache
def registered() -> dict[str, EntryPoint]:
    """Name -> entry point, parsecrl's own where a package shadows one; nothing is imported."""
    return {name: points[0] for name, points in _by_name().items()}


@cache
def _by_name() -> dict[str, list[EntryPoint]]:
    """Name -> its different entry points, parsecrl's own first."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: not is_own(point.value)):
        points = found.setdefault(point.name, [])
        if point.value not in (other.value for other in points):
            points.append(point)
    return found


@cache
def algorithm_named(name: str) -> Algorithm:
    """Find an algorithm, importing it.

    Args:
        name: Registered, or module:NAME.

    Returns:
        The algorithm, the same object at every call.

    Raises:
        RegistryError: There is none, it cannot be imported, lacks a part, or shadows another's name.
    """
    points = registered()
    if name in points:
        mine, *others = _by_name()[name]
        if others:
            raise RegistryError(
                f"the entry point {_said(others[0])} shadows the algorithm {name!r} of {mine.value}; "
                f"give it another name, or uninstall its package"
            )
        return _loaded(mine, f"the entry point {_said(mine)}")
    if ":" not in name:
        raise RegistryError(f"must be one of {', '.join(points)}, or module:NAME, got {name!r}{nearest(name, points)}")
    return _loaded(EntryPoint(name, name, ENTRY_POINTS), f"module:NAME {name!r}")


def usable() -> list[Algorithm]:
    """Every registered algorithm that can be imported, parsecrl's own first."""
    found = []
    for name in sorted(registered(), key=lambda name: not is_own(registered()[name].value)):
        with suppress(RegistryError):
            found.append(algorithm_named(name))
    return found


def _loaded(point: EntryPoint, said: str) -> Algorithm:
    try:
        found = load_named(point.value)
    except ImportError as error:
        raise RegistryError(
            f"{said} cannot be imported ({error}); put its package on the path of every node, and check its name"
        ) from error
    lacks = _lacks(found)
    if lacks:
        raise RegistryError(f"{said} {lacks}; `parsec docs plugins` has the protocol")
    own = point.name if point.name == point.value else None  # what module:NAME names goes by that
    if own is None and found.name != point.name:
        raise RegistryError(f"{said} must have the name of its algorithm, {found.name!r}; rename one of them")
    if own is not None and found.name in registered():
        raise RegistryError(
            f"{said} shadows the registered algorithm {found.name!r}; give it another name, or say "
            f"algorithm: {found.name}"
        )
    return found


def _lacks(found: Any) -> str:
    """What keeps an object from being an algorithm; empty if nothing does."""
    if not isinstance(found, Algorithm):
        kind = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
        return f"must be an instance of a subclass of Algorithm, got {kind}"
    if not isinstance(getattr(found, "name", None), str):
        return "must have a name, a string"
    settings = getattr(found, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        return f"must have settings, a subclass of Settings, got {settings!r}"
    taken = [key for key in (*PHASE_KEYS, *sorted(RUN_KEYS)) if key in settings.model_fields]
    if taken:
        return f"has a setting {taken[0]!r}, which every phase or run has itself; rename the setting"
    conditions = getattr(found, "stop_conditions", None)
    if not (isinstance(conditions, Mapping) and conditions):
        return f"must have stop_conditions, a mapping with one key or more, got {conditions!r}"
    if not all(isinstance(condition, StopCondition) for condition in conditions.values()):
        return f"must have stop_conditions of StopCondition values, got {dict(conditions)!r}"
    if TIME_KEY in conditions:
        return f"has a stop condition {TIME_KEY!r}, which every phase has itself; rename it"
    name = vars(type(found)).get("tune_name")  # one that is inherited is another algorithm's, and is not made known
    if name and not is_own(type(found).__module__) and name in _own_tune_names():
        return f"has the tune_name {name!r}, by which Tune knows another algorithm; rename it"
    parts = ["trainable"] if found.acts else ["trainable", "analyse"]
    parts += ["load_policy"] if found.agent_file else []
    for part in parts:
        if getattr(type(found), part) is getattr(Algorithm, part):
            return f"must define {part}()"
    return ""


@cache
def _own_tune_names() -> set[str]:
    points = registered()
    return {algorithm_named(name).tune_name for name, point in points.items() if is_own(point.value)}


def _said(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"{point.name} = {point.value}{package}"
