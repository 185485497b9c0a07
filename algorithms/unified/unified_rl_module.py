"""The RLModule of unified: planet's, with a choice of losses and the value gradient through the planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.value_gradient import value_gradient_loss
from parsecrl.algorithms.models import Belief, ReplaySequence
from parsecrl.algorithms.planet.planet_rl_module import DECODER_ONLY, PlanetRLModule


class UnifiedRLModule(PlanetRLModule):
    """Takes the losses that the spec names.

    model_config: as of PlanetRLModule, and losses, value_gradient.
    """

    def setup(self) -> None:
        """As RLlib asks. Raises ValueError where the gradient of a loss reaches nothing."""
        super().setup()
        check_reached(self.agent, self.model_config["losses"], self.model_config["value_gradient"]["parts"])

    def learned(self, batch: dict[str, Any]) -> frozenset[str]:
        """As planet's, and the value gradient, as far as the spec names them."""
        possible = super().learned(batch)
        if not bool(batch[DECODER_ONLY][0]):
            possible |= {"value_gradient"}
        return possible & frozenset(self.model_config["losses"])

    def losses(self, batch: dict[str, Any], sequence: ReplaySequence) -> tuple[Tensor, dict[str, Tensor], Belief]:
        """As planet's, and the value gradient's; see there."""
        loss, terms, beliefs = super().losses(batch, sequence)
        if "value_gradient" in self.learned(batch):
            c = self.model_config["value_gradient"]
            chosen, counts = self.choose(beliefs, sequence, c["beliefs"])
            policy_loss, policy_terms = value_gradient_loss(self.agent, chosen, counts, c["parts"], self._generator())
            loss, terms = loss + c["weight"] * policy_loss, terms | policy_terms
        return loss, terms, beliefs


def check_reached(agent: PlanningAgent, losses: Sequence[str], parts: Sequence[str]) -> None:
    """See that the losses through the plans have a gradient.

    Args:
        agent: Whose controller plans.
        losses: That are taken.
        parts: That the value gradient is to change.

    Raises:
        ValueError: One reaches nothing, or not all that it is to change.
    """
    if agent.decoder is None and "decoder" in losses:
        raise ValueError(
            f"losses must leave out decoder where the controller has none, got kind {agent.kind!r}; leave it out"
        )
    reached = agent.controller.differentiable_in
    if "value_gradient" in losses and set(parts) - set(reached):
        raise ValueError(
            f"value_gradient.parts must name what the gradient of a plan reaches, got {list(parts)} where a controller "
            f"of kind {agent.kind!r} has {', '.join(reached) or 'nothing'}; change one of them"
        )
