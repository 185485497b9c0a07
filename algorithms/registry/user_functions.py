"""Functions and classes of users' own, which a spec names as `module:name`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

RAISED = (Exception, SystemExit)  # by code of users' own, which may call sys.exit


def names_code(value: Any) -> bool:
    """Whether a spec's value is module:name, and not one of the project's own names.

    Args:
        value: Of any type.

    Returns:
        True for text with a colon.
    """
    return isinstance(value, str) and ":" in value


def is_own(module: str) -> bool:
    """Whether code is parsecrl's.

    Args:
        module: A module, or module:NAME.

    Returns:
        True for modules of this package.
    """
    return module.startswith("parsecrl.")


def load_named(name: str) -> Any:
    """Import what module:NAME names.

    Args:
        name: NAME may have dots.

    Returns:
        The object.

    Raises:
        ImportError: The module cannot be imported, whatever its code raises, or lacks the name; in one line.
    """
    module, _, attribute = name.partition(":")
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except RAISED as error:
        raise ImportError(one_line(error)) from error
    return found


def own_code_of(description: Mapping[str, Any]) -> list[str]:
    """The code that runs when an agent is made.

    Args:
        description: An agent.json, or the groups of a phase; `controller` and `world_model` are read.

    Returns:
        What its kinds and its objective name as module:name; empty where all is the project's own.
    """
    controller, model = (description.get(group) or {} for group in ("controller", "world_model"))
    named = (controller.get("kind"), controller.get("objective"), model.get("kind"))
    return [str(name) for name in named if names_code(name)]


def own_function(name: Any, key: str, known: Iterable[str]) -> Callable[..., Any]:
    """Import the function or class that is named as module:name.

    Args:
        name: What the key says.
        key: Of the spec, for messages.
        known: What else the key may be, for messages.

    Returns:
        The function or class.

    Raises:
        ValueError: The name has no colon, its module cannot be imported or lacks it, or it cannot be called.
    """
    if not names_code(name):
        raise ValueError(
            f"{key} must be one of {', '.join(known)}, or module:function, got {name!r}{nearest(str(name), known)}"
        )
    try:
        found = load_named(name)
    except ImportError as error:
        raise ValueError(
            f"{key} {name!r} cannot be imported ({error}); give its folder by --code, or put it on "
            f"PYTHONPATH on every node, and check its name"
        ) from error
    if not callable(found):
        raise ValueError(f"{key} must name a function, {name!r} is of type {type(found).__name__}")
    return found


def call_with_options(
    function: Callable[..., Any], name: str, key: str, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """function(*arguments, **options), with the options checked against its signature first.

    Args:
        function: Of the user's own.
        name: The key's value, module:name, for messages.
        key: Of the spec, such as controller.kind, for messages; the options stand beside it.
        arguments: By position.
        options: By name.

    Returns:
        What the function returns.

    Raises:
        ValueError: An option is unknown or missing, or the function raises: then with what it says.
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
    except RAISED as error:
        raise ValueError(f"{key} {name!r} cannot be made: {one_line(error)}; correct it or its options") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that looks like this one, if any does.

    Args:
        word: As the user wrote it.
        known: Words that it may be.

    Returns:
        "; did you mean ...?", or nothing.
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException) -> str:
    """The type and text of an error on one line.

    Args:
        error: Any exception.

    Returns:
        "Type: text", or the type alone of an error without text.
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
