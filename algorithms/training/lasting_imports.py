"""Imports of a process's own parts, of which nothing is ever garbage. Neither Ray nor torch is imported here."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Within it nothing is collected. What there is at its end is never looked through again, if modules came.

    RLlib, torch and what they import are a million objects that stay. Collections between them, and at the end of the
    process, took a third of its processor time up to its first step.

    Yields:
        Nothing.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()
