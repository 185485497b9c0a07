"""The value gradient through the planner: its number, its paths, and that it learns."""

import copy

import pytest
import torch
from torch import nn

from parsecrl.algorithms.controllers import EmbeddedController, PlanningAgent
from parsecrl.algorithms.controllers.value_gradient import PARTS, action_value, planner_parameters, value_gradient_loss
from parsecrl.algorithms.models import ActionDecoder, ActorCritic, Belief

MODEL = {"deterministic_size": 6, "stochastic_size": 3, "hidden_size": 8, "ensemble": 2}
CONTROLLER = {"kind": "embedded", "latent_size": 2, "horizon": 3, "num_samples": 12, "num_elites": 3}
CONTROLLER |= {"num_iterations": 3, "pessimism": 0.1}
M = 4


def make_agent(terminates=True, **controller):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = PlanningAgent(3, 2, MODEL, {**CONTROLLER, **controller}, {"hidden_size": 8}, {"hidden_size": 8})
        nn.init.normal_(agent.actor_critic.critic[-1].weight)
        with torch.no_grad():
            agent.model.reward_norm.mean.fill_(0.7)
            agent.model.reward_norm.var.fill_(4.0)
            agent.model.steps.fill_(100.0)
            agent.model.terminations.fill_(8.0 * terminates)
            agent.model._terminates = None
    return agent.double()


def draws(agent):
    generator = torch.Generator().manual_seed(1)
    belief = Belief(*(torch.randn(M, n, generator=generator, dtype=torch.float64) for n in (6, 3)))
    iterations, N, n = agent.controller.noise_shape
    return belief, torch.randn(iterations, 1, N, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("terminates", [True, False])
def test_the_value_of_an_action_is_its_reward_and_what_follows(terminates):
    agent = make_agent(terminates)
    belief, _ = draws(agent)
    action = torch.linspace(-1, 1, 2 * M, dtype=torch.float64).view(M, 2)
    outcome = agent.model.predict_outcome(belief, action[:, None, None])
    last = Belief(outcome.last.h[:, 0], outcome.last.s[:, 0])
    after = agent.actor_critic.value(last, agent.model.reward_scale)
    expected = outcome.rewards[:, 0, 0] + 0.99 * outcome.survival[:, 0] * after
    torch.testing.assert_close(action_value(agent.model, agent.actor_critic, belief, action), expected)
    assert ((outcome.survival < 1) == terminates).all()


@pytest.mark.parametrize("selection", ["lml", "softmax"])
@pytest.mark.parametrize("part", PARTS)
def test_the_gradient_equals_finite_differences_of_the_planner_alone(part, selection):
    """The model and the critic that judge are copies: they stay where they are while the planner's parts move."""
    agent = make_agent(selection=selection)
    judge, (belief, noise) = copy.deepcopy(agent), draws(agent)
    counts = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)

    def mean_value():
        with torch.no_grad():
            action = agent.controller.plan(agent.model, belief, noise=noise).actions[:, 0]
            value = action_value(judge.model, judge.actor_critic, belief, action)
            return float(-(counts * value).sum() / 3 / judge.model.reward_scale)

    loss, terms = value_gradient_loss(agent, belief, counts, [part], noise=noise)
    assert float(loss.detach()) == pytest.approx(mean_value(), rel=1e-12)
    assert float(terms["policy_value"]) == pytest.approx(-mean_value() * float(agent.model.reward_scale), rel=1e-12)
    parameters = planner_parameters(agent, [part])
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        predicted = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
        ends, step = [], 1e-6
        for sign in (1, -2):  # to +step, then to -step
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(sign * step * d)
            ends.append(mean_value())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(step * d)
        assert float(predicted) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
        assert abs(float(predicted)) > 1e-6


@pytest.mark.parametrize("parts", [["reward"], ["transition"], ["decoder"], ["decoder", "reward"]])
def test_the_gradient_reaches_the_named_parts_and_nothing_else(parts):
    agent = make_agent()
    needed = {name for name, p in agent.named_parameters() if p.requires_grad}
    belief, noise = draws(agent)
    value_gradient_loss(agent, belief, torch.ones(M), parts, noise=noise)[0].backward()
    wanted = {id(p) for p in planner_parameters(agent, parts)}
    reached = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in agent.named_parameters() if id(p) in wanted}
    assert {name for name, p in agent.named_parameters() if p.requires_grad} == needed
    for part in parts:
        assert any((p.grad != 0).any() for p in planner_parameters(agent, [part]))


def test_where_an_episode_had_ended_nothing_counts():
    agent = make_agent()
    belief, noise = draws(agent)
    loss, _ = value_gradient_loss(agent, belief, torch.zeros(M), ["decoder"], noise=noise)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((p.grad == 0).all() for p in agent.decoder.parameters())


class Line(nn.Module):
    """A point moves by half of the action; the reward is minus its square, so that the best action is -2 h."""

    reward_scale = 1.0

    def next_belief(self, belief, action):
        return Belief(belief.h + 0.5 * action, belief.s)

    def rewards_and_continuation(self, belief):
        reward = -belief.h.square().squeeze(-1)
        return reward, torch.ones_like(reward)

    def predict_rewards(self, belief, actions):
        h = belief.h[:, None] + 0.5 * actions.squeeze(-1).cumsum(-1)
        return -h.square()

    def reward_parameters(self):
        return []

    transition_parameters = reward_parameters


def test_a_decoder_that_reaches_no_good_action_learns_to():
    torch.manual_seed(0)
    agent = nn.Module()
    agent.model, agent.actor_critic = Line(), ActorCritic(1, 1, hidden_size=4)
    decoder = ActionDecoder(1, 2, 1, hidden_size=16, init_scale=0.3, conditioning="belief", belief_size=1)
    agent.controller = EmbeddedController(decoder, num_samples=20, num_elites=4, num_iterations=3)
    agent.decoder = decoder
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    errors = []
    for _ in range(200):
        h = torch.rand(32, 1, generator=generator) - 0.5
        belief = Belief(h, h.new_zeros(32, 0))
        loss, _ = value_gradient_loss(agent, belief, torch.ones(32), ["decoder"], generator)
        action = agent.controller.plan(agent.model, belief, generator=generator).actions[:, 0]
        errors.append(float((action + 2 * h).abs().mean()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(errors[:5]) / 5 > 0.3
    assert sum(errors[-5:]) / 5 < 0.1
