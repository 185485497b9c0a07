"""Errors that end a command with one sentence instead of a traceback."""


class UserError(Exception):
    """Something that the user can put right: one sentence with the rule, the value and the remedy. Exit code 2."""


class RunFailed(Exception):
    """A run that stopped by itself, such as on a NaN loss: one sentence with where and why. Exit code 1."""
