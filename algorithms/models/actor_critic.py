"""A critic and an actor on beliefs, learned in imagination (Hafner et al. 2020, "Dream to Control", section 3).

    v(h, s)     the expected discounted rewards of the actor from a state on
    u(h, s)     the actor's action, tanh of a network

Axes: M beliefs, L imagined steps, D deterministic, S stochastic, A action. A reward arrives with the state that an
action leads to. Actions lie in [-1, 1].
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.beliefs import Belief
from parsecrl.algorithms.models.layers import mlp

SATURATED = 2.0  # of what a tanh is taken of: tanh(2) = 0.96
SATURATION_WEIGHT = 1e-2  # of the squared excess over it; the returns beside it are of the size 1


class ActorCritic(nn.Module):
    """Critic, its slow copy, and actor; each has two layers of `hidden_size` ELU units.

    The critic's unit is the value of an endless row of rewards of the model's `reward_scale`. One number is then of the
    size 1 for every task, and no target depends on the rewards' unit. A two-hot code on symlog would do the same. It
    would add a softmax over its bins to each candidate of a plan, and its gradient in the state would have steps.

    Args:
        belief_size: D + S.
        action_size: A.
        hidden_size: Units of each hidden layer.
        discount: Of rewards, per decision, in [0, 1).
        std: Standard deviation of the noise on imagined actions, 0 or more.
        num_policy_candidates: Plans of the actor's that a search tries, 0 or more.
    """

    def __init__(
        self,
        belief_size: int,
        action_size: int,
        hidden_size: int = 200,
        discount: float = 0.99,
        std: float = 0.2,
        num_policy_candidates: int = 24,
    ):
        super().__init__()
        self.action_size, self.discount, self.std = action_size, discount, std
        self.num_policy_candidates = num_policy_candidates
        self.critic = mlp([belief_size, hidden_size, hidden_size, 1], nn.ELU)
        self.actor = mlp([belief_size, hidden_size, hidden_size, action_size], nn.ELU)
        # An untrained critic adds nothing to a plan, and an untrained actor does nothing.
        for net in (self.critic, self.actor):
            nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]  # mypy knows it as any module
            nn.init.zeros_(net[-1].bias)  # type: ignore[arg-type]
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def value(self, belief: Belief, reward_scale: Tensor | float) -> Tensor:
        """What is to come.

        Args:
            belief: [...].
            reward_scale: The model's, environment units, > 0.

        Returns:
            The expected discounted rewards from beliefs on [...], environment units.
        """
        return self.critic(torch.cat(belief, -1)).squeeze(-1) * (reward_scale / (1 - self.discount))

    def act(self, belief: Belief, eps: Tensor | None = None) -> Tensor:
        """The actor's action.

        Args:
            belief: [...].
            eps: Standard normal [..., A], of the noise; None for none.

        Returns:
            [..., A] in [-1, 1].
        """
        mean = self.preactivation(belief).tanh()
        return mean if eps is None else clamp_straight_through(mean + self.std * eps)

    def preactivation(self, belief: Belief) -> Tensor:
        """What the actor takes the tanh of.

        Args:
            belief: [...].

        Returns:
            [..., A], any real numbers.
        """
        return self.actor(torch.cat(belief, -1))

    @torch.no_grad()
    def move_slow_critic(self, rate: float) -> None:
        """Move the slow copy towards the critic, by the fraction `rate` of the way, in (0, 1]."""
        for slow, new in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(new, rate)

    @torch.no_grad()
    def propose(self, model: Any, belief: Belief, eps: Tensor) -> Tensor:
        """Plans of the actor's own.

        Args:
            model: An `ImaginationModel`.
            belief: [B].
            eps: Noise of the actions [B, P, H, A], in standard deviations.

        Returns:
            Actions [B, P, H, A].
        """
        B, P = eps.shape[:2]
        rows = Belief(*(part.repeat_interleave(P, 0) for part in belief))
        return imagine(model, self, rows, eps.flatten(0, 1).transpose(0, 1)).action.transpose(0, 1).unflatten(0, (B, P))


def clamp_straight_through(action: Tensor) -> Tensor:
    """Clamp to [-1, 1] with the gradient of no clamp: noise that leads out of the bounds does not end the gradient.

    Args:
        action: [...], any real numbers.

    Returns:
        [...] in [-1, 1].
    """
    return action.clamp(-1.0, 1.0).detach() + (action - action.detach())


class Imagined(NamedTuple):
    """What the actor does in a model, from M beliefs on, for L steps."""

    belief: Belief  # [L + 1, M] the first are those that it began at
    action: Tensor  # [L, M, A] taken in belief[:-1]


def imagine(model: Any, actor_critic: ActorCritic, start: Belief, eps: Tensor) -> Imagined:
    """Let the actor act in a model, differentiable.

    Args:
        model: An `ImaginationModel`.
        actor_critic: Whose actor acts.
        start: [M].
        eps: Standard normal [L, M, A], of the actions' noise.

    Returns:
        States and actions.
    """
    beliefs, actions = [start], []
    for noise in eps.unbind(0):
        actions.append(actor_critic.act(beliefs[-1], noise))
        beliefs.append(model.next_belief(beliefs[-1], actions[-1]))
    h, s = zip(*beliefs, strict=True)
    return Imagined(Belief(torch.stack(h), torch.stack(s)), torch.stack(actions))


def lambda_returns(
    rewards: Tensor, continuation: Tensor, values: Tensor, discount: float, return_lambda: float
) -> Tensor:
    """Returns that mix those of all numbers of steps (Hafner et al. 2020, eq. 6), with termination.

        G_t = r_t + discount c_t ((1 - lambda) v_t + lambda G_{t+1}),  G_{L+1} = v_L

    Args:
        rewards: r [L, ...], that arrive with the states after steps 1..L.
        continuation: c [L, ...], the probability that the episode goes on from these states.
        values: v [L, ...], of these states.
        discount: Per step, in [0, 1].
        return_lambda: 0 looks one step ahead, 1 looks L.

    Returns:
        [L, ...], of the states before each step.
    """
    after, returns = values[-1], []
    for r, c, v in zip(rewards.flip(0), continuation.flip(0), values.flip(0), strict=True):
        after = r + discount * c * torch.lerp(v, after, return_lambda)
        returns.append(after)
    return torch.stack(returns[::-1])


def survival_weights(continuation: Tensor) -> Tensor:
    """The probability that the states before each step are reached: 1, c_1, c_1 c_2, ...

    Args:
        continuation: c [L, ...], the probability that the episode goes on from the states after steps 1..L.

    Returns:
        [L, ...].
    """
    return torch.cat([torch.ones_like(continuation[:1]), continuation[:-1]]).cumprod(0)


def actor_critic_loss(
    model: Any, actor_critic: ActorCritic, start: Belief, goes_on: Tensor, eps: Tensor, return_lambda: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of actor and critic from imagined steps (Hafner et al. 2020, eq. 7 and 8).

    The actor's is minus the returns, through the model (stochastic value gradients, Heess et al. 2015). The critic's is
    the squared error to them. Both weigh a step by the probability that it is reached. The returns end in the slow
    critic's values. The gradient reaches actor and critic; hold the model's parameters still.

    An actor at its bounds everywhere would have no gradient, and would stay there. So its loss counts large arguments
    of the tanh (Andrychowicz et al. 2017, "Hindsight Experience Replay", appendix A).

    Args:
        model: An `ImaginationModel`.
        actor_critic: What learns.
        start: Beliefs [M] without a graph.
        goes_on: [M], 0 where an episode had ended there, else 1.
        eps: Standard normal [L, M, A].
        return_lambda: Of `lambda_returns`.

    Returns:
        The loss [] and its terms (detached): "critic_loss", "actor_loss" in the critic's unit; "imagined_value", the
        mean return in environment units.
    """
    imagined = imagine(model, actor_critic, start, eps)
    after = Belief(imagined.belief.h[1:], imagined.belief.s[1:])
    rewards, continuation = model.rewards_and_continuation(after)
    unit = getattr(model, "reward_scale", 1.0) / (1 - actor_critic.discount)
    values = actor_critic.slow_critic(torch.cat(after, -1)).squeeze(-1)
    returns = lambda_returns(rewards / unit, continuation, values, actor_critic.discount, return_lambda)
    weights = (goes_on * survival_weights(continuation)).detach()
    before = torch.cat([imagined.belief.h[:-1], imagined.belief.s[:-1]], -1).detach()
    error = actor_critic.critic(before).squeeze(-1) - returns.detach()
    excess = (actor_critic.preactivation(start).abs() - SATURATED).clamp(min=0.0).square().mean(-1)
    critic_loss = (weights * error.square()).mean()
    actor_loss = SATURATION_WEIGHT * (goes_on * excess).mean() - (weights * returns).mean()
    terms = {"critic_loss": critic_loss, "actor_loss": actor_loss, "imagined_value": (returns * unit).mean()}
    return critic_loss + actor_loss, {name: term.detach() for name, term in terms.items()}
