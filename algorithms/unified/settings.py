"""The settings of unified: those of planet, and which losses are taken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from parsecrl.algorithms.dcem_ppo.settings import Part
from parsecrl.algorithms.planet.settings import (
    NO_VALUE,
    OVER_ACTIONS,
    Controller,
    EmbeddedController,
    PlanetSettings,
    Value,
    ValueSpec,
)
from parsecrl.algorithms.registry.settings import Count, Distinct, Group, Positive

Loss = Literal["likelihood", "value", "decoder", "value_gradient"]
THROUGH_PLANS = ("decoder", "value_gradient")


class ValueGradientSpec(Group):
    """The policy loss: the value of the planner's first action, through the planner (Heess et al. 2015, SVG(1))."""

    parts: Annotated[list[Part], Distinct] = Field(["reward", "decoder"], min_length=1, description="what it changes")
    beliefs: Count = Field(16, description="replayed beliefs of an update whose plans are differentiated")
    weight: Positive = Field(1.0, description="against the other losses; its unit is that of the decoder's loss")


class UnifiedSettings(PlanetSettings):
    """One run for everything: likelihood, value, decoder and policy loss together (DCEM paper, appendix D, end)."""

    controller: Controller = Field(default_factory=EmbeddedController, description="the planner")
    value: Value = Field(default_factory=ValueSpec, description="what comes beyond the horizon of plans; none: nothing")
    losses: Annotated[list[Loss], Distinct] = Field(
        ["likelihood", "value", "decoder", "value_gradient"],
        min_length=1,
        description="what the learner takes together: the model's, the critic's and actor's, the decoder's own, and "
        "the policy's through the planner",
    )
    value_gradient: ValueGradientSpec = Field(default_factory=ValueGradientSpec, description="of the policy loss")

    @model_validator(mode="after")
    def _losses_have_what_they_need(self) -> UnifiedSettings:
        for rule in (self._check_planner, self._check_learned, self._check_decoder_alone):
            rule()
        return self

    def _check_planner(self) -> None:
        """Raise ValueError where a loss meets no gradient."""
        through = [loss for loss in THROUGH_PLANS if loss in self.losses]
        if through and self.controller.kind in OVER_ACTIONS:
            raise ValueError(
                f"losses must leave out {' and '.join(through)} where controller.kind is {self.controller.kind}, whose "
                f"search over actions gives no gradient; leave them out, or take kind: embedded"
            )
        hard = getattr(self.controller, "temperature", None) == 0
        if "value_gradient" in self.losses and hard and self.value_gradient.parts != ["decoder"]:
            raise ValueError(
                f"value_gradient.parts must be [decoder] where controller.temperature is 0, which lets no gradient "
                f"through the selection, got {self.value_gradient.parts}; change one of them"
            )

    def _check_learned(self) -> None:
        """Raise ValueError where a loss asks for what there is not, or what nothing would train."""
        for loss in ("value", "value_gradient"):
            if loss in self.losses and self.value == NO_VALUE:
                raise ValueError(
                    f"losses must leave out {loss} where value is none, as there is no critic; "
                    f"leave it out, or set value: {{}}"
                )
        if self.start_from is not None and self.keep_model:
            return
        trained = {"likelihood": True, "value": self.value != NO_VALUE, "decoder": self.controller.kind == "embedded"}
        for part, needed in trained.items():
            also = part == "decoder" and "value_gradient" in self.losses and "decoder" in self.value_gradient.parts
            if needed and part not in self.losses and not also:
                raise ValueError(
                    f"losses must have {part} unless start_from and keep_model bring what it trains, got "
                    f"{', '.join(self.losses)}; add it"
                )

    def _check_decoder_alone(self) -> None:
        """Raise ValueError where updates of the decoder alone do not suit the losses."""
        if self.decoder_training == "offline":
            raise ValueError(
                "decoder_training must not be offline, which takes the decoder's loss alone; take algorithm: planet"
            )
        if "decoder" not in self.losses and (self.decoder_warmup_updates or self.decoder_anchor):
            raise ValueError(
                f"losses must have decoder with decoder_warmup_updates and decoder_anchor, got "
                f"{', '.join(self.losses)}; add it, or leave these two out"
            )
