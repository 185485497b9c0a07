"""Functions and classes of users' own, which a spec names as `module:name`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def names_code(value: Any) -> bool:
    """Whether a spec's value is module:name, and not one of the project's own names."""
    return isinstance(value, str) and ":" in value


def own_code_of(description: Mapping[str, Any]) -> list[str]:
    """What an agent.json, or the groups of a phase, names as module:name: code that runs when the agent is made."""
    controller, model = (description.get(group) or {} for group in ("controller", "world_model"))
    named = (controller.get("kind"), controller.get("objective"), model.get("kind"))
    return [str(name) for name in named if names_code(name)]


def own_function(name: Any, key: str, known: Iterable[str]) -> Callable[..., Any]:
    """Import the function or class that is named as module:name. key, known: for messages; what else the key may be.

    Raises ValueError where there is none, or its module fails.
    """
    if not names_code(name):
        raise ValueError(
            f"{key} must be one of {', '.join(known)}, or module:function, got {name!r}{nearest(str(name), known)}"
        )
    module, _, function = name.partition(":")
    try:
        found = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the user's module does when it is imported
        raise ValueError(
            f"{key} {name!r} cannot be imported ({one_line(error)}); give its folder by --code, or put it on "
            f"PYTHONPATH on every node, and check its name"
        ) from error
    if not callable(found):
        raise ValueError(f"{key} must name a function, {name!r} is of type {type(found).__name__}")
    return found


def call_with_options(
    function: Callable[..., Any], name: str, key: str, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """function(*arguments, **options), with the options checked against its signature first.

    name, key: for messages; the spec's key, such as controller.kind, and its value. options: stand beside the key.
    Raises ValueError on an option that the function does not take or that is missing, or with what the function raises.
    """
    where = f"{key.rpartition('.')[0]}.options"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled code without a signature says by itself what it lacks
        parameters = ()  # type: ignore[assignment]
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p for p in by_name if p not in by_name[: len(arguments)]]
    if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in known:
                raise ValueError(
                    f"{where}.{option} is no option of {name}, which takes {', '.join(known) or 'none'}"
                    f"{nearest(option, known)}"
                )
    required = [p.name for p in parameters if p.default is p.empty and p.name in known and p.name not in options]
    if required:
        raise ValueError(f"{where}.{required[0]} is missing, without which {name} cannot be made; set it")
    try:
        return function(*arguments, **options)
    except Exception as error:  # of the user's own code
        raise ValueError(f"{key} {name!r} cannot be made: {one_line(error)}; correct it or its options") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that looks like this one, if any does."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: Exception) -> str:
    """The type and text of an error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
