"""Returns and weights against closed forms and enumeration; critic and actor against the Riccati solution."""

import itertools

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.models import ActorCritic, Belief, actor_critic_loss
from parsecrl.algorithms.models.actor_critic import imagine, lambda_returns, survival_weights


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearQuadratic:
    """x' = a x + b u; the reward -(x'^2 + rho u^2) arrives with x'; an episode goes on with probability c.

    A belief is h = x and s = the action that led there. The value is -P x^2 with Q = 1 + discount c P,
    P = Q a^2 rho / (rho + Q b^2), and the action -Q a b x / (rho + Q b^2) (Riccati's equation of one variable).
    """

    a, b, rho, c = 1.0, 0.5, 0.1, 0.9

    def next_belief(self, belief: Belief, action: Tensor) -> Belief:
        return Belief(self.a * belief.h + self.b * action, action)

    def rewards_and_continuation(self, belief: Belief) -> tuple[Tensor, Tensor]:
        reward = -(belief.h.square() + self.rho * belief.s.square()).squeeze(-1)
        return reward, torch.full_like(reward, self.c)

    def solution(self, discount: float) -> tuple[float, float]:
        """P, and the action as a multiple of x."""
        P = 0.0
        for _ in range(200):
            Q = 1 + discount * self.c * P
            P = Q * self.a**2 * self.rho / (self.rho + Q * self.b**2)
        return P, -Q * self.a * self.b / (self.rho + Q * self.b**2)


def states(x: Tensor) -> Belief:
    return Belief(x[:, None], torch.zeros(len(x), 1))


def learn(model, actor_critic: ActorCritic, parameters, updates: int, steps: int = 5) -> None:
    draw, optimiser = seeded(1), torch.optim.Adam(parameters, 3e-3)
    for _ in range(updates):
        x = 1.2 * torch.rand(64, generator=draw) - 0.6
        eps = torch.randn(steps, 64, 1, generator=draw)
        loss, _ = actor_critic_loss(model, actor_critic, states(x), torch.ones(64), eps, 0.9)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        actor_critic.move_slow_critic(0.05)


# Closed forms and enumeration


@pytest.mark.parametrize("return_lambda", [0.0, 0.6, 1.0])
def test_lambda_returns_equal_the_mixture_of_n_step_returns(return_lambda):
    """G = (1 - lambda) sum_n lambda^(n-1) G^n + lambda^(L-1) G^L, of each start, with termination in the discount."""
    L, discount = 5, 0.9
    r, v = torch.randn(2, L, 3, generator=seeded(0), dtype=torch.float64)
    c = torch.rand(L, 3, generator=seeded(1), dtype=torch.float64)
    found = lambda_returns(r, c, v, discount, return_lambda)
    for t in range(L):
        mixture = torch.zeros(3, dtype=torch.float64)
        for n in range(1, L - t + 1):
            reach, G = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
            for k in range(n):
                G = G + reach * r[t + k]
                reach = reach * discount * c[t + k]
            weight = return_lambda ** (n - 1) * (1 if n == L - t else 1 - return_lambda)
            mixture = mixture + weight * (G + reach * v[t + n - 1])
        torch.testing.assert_close(found[t], mixture)


def test_lambda_returns_of_equal_rewards_are_a_geometric_sum():
    returns = lambda_returns(torch.ones(4, 1), torch.ones(4, 1), torch.full((4, 1), 10.0), 0.9, 0.7)
    torch.testing.assert_close(returns, torch.full((4, 1), 10.0))  # 10 = 1 / (1 - 0.9) is the value of all states


def test_survival_weights_equal_enumeration():
    """The share of outcomes in which no step before ended the episode."""
    c = torch.rand(4, 2, generator=seeded(0), dtype=torch.float64)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    for outcome in itertools.product((True, False), repeat=4):
        probability = torch.stack([c[t] if on else 1 - c[t] for t, on in enumerate(outcome)]).prod(0)
        for t in range(4):
            expected[t] += probability * all(outcome[:t])
    torch.testing.assert_close(survival_weights(c), expected)


def test_what_came_after_an_end_does_not_count():
    """An episode that had ended where imagination begins moves neither critic nor actor."""
    model, actor_critic = LinearQuadratic(), make()
    losses = []
    for goes_on in (torch.zeros(4), torch.tensor([1.0, 0, 1, 0]), torch.ones(4)):
        x = torch.tensor([0.5, 0.5, -0.5, -0.5])
        loss, _ = actor_critic_loss(model, actor_critic, states(x), goes_on, torch.zeros(3, 4, 1), 0.9)
        losses.append(float(loss.detach()))
    assert losses[0] == 0
    assert losses[1] == pytest.approx(losses[2] / 2)


def make(discount: float = 0.9, **options) -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(2, 1, hidden_size=32, discount=discount, **options)


# Laws


