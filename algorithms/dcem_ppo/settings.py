"""The settings of dcem_ppo: phase 3 of the DCEM paper (section 5.2.2, appendix D)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from parsecrl.algorithms.planet.settings import OVER_ACTIONS
from parsecrl.algorithms.registry.settings import (
    Count,
    Distinct,
    EvaluatedSettings,
    Fraction,
    Group,
    NonNegative,
    Positive,
)

Part = Literal["reward", "transition", "decoder"]


class StdSpec(Group):
    """The standard deviation of the policy around the plan's first action."""

    value: Positive = Field(0.1, description="standard deviation; actions lie in [-1, 1]")
    learned: bool = Field(False, description="whether PPO changes it")


class DCEMPPOSettings(EvaluatedSettings):
    """PPO through the embedded controller (DCEM paper, section 5.2.2)."""

    start_from: str = Field(description="earlier phase (in Python: its checkpoint) whose agent is fine-tuned")
    fine_tune: Annotated[list[Part], Distinct] = Field(
        ["reward", "decoder"], min_length=1, description="what PPO changes"
    )
    passes: Count = Field(1, description="passes through the episodes of a PPO step")
    minibatches: Count = Field(
        32, description="parts of a pass, each a gradient step; 1 is a step on all decisions at once"
    )
    episodes_per_step: Count = Field(10, description="episodes of a PPO step")
    std: StdSpec = Field(default_factory=StdSpec, description="of the policy")
    learning_rate: Positive = Field(1.0e-4, description="of the fine-tuned parts")
    value_learning_rate: Positive = Field(3.0e-4, description="of the value network")
    clip: Positive = Field(0.2, description="of the likelihood ratio around 1")
    gae_lambda: Fraction = Field(0.95, description="lambda of generalised advantage estimation")
    discount: Fraction = Field(0.99, description="of rewards, per decision")
    entropy_weight: NonNegative = Field(0.0, description="weight of the policy's entropy")
    noise_bank_size: Count = Field(16, description="draws of DCEM's noise that rollouts and updates share")
    micro_batch: Count = Field(
        64, description="most decisions of a minibatch whose plans are differentiated at once; bounds the memory"
    )


def check_planner(
    kind: str, temperatures: Iterable[float], fine_tune: Iterable[list[Any]], origin: str, at: str
) -> None:
    """Raise ValueError unless PPO's gradient reaches what is fine-tuned through a planner.

    Args:
        kind: Of the planner's controller.
        temperatures: Of its selection, all that it may have; none of a controller of other code, which is asked itself.
        fine_tune: Lists of parts, all that may be asked for.
        origin: Whose planner it is: a phase or a checkpoint.
        at: What stands before the names of settings, such as `phases.finetune.`.
    """
    if kind in OVER_ACTIONS:
        raise ValueError(
            f"{at}start_from must name what has an embedded controller, through which PPO differentiates, "
            f"got {origin!r} with controller.kind={kind!r}"
        )
    known = list(temperatures)
    hard = bool(known) and all(temperature == 0 for temperature in known)
    for parts in fine_tune if hard else ():
        if set(parts) != {"decoder"}:
            raise ValueError(
                f"{at}fine_tune must be [decoder] where the controller of {origin!r} has temperature 0, which lets "
                f"no gradient through its selection, got {parts}"
            )
