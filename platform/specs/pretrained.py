"""What a phase takes over from a pretrained agent that it starts from."""

from __future__ import annotations

from typing import Any

from parsecrl.platform.errors import UserError
from parsecrl.platform.storage import read_json
from parsecrl.platform.storage.pretrained import PREFIX, pretrained_folder

KEYS = ("algorithm", "world_model", "controller", "decoder")  # of agent.json, named as a phase names them


def is_pretrained(start_from: Any) -> bool:
    """Whether a phase's start_from names a pretrained agent.

    Args:
        start_from: As the spec states it.

    Returns:
        Whether.
    """
    return isinstance(start_from, str) and start_from.startswith(PREFIX)


def pretrained_keys(start_from: str) -> dict[str, Any]:
    """The keys of a phase that would have trained the agent.

    Args:
        start_from: `pretrained:NAME`.

    Returns:
        algorithm, world_model, controller and decoder.

    Raises:
        ValueError: There is no agent of the name.
    """
    try:
        description = read_json(pretrained_folder(start_from) / "agent.json")
    except UserError as error:
        raise ValueError(f"start_from: {error}") from None
    return {key: description[key] for key in KEYS}
