"""Keys of nested groups, written with dots between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def set_path(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """data[keys[0]][keys[1]]... = value; groups that are not there are made.

    Args:
        data: Changed in place.
        keys: One or more.
        value: Of the last key.

    Raises:
        KeyError: A key before the last one holds no group.
    """
    for depth, key in enumerate(keys[:-1]):
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise KeyError(".".join(keys[: depth + 1]))
    data[keys[-1]] = value


def get_path(data: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """data[keys[0]][keys[1]]...

    Args:
        data: Nested groups.
        keys: From the outermost in.

    Returns:
        The value; None where there is no such key, or an empty group.
    """
    for key in keys:
        data = data.get(key, {}) if hasattr(data, "get") else {}
    return data if data != {} else None


def leaves(data: dict[str, Any], path: str = "") -> list[str]:
    """The dotted paths of all that is no group.

    Args:
        data: Nested groups.
        path: What each path begins with.

    Returns:
        Paths, in the order of the keys.
    """
    found = []
    for key, value in data.items():
        found += leaves(value, f"{path}{key}.") if isinstance(value, dict) else [f"{path}{key}"]
    return found


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    """Every value that differs; phases go by their names.

    Args:
        old: A spec as plain data, or a group of one.
        new: The same, as it is now.
        path: What each path begins with.

    Returns:
        (dotted path, old, new); None stands for a key that is missing. Phases of other names are told as a whole.
    """
    found: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys([*old, *new]):
        here = f"{path}{key}"
        a, b = old.get(key), new.get(key)
        if key == "phases" and not path:
            a, b = ({phase["name"]: phase for phase in phases} for phases in (a or [], b or []))
            if list(a) != list(b):
                found.append((here, list(a), list(b)))
                continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{here}.")
        elif a != b:
            found.append((here, a, b))
    return found
