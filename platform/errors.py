"""Errors that end a command with one sentence instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right: one sentence with the rule, the value and the remedy. Exit code 2."""


class RunFailed(Exception):
    """A run that stopped by itself, such as on a NaN loss: one sentence with where and why. Exit code 1."""


class StorageUnreachable(OSError):
    """An object store that kept failing for as long as was allowed, or that refuses this process.

    code: the store's own word for why it refuses, such as NoSuchBucket; empty where it did not answer.
    """

    code = ""


def text_line(error: object, longest: int | None = 200) -> str:
    """What an error or a text says, in one line.

    Args:
        error: Or a text.
        longest: Characters at most; None: all.

    Returns:
        The line.
    """
    return " ".join(str(error).split())[:longest]


def last_line(error: object) -> str:
    """The last line of a traceback, which says what was wrong.

    Args:
        error: Or a text.

    Returns:
        The line; of an error without a text its kind.
    """
    lines = str(error).strip().splitlines()
    return text_line(lines[-1]) if lines else type(error).__name__
