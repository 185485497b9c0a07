"""What is said of observations whose unit does not suit an algorithm that takes them as they are."""

from __future__ import annotations

SUITABLE = (1e-2, 1e2)  # root mean squares of observations that networks and losses are made for


def units_warnings(rms: float, task: str, who: str) -> list[str]:
    """Say that observations are so large or small that networks hardly learn from them.

    Args:
        rms: Root mean square of the observations' entries.
        task: Its name, for the message.
        who: What takes the observations as they are, for the message.

    Returns:
        A sentence, or nothing where the unit suits. Observations that are all 0 have none.
    """
    if rms == 0.0 or SUITABLE[0] <= rms <= SUITABLE[1]:
        return []
    return [
        f"observations of {task} have a root mean square of {rms:.3g}, and {who} as they are, best between "
        f"{SUITABLE[0]:g} and {SUITABLE[1]:g}; scale them by a wrapper of the environment"
    ]
