"""A planning agent: model, decoder and controller as one module, whose state is the belief.

The same object serves the rollouts, the decoder's update, PPO's policy, and the evaluation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.controller import Plan
from parsecrl.algorithms.controllers.own_parts import make_controller, make_world_model
from parsecrl.algorithms.controllers.score import predicted_cost
from parsecrl.algorithms.controllers.valued import make_actor_critic
from parsecrl.algorithms.models import ActorCritic, Belief

State = dict[str, Tensor]


class PlanningAgent(nn.Module):
    """Filters observations into a belief and plans from it, for B environments at once.

    Args:
        obs_size: O.
        action_size: A.
        world_model: The spec's group of this name.
        controller: The spec's group; its `kind` is "full", "icem", "mppi", "embedded" or module:name.
        decoder: The spec's group; the decoder exists only where the controller has one.
        value: The spec's group, of the critic and the actor; None or "none" for neither.

    Raises:
        ValueError: A kind is unknown, code of a user's own does not meet its protocol, or a value does not suit it.
    """

    trained: Tensor  # [] bool

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        world_model: dict[str, Any] | None = None,
        controller: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        value: dict[str, Any] | str | None = None,
    ):
        super().__init__()
        # Modules as well as what their protocols say.
        self.model: Any = make_world_model(obs_size, action_size, world_model or {})
        self.controller: Any = make_controller(self.model, controller or {}, decoder or {})
        # Last: what is made before it draws the same weights as without it.
        self.actor_critic: ActorCritic | None = make_actor_critic(self.model, self.controller, value)
        self.kind: str = (controller or {}).get("kind", "full")
        # Set by the first gradient step. It travels with the weights: a rollout knows by it when planning makes sense.
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))

    @property
    def decoder(self) -> nn.Module | None:
        """What is trained through the plans; None where nothing is."""
        return self.controller.decoder

    @property
    def trajectories(self) -> int:
        """Candidates that the model rolls out for one decision."""
        proposed = self._num_proposals(self.controller.noise_shape[1])
        # Rolled out by the actor, then among the candidates, if the solver takes any; at last one beside the search's.
        return self.controller.trajectories + (proposed * (1 + self._takes_candidates) + 2 if proposed else 0)

    @property
    def _takes_candidates(self) -> bool:
        return getattr(self.controller, "takes_candidates", False)

    def _num_proposals(self, most: int) -> int:
        """P; at most one plan with each of `most` rows of noise, and one without."""
        if self.actor_critic is None:
            return 0
        wanted = self.actor_critic.num_policy_candidates
        return min(wanted, 1 + most if self._takes_candidates else 1)

    def initial_state(self, batch_size: int) -> State:
        """The state before an episode's first obs: h [B, D], s [B, S], action [B, A] (previous), plan [B, W]."""
        belief = self.model.initial_belief(batch_size)
        return {
            "h": belief.h,
            "s": belief.s,
            "action": belief.h.new_zeros(batch_size, self.model.action_size),
            "plan": belief.h.new_zeros(batch_size, self._warm_start_size),
        }

    @property
    def _warm_start_size(self) -> int:
        """W, n or more."""
        return getattr(self.controller, "warm_start_size", self.controller.plan_size)

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
        """The plan from a belief: what the controller finds, or the actor's own where that is predicted to cost less.

        The actor's plans are among the candidates of a search over action sequences. A search in latents cannot take
        them. There its plan without noise alone is held against what the search finds.

        Args:
            belief: [B].
            state: As of `search`.
            generator: As of `Controller.plan`; where there is noise, the actor's is taken from it.
            noise: As of `Controller.plan`.
            **options: As of `Controller.plan`.

        Returns:
            Plans of all beliefs.
        """
        proposals = self._propose(belief, generator, noise)
        if proposals is None:
            return self.search(belief, state, generator, noise, **options)
        if self._takes_candidates:
            options["candidates"] = proposals
        return self._cheaper(belief, self.search(belief, state, generator, noise, **options), proposals[:, 0])

    def search(
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

    def _propose(self, belief: Belief, generator: torch.Generator | None, noise: Tensor | None) -> Tensor | None:
        """The actor's plans [B, P, H, A], the first without noise; None where it has none."""
        # Not len: torch.export would take the batch's size for a constant.
        B, (H, A) = belief.h.shape[0], (self.controller.horizon, self.controller.action_size)
        P = self._num_proposals(self.controller.noise_shape[1])
        if self.actor_critic is None or P == 0:
            return None
        if P == 1:
            eps = belief.h.new_zeros(B, 0, H, A)
        elif noise is None:
            eps = torch.randn(B, P - 1, H, A, generator=generator, device=belief.h.device)
        else:
            eps = noise[0, :, : P - 1].unflatten(-1, (H, A)).expand(B, -1, -1, -1)
        return self.actor_critic.propose(self.model, belief, torch.cat([eps.new_zeros(B, 1, H, A), eps], 1))

    def _cheaper(self, belief: Belief, plan: Plan, proposal: Tensor) -> Plan:
        """The plan, or the proposal [B, H, A] where its predicted cost is less."""
        with torch.no_grad():
            both = torch.stack([plan.actions, proposal], 1)
            cost = predicted_cost(self.model, belief, both, self.controller.score)  # [B, 2]
            is_actors = cost[:, 1] < cost[:, 0]
        actions = torch.where(is_actors[:, None, None], proposal, plan.actions)
        mean = actions.flatten(1) if self._takes_candidates else plan.mean
        return plan._replace(actions=actions, mean=mean, is_actors=is_actors)

    @torch.no_grad()
    def promised_rewards(self, belief: Belief, plan: Plan) -> Tensor | None:
        """The rewards [B, H] that the model predicts for plans; None where they seek something else.

        Args:
            belief: That the plans were made for.
            plan: As `plan` made it.

        Returns:
            Environment units; what follows an episode's end counts by its probability.
        """
        if self.controller.score.objective is not None:
            return None
        return self.model.predict_rewards(belief, plan.actions[:, None])[:, 0]

    def next_state(self, belief: Belief, action: Tensor, plan: Plan | None) -> State:
        """The state after an action was executed.

        Args:
            belief: That the action was chosen in.
            action: [B, A], which may differ from the plan's first by exploration noise.
            plan: None where nothing was planned, so that the next search starts at zero.

        Returns:
            h [B, D], s [B, S], action [B, A] and plan [B, W], where the next search starts.
        """
        if plan is None:
            warm_start = belief.h.new_zeros(belief.h.shape[0], self._warm_start_size)
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
