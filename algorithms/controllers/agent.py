"""A planning agent: model, decoder and controller as one module, whose state is the belief.

The same object serves the rollouts, the decoder's update, PPO's policy, and the evaluation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.controller import Plan
from parsecrl.algorithms.controllers.own_parts import make_controller, make_world_model
from parsecrl.algorithms.models import Belief

State = dict[str, Tensor]


class PlanningAgent(nn.Module):
    """Filters observations into a belief and plans from it, for B environments at once.

    Args:
        obs_size: O.
        action_size: A.
        world_model: The spec's group of this name.
        controller: The spec's group; its `kind` is "full", "embedded" or module:name.
        decoder: The spec's group; the decoder exists only where the controller has one.

    Raises:
        ValueError: A kind is unknown, or code of a user's own does not meet its protocol.
    """

    trained: Tensor  # [] bool

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        world_model: dict[str, Any] | None = None,
        controller: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
    ):
        super().__init__()
        # Modules as well as what their protocols say.
        self.model: Any = make_world_model(obs_size, action_size, world_model or {})
        self.controller: Any = make_controller(self.model, controller or {}, decoder or {})
        self.kind: str = (controller or {}).get("kind", "full")
        # Set by the first gradient step. It travels with the weights: a rollout knows by it when planning makes sense.
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    @property
    def decoder(self) -> nn.Module | None:
        """What is trained through the plans; None where nothing is."""
        return self.controller.decoder

    def initial_state(self, batch_size: int) -> State:
        """The state before an episode's first obs: h [B, D], s [B, S], action [B, A] (previous), plan [B, n]."""
        belief = self.model.initial_belief(batch_size)
        return {
            "h": belief.h,
            "s": belief.s,
            "action": belief.h.new_zeros(batch_size, self.model.action_size),
            "plan": belief.h.new_zeros(batch_size, self.controller.plan_size),
        }

    def update_belief(self, state: State, obs: Tensor) -> Belief:
        """The belief after obs [B, O]; state["action"] is what was executed before it."""
        return self.model.update_belief(Belief(state["h"], state["s"]), state["action"], obs)

    def plan(
        self,
        belief: Belief,
        state: State,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        **options: Any,
    ) -> Plan:
        """The controller's plan from a belief, begun at the state's last plan where the controller does so."""
        warm_start = state["plan"] if self.controller.warm_start else None
        return self.controller.plan(self.model, belief, warm_start, generator=generator, noise=noise, **options)

    def next_state(self, belief: Belief, action: Tensor, plan: Plan | None) -> State:
        """The state after an action was executed.

        Args:
            belief: That the action was chosen in.
            action: [B, A], which may differ from the plan's first by exploration noise.
            plan: None where nothing was planned, so that the next search starts at zero.

        Returns:
            h [B, D], s [B, S], action [B, A] and plan [B, n], where the next search starts.
        """
        if plan is None:
            warm_start = belief.h.new_zeros(len(belief.h), self.controller.plan_size)
        else:
            warm_start = self.controller.shift(plan, belief) if self.controller.warm_start else plan.mean
        return {"h": belief.h, "s": belief.s, "action": action, "plan": warm_start}

    @torch.no_grad()
    def act(
        self, state: State, obs: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One decision without exploration: obs [B, O] -> the plan's first action [B, A], and the next state."""
        belief = self.update_belief(state, obs)
        plan = self.plan(belief, state, generator, noise)
        action = plan.actions[:, 0]
        return action, self.next_state(belief, action, plan)
