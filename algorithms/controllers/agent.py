"""A planning agent: model, decoder and controller as one module, whose state is the belief.

The same object serves the rollouts, the decoder's update, PPO's policy, and the evaluation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.planning import Controller, EmbeddedController, FullSpaceController, Plan
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief

State = dict[str, Tensor]


class PlanningAgent(nn.Module):
    """Filters observations into a belief and plans from it, for B environments at once.

    world_model, controller, decoder: the spec's groups of these names. controller["kind"] is "full" or "embedded"; the
    decoder exists only in an embedded agent.
    Raises ValueError on an unknown kind.
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
        self.model = RSSM(obs_size, action_size, **(world_model or {}))
        self.controller = make_controller(self.model, action_size, controller or {}, decoder or {})
        # Set by the first gradient step. It travels with the weights: a rollout knows by it when planning makes sense.
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    @property
    def decoder(self) -> ActionDecoder | None:
        return self.controller.decoder if isinstance(self.controller, EmbeddedController) else None

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
        warm_start = state["plan"] if self.controller.warm_start else None
        return self.controller.plan(self.model, belief, warm_start, generator=generator, noise=noise, **options)

    def next_state(self, belief: Belief, action: Tensor, plan: Plan) -> State:
        """The state after executing action [B, A], which may differ from the plan's first by exploration noise."""
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


def make_controller(model: RSSM, action_size: int, controller: dict[str, Any], decoder: dict[str, Any]) -> Controller:
    """The controller that a spec's `controller` and `decoder` groups describe."""
    settings = dict(controller)
    kind = settings.pop("kind", "full")
    horizon = settings.pop("horizon", 12)
    latent_size = settings.pop("latent_size", 16)
    if kind == "full":
        for name in ("temperature", "normalize"):
            settings.pop(name, None)
        return FullSpaceController(horizon, action_size, **settings)
    if kind == "embedded":
        net = ActionDecoder(latent_size, horizon, action_size, belief_size=model.belief_size, **decoder)
        return EmbeddedController(net, **settings)
    raise ValueError(f"controller.kind must be 'full' or 'embedded', got {kind!r}")