def test_each_loss_moves_its_own_part():
    model, actor_critic = LinearQuadratic(), make()
    with torch.no_grad():
        for net in (actor_critic.critic, actor_critic.actor):
            net[-1].weight.normal_(generator=seeded(3))
        actor_critic.move_slow_critic(1.0)
    start, eps = states(torch.rand(6, generator=seeded(4))), torch.randn(3, 6, 1, generator=seeded(5))
    loss, terms = actor_critic_loss(model, actor_critic, start, torch.ones(6), eps, 0.9)
    assert float(loss.detach()) == pytest.approx(float(terms["critic_loss"] + terms["actor_loss"]))
    loss.backward()
    together = {name: p.grad.clone() for name, p in actor_critic.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in together} == {"critic", "actor"}
    # The critic's own gradient is that of its squared error to fixed returns: the actor has none of it.
    before = imagine(model, actor_critic, start, eps)
    features = torch.cat([before.belief.h[:-1], before.belief.s[:-1]], -1).detach()
    after = Belief(before.belief.h[1:], before.belief.s[1:])
    r, c = model.rewards_and_continuation(after)
    v = actor_critic.slow_critic(torch.cat(after, -1)).squeeze(-1)
    returns = lambda_returns(r * (1 - 0.9), c, v, 0.9, 0.9)
    error = (survival_weights(c) * (actor_critic.critic(features).squeeze(-1) - returns.detach()).square()).mean()
    for p, g in zip(
        actor_critic.critic.parameters(),
        torch.autograd.grad(error, list(actor_critic.critic.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(p.grad, g)
    gain = (survival_weights(c) * returns).mean()
    for p, g in zip(
        actor_critic.actor.parameters(), torch.autograd.grad(-gain, list(actor_critic.actor.parameters())), strict=True
    ):
        torch.testing.assert_close(p.grad, g)


def test_the_rewards_unit_changes_no_gradient_and_scales_the_value():
    gradients, values = [], []
    for unit in (1.0, 1e4):
        model, actor_critic = LinearQuadratic(), make()
        model.reward_scale = torch.tensor(unit)
        plain = model.rewards_and_continuation
        model.rewards_and_continuation = lambda belief, u=unit, f=plain: (u * f(belief)[0], f(belief)[1])
        learn(model, actor_critic, actor_critic.parameters(), 3)
        gradients.append([p.grad for p in actor_critic.parameters() if p.grad is not None])
        values.append(actor_critic.value(states(torch.tensor([0.5])), model.reward_scale))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(values[1], 1e4 * values[0], rtol=1e-3, atol=1e-6)


def test_an_untrained_critic_adds_nothing_and_an_untrained_actor_does_nothing():
    actor_critic, belief = make(), states(torch.tensor([0.5, -2.0]))
    assert torch.equal(actor_critic.value(belief, 3.0), torch.zeros(2))
    assert torch.equal(actor_critic.act(belief), torch.zeros(2, 1))
    assert actor_critic.act(belief, torch.full((2, 1), 100.0)).max() == 1


def test_proposals_are_what_the_actor_does_step_by_step():
    model, actor_critic = LinearQuadratic(), make(std=0.3)
    with torch.no_grad():
        actor_critic.actor[-1].weight.normal_(generator=seeded(3))
    belief, eps = states(torch.tensor([0.5, -0.2])), torch.randn(2, 3, 4, 1, generator=seeded(2))
    proposed = actor_critic.propose(model, belief, eps)
    assert proposed.shape == (2, 3, 4, 1)
    for b, p in itertools.product(range(2), range(3)):
        x = Belief(*(part[b : b + 1] for part in belief))
        for t in range(4):
            u = actor_critic.act(x, eps[b : b + 1, p, t])
            torch.testing.assert_close(proposed[b, p, t], u[0])
            x = model.next_belief(x, u)


# Learning


@pytest.mark.learn
def test_the_critic_finds_the_value_of_a_fixed_actor():
    """An actor that does nothing: x keeps its size, and the value is -x^2 / (1 - discount c)."""
    model, actor_critic = LinearQuadratic(), make(std=0.0)
    learn(model, actor_critic, list(actor_critic.critic.parameters()), 600)
    x = torch.linspace(-0.5, 0.5, 11)
    with torch.no_grad():
        value = actor_critic.value(states(x), 1.0)
    torch.testing.assert_close(value, -x.square() / (1 - 0.9 * 0.9), atol=0.06, rtol=0)  # of 1.3 at most


@pytest.mark.learn
def test_critic_and_actor_find_the_riccati_solution():
    model, actor_critic = LinearQuadratic(), make(std=0.0)
    learn(model, actor_critic, list(actor_critic.parameters()), 1200)
    P, gain = model.solution(0.9)
    x = torch.linspace(-0.5, 0.5, 11)
    with torch.no_grad():
        action = actor_critic.act(states(x)).squeeze(-1)
        value = actor_critic.value(states(x), 1.0)
    torch.testing.assert_close(action, gain * x, atol=0.08, rtol=0)  # of 0.75 at most
    torch.testing.assert_close(value, -P * x.square(), atol=0.02, rtol=0)


@pytest.mark.learn
@pytest.mark.parametrize("bias", [-20.0, 20.0])
def test_an_actor_at_its_bounds_comes_back(bias):
    """There the tanh has no gradient left in float32."""
    actor_critic = make(std=0.2)
    with torch.no_grad():
        actor_critic.actor[-1].bias.fill_(bias)
        x = torch.linspace(-0.5, 0.5, 11)
        assert actor_critic.act(states(x)).abs().min() == 1
    learn(LinearQuadratic(), actor_critic, list(actor_critic.parameters()), 1200)
    with torch.no_grad():
        action = actor_critic.act(states(x)).squeeze(-1)
    torch.testing.assert_close(action, LinearQuadratic().solution(0.9)[1] * x, atol=0.15, rtol=0)  # of 0.75 at most
