"""Parts that a loss passes through and leaves as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(module: nn.Module, but: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Within it, no graph is built for a module's own parameters; gradients still pass through to its inputs.

    Args:
        module: What is frozen.
        but: Parameters of the module that are not.

    Yields:
        Nothing.
    """
    kept = set(but)
    parameters = [p for p in module.parameters() if p.requires_grad and p not in kept]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
