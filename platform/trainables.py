"""The algorithms that a spec can name, as Tune trains them."""

from __future__ import annotations

from typing import Any

from parsecrl.algorithms import dcem_ppo, planet
from parsecrl.platform.progress import FAILURE


class _StopOnBadLoss:
    """Put before an algorithm: a loss that is not finite ends the trial.

    As an exception it would be tried again from the last checkpoint, like the death of a process, and end the same way.
    """

    latest: dict[str, Any] | None = None

    def step(self) -> dict[str, Any]:
        try:
            result = super().step()  # type: ignore[misc]
        except FloatingPointError as error:
            message = str(error).strip().splitlines()[-1].removeprefix("FloatingPointError: ")
            return {**(self.latest or {}), FAILURE: message, "done": True}
        self.latest = result
        return result


# The names stay those of the algorithms: they are written into checkpoints.
class Planet(_StopOnBadLoss, planet.Planet):
    pass


class DCEMPPO(_StopOnBadLoss, dcem_ppo.DCEMPPO):
    pass


ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "planet": (planet.PlanetConfig, Planet),
    "dcem_ppo": (dcem_ppo.DCEMPPOConfig, DCEMPPO),
}
