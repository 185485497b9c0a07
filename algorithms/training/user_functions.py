"""Functions of users' own, which a spec names as `module:function`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any


def own_function(name: Any, key: str, known: Iterable[str]) -> Callable[..., Any]:
    """The function that is named as module:function, of a module that Python finds.

    key, known: the spec's key and what else it may be, for the message. Raises ValueError where there is none.
    """
    module, separator, function = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not separator:
        raise ValueError(f"{key} must be one of {', '.join(known)}, or module:function, got {name!r}")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{key} {name!r} cannot be imported ({' '.join(str(error).split())}); put its folder on PYTHONPATH, on "
            f"every node, and check its name"
        ) from None
    if not callable(found):
        raise ValueError(f"{key} must name a function, {name!r} is of type {type(found).__name__}")
    return found
