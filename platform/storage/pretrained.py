"""Trained agents that come with the package: `pretrained:NAME`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from parsecrl.platform.errors import UserError

PREFIX = "pretrained:"
PACKAGE = "parsecrl.pretrained"


def pretrained_names() -> list[str]:
    """The agents that there are."""
    return sorted(entry.name for entry in _root().iterdir() if (entry / "agent.json").is_file())


def pretrained_folder(address: str) -> Path:
    """The folder of an agent.

    Args:
        address: `pretrained:NAME`.

    Returns:
        The folder, with agent.json and agent.safetensors.

    Raises:
        UserError: There is no agent of the name.
    """
    name = address.removeprefix(PREFIX)
    if name not in pretrained_names():
        raise UserError(f"{PREFIX} must be followed by one of {', '.join(pretrained_names())}, got {name!r}")
    return _root() / name


def _root() -> Path:
    return Path(str(files(PACKAGE)))
