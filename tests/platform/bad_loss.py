"""planet whose loss is not finite in the third iteration; a spec names it as tests.platform.bad_loss:BAD_LOSS."""

from typing import Any

from parsecrl.algorithms.planet import planet
from parsecrl.algorithms.planet.algorithm import PlanetAlgorithm


class Planet(planet.Planet):
    def training_step(self) -> None:
        if self.iteration >= 2:
            raise FloatingPointError("the loss term reward is nan at update 7")
        super().training_step()


class BadLossAlgorithm(PlanetAlgorithm):
    name = "bad_loss"

    def trainable(self) -> Any:
        return Planet


BAD_LOSS = BadLossAlgorithm()
