"""The value gradient through a planner: its first action as a policy, off-policy from replayed beliefs.

    L = - mean over b of Q(b, pi(b)) / reward scale,    pi(b) the first action of the plan from b
    Q(b, a) = r(b') + discount c(b') v(b'),             b' the state that a leads to, c the probability to go on

The gradient reaches the planner's parts through pi alone. Q is of a model and a critic that are held still: its value
would else grow by a better opinion of the same actions. As SVG(1), Heess et al. 2015, "Learning Continuous Control
Policies by Stochastic Value Gradients", with the plan of the DCEM paper (section 4.2) as the policy.

Axes: M beliefs, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.agent import PlanningAgent
from parsecrl.algorithms.controllers.score import cost_scale
from parsecrl.algorithms.models import ActorCritic, Belief
from parsecrl.algorithms.models.frozen import frozen

PARTS = ("reward", "transition", "decoder")


def planner_parameters(agent: PlanningAgent, parts: Sequence[str]) -> list[nn.Parameter]:
    """What a gradient through the plans may change.

    Args:
        agent: That plans.
        parts: Some of PARTS.

    Returns:
        The parameters, part by part.
    """
    by_part = {
        "reward": agent.model.reward_parameters(),
        "transition": agent.model.transition_parameters(),
        "decoder": [] if agent.decoder is None else list(agent.decoder.parameters()),
    }
    return [parameter for part in PARTS if part in parts for parameter in by_part[part]]


def action_value(model: Any, actor_critic: ActorCritic, belief: Belief, action: Tensor) -> Tensor:
    """Q: the predicted reward of an action and the discounted value of what follows, weighed by survival.

    Args:
        model: An `ImaginationModel`.
        actor_critic: Whose critic judges what follows.
        belief: [M].
        action: [M, A] in [-1, 1].

    Returns:
        [M], environment units.
    """
    after = model.next_belief(belief, action)
    reward, goes_on = model.rewards_and_continuation(after)
    return reward + actor_critic.discount * goes_on * actor_critic.value(after, cost_scale(model))


def value_gradient_loss(
    agent: PlanningAgent,
    belief: Belief,
    counts: Tensor,
    parts: Sequence[str],
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the value of the planner's first actions; the gradient reaches the named parts, through the plan alone.

    Args:
        agent: Has an actor-critic, and a controller whose plans are differentiable in `parts`.
        belief: [M], without a graph.
        counts: [M], 0 where an episode had ended, else 1.
        parts: Some of PARTS.
        generator: Of the plan's draws.
        noise: As of `Controller.plan`, in place of the generator's.

    Returns:
        The loss [], in units of the model's `reward_scale`, and its terms (detached): "policy_loss", the same;
        "policy_value", the mean of Q in environment units.
    """
    actor_critic = agent.actor_critic
    assert actor_critic is not None
    with frozen(agent, but=planner_parameters(agent, parts)):
        action = agent.controller.plan(agent.model, belief, generator=generator, noise=noise).actions[:, 0]
    with frozen(agent):
        value = action_value(agent.model, actor_critic, belief, action)
    mean = (counts * value).sum() / counts.sum().clamp(min=1)
    loss = -mean / cost_scale(agent.model)
    return loss, {"policy_loss": loss.detach(), "policy_value": mean.detach()}
