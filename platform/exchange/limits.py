"""The limits of a service."""

from __future__ import annotations

from typing import NamedTuple

from parsecrl.platform.errors import UserError


class Limits(NamedTuple):
    """How much a service takes on."""

    max_batch_size: int = 16  # plans of a batch
    max_waiting: int = 128  # requests that wait for their action; more get status 503
    max_sessions: int = 1024
    session_idle_s: float = 600.0  # after which a session without a decision is forgotten

    def check(self) -> None:
        """Raises UserError where a limit leaves no room for a single client."""
        for name, value in self._asdict().items():
            if not value > 0:
                raise UserError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
