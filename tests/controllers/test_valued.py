"""Plans with a value of their last state and an actor's proposals."""

import copy
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.checkpoints.agent import load_agent, save_agent
from parsecrl.algorithms.controllers import FullSpaceController, PlanningAgent, Score, predicted_cost
from parsecrl.algorithms.models import ActorCritic, Belief, Outcome, ReplaySequence, actor_critic_loss
from parsecrl.algorithms.solvers import cem, dcem

OBS, A, H = 5, 2, 4
MODEL = {"deterministic_size": 16, "stochastic_size": 4, "hidden_size": 24}
FULL = {"kind": "full", "horizon": H, "num_samples": 20, "num_elites": 5, "num_iterations": 3}
EMBEDDED = {**FULL, "kind": "embedded", "latent_size": 3}
NARROW = {**FULL, "init_std": 0.1, "num_iterations": 1}  # a search that does not get as far as the actor
VALUE = {"hidden_size": 16, "num_policy_candidates": 6}


@pytest.fixture
def example_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "example_plugin"))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "parsec_example"]:
        del sys.modules[name]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_agent(controller: dict, value: dict | None = VALUE, terminates: bool = True) -> PlanningAgent:
    """An agent whose critic, actor and continuation are not what they begin as."""
    torch.manual_seed(0)
    agent = PlanningAgent(OBS, A, MODEL, controller, {"hidden_size": 24}, value)
    terminated = torch.zeros(2, 8, dtype=torch.bool)
    terminated[:, 5] = terminates
    obs, reward = torch.randn(2, 8, OBS, generator=seeded(1)), torch.randn(2, 8, generator=seeded(2))
    sequence = ReplaySequence(obs, torch.zeros(2, 8, A), reward, torch.zeros(2, 8, dtype=torch.bool), terminated)
    agent.model.update_statistics(sequence)
    if agent.actor_critic is not None:
        with torch.no_grad():
            for net in (agent.actor_critic.critic, agent.actor_critic.actor):
                net[-1].weight.normal_(generator=seeded(3))
    return agent


def some_belief(B: int) -> Belief:
    return Belief(torch.randn(B, 16, generator=seeded(4)).tanh(), torch.randn(B, 4, generator=seeded(5)))


def noise_of(agent: PlanningAgent) -> Tensor:
    T, N, n = agent.controller.noise_shape
    return torch.randn(T, 1, N, n, generator=seeded(6))


# Without a value


@pytest.mark.parametrize(("controller", "solver"), [(FULL, cem), (EMBEDDED, dcem)])
def test_without_a_value_a_plan_is_the_search_of_the_predicted_rewards_bit_by_bit(controller, solver):
    agent, belief = make_agent(controller, None), some_belief(3)
    plan = agent.plan(belief, agent.initial_state(3), seeded(7))
    mean = torch.zeros(3, agent.controller.plan_size)
    found = solver(
        lambda x: -agent.model.predict_rewards(belief, agent.controller.decode(x, belief)).sum(-1),
        init_mean=mean,
        init_std=torch.full_like(mean, agent.controller.init_std),
        bounds=(-1.0, 1.0),
        generator=seeded(7),
        **{name: controller[name] for name in ("num_samples", "num_elites", "num_iterations")},
    )
    assert torch.equal(plan.mean, found.mean)
    assert torch.equal(plan.actions, agent.controller.decode(found.mean, belief))
    assert plan.is_actors is None
    assert agent.trajectories == 60


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_a_value_leaves_the_weights_of_model_and_decoder_as_they_begin(controller):
    plain, valued = make_agent(controller, None).state_dict(), make_agent(controller).state_dict()
    assert all(torch.equal(valued[name], weight) for name, weight in plain.items())
    assert {name.split(".")[0] for name in valued.keys() - plain.keys()} == {"actor_critic"}


# The score


@pytest.mark.parametrize("terminates", [True, False])
def test_the_score_is_what_step_by_step_prediction_adds_up_to(terminates):
    """Rewards times the probability that they are reached, and the value of the last state times that of getting on."""
    agent, belief = make_agent(FULL, terminates=terminates), some_belief(2)
    actions = 2 * torch.rand(2, 7, H, A, generator=seeded(8)) - 1
    state = Belief(*(part[:, None].expand(-1, 7, -1) for part in belief))
    reached, score = torch.ones(2, 7), torch.zeros(2, 7)
    for t in range(H):
        state = agent.model.next_belief(state, actions[:, :, t])
        reward, goes_on = agent.model.rewards_and_continuation(state)
        score = score + reached * reward
        reached = reached * goes_on
    assert (reached < 1).all() == terminates
    score = score + reached * agent.actor_critic.value(state, agent.model.reward_scale)
    cost = predicted_cost(agent.model, belief, actions, agent.controller.score)
    torch.testing.assert_close(cost, -score, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # another form of the rollout
        torch.testing.assert_close(
            predicted_cost(agent.model, belief, actions, agent.controller.score), cost.detach(), rtol=1e-4, atol=1e-4
        )
    plain = predicted_cost(agent.model, belief, actions)
    torch.testing.assert_close(plain, -agent.model.predict_outcome(belief, actions).rewards.sum(-1))


def test_a_copy_of_an_agent_counts_with_its_own_critic():
    agent, belief = make_agent(FULL), some_belief(2)
    other = copy.deepcopy(agent)
    assert other.controller.score.value is other.actor_critic
    actions = torch.zeros(2, 3, H, A)
    before = predicted_cost(other.model, belief, actions, other.controller.score)
    with torch.no_grad():
        agent.actor_critic.critic[-1].bias.add_(1.0)
    assert torch.equal(predicted_cost(other.model, belief, actions, other.controller.score), before)


def test_the_gradient_of_a_plan_passes_the_value():
    """What fine-tunes through the planner: with rewards that say nothing, the value alone moves it."""
    agent, belief = make_agent({**EMBEDDED, "num_iterations": 2}), some_belief(2)
    with torch.no_grad():
        agent.model.reward_net[-1].weight.zero_()
    plan = agent.search(belief, agent.initial_state(2), noise=noise_of(agent))
    for group in (agent.decoder.parameters(), agent.model.transition_parameters()):
        found = torch.autograd.grad(plan.actions.sum(), list(group), retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in found)


# Proposals


def give_a_good_actor(agent: PlanningAgent) -> None:
    """The drawn weights of the actor lead where the drawn critic is low; these lead where it is high."""
    with torch.no_grad():
        agent.actor_critic.actor[-1].weight.neg_()


def cost_of(agent: PlanningAgent, belief: Belief, actions: Tensor) -> Tensor:
    """[B], of [B, H, A]."""
    return predicted_cost(agent.model, belief, actions[:, None], agent.controller.score)[:, 0]


@pytest.mark.parametrize("controller", [NARROW, EMBEDDED])
def test_a_plan_never_costs_more_than_the_actors_and_an_embedded_one_never_more_than_without(controller):
    # Of the actor's plans one alone is among the candidates: the mean of the elites stays behind it.
    value = {**VALUE, "num_policy_candidates": 1} if controller is NARROW else VALUE
    agent, belief = make_agent(controller, value), some_belief(200)
    if controller is NARROW:
        give_a_good_actor(agent)
    with torch.no_grad():
        noise = noise_of(agent)
        plan = agent.plan(belief, agent.initial_state(200), noise=noise)
        searched = agent.search(belief, agent.initial_state(200), noise=noise)
        eps = torch.zeros(200, 1, H, A)
        actors = agent.actor_critic.propose(agent.model, belief, eps)[:, 0]
        cost, of_actor, of_search = (cost_of(agent, belief, x) for x in (plan.actions, actors, searched.actions))
    assert (cost <= of_actor + 1e-5).all()
    assert (plan.actions[plan.is_actors] == actors[plan.is_actors]).all()
    if controller is EMBEDDED:
        assert 0 < int(plan.is_actors.sum()) < 200
        assert (cost <= of_search + 1e-5).all()
        torch.testing.assert_close(plan.actions[~plan.is_actors], searched.actions[~plan.is_actors])
        assert torch.equal(plan.mean, searched.mean)
    else:
        assert torch.equal(plan.mean, plan.actions.flatten(1))
        assert cost.mean() <= of_search.mean()


def test_candidates_of_the_actor_never_make_the_elites_of_equal_draws_cost_more():
    agent, belief = make_agent(NARROW), some_belief(50)
    give_a_good_actor(agent)
    noise, options = noise_of(agent), {"keep_history": True}
    with torch.no_grad():
        firsts = [
            plan(belief, agent.initial_state(50), noise=noise, **options).history[0]
            for plan in (agent.plan, agent.search)
        ]
    for first in firsts:
        assert torch.equal(first.samples[:, :20], firsts[0].samples[:, :20])
    assert firsts[0].samples.shape[1] == 20 + VALUE["num_policy_candidates"]
    with_actors, without = (first.costs.topk(5, largest=False).values for first in firsts)
    assert (with_actors <= without + 1e-5).all()
    assert (with_actors < without - 1e-3).any()


@pytest.mark.parametrize(("controller", "count", "expected"), [(FULL, 6, 60 + 14), (EMBEDDED, 6, 63), (FULL, 0, 60)])
def test_what_is_rolled_out_for_a_decision_is_counted(controller, count, expected, monkeypatch):
    agent, belief = make_agent(controller, {**VALUE, "num_policy_candidates": count}), some_belief(1)
    rolled = []
    outcome, step = agent.model.predict_outcome, agent.model.next_belief

    def counted_outcome(belief, actions):
        rolled.append(actions.shape[1])
        return outcome(belief, actions)

    def counted_step(belief, action):
        rolled.append(len(action) / H)
        return step(belief, action)

    monkeypatch.setattr(agent.model, "predict_outcome", counted_outcome)
    monkeypatch.setattr(agent.model, "next_belief", counted_step)
    agent.plan(belief, agent.initial_state(1), seeded(0))
    assert sum(rolled) == expected == agent.trajectories


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_equal_noise_gives_equal_plans_and_rows_do_not_see_each_other(controller):
    agent, belief, noise = make_agent(controller), some_belief(4), None
    with torch.no_grad():
        noise = noise_of(agent)
        plans = [agent.plan(belief, agent.initial_state(4), noise=noise).actions for _ in range(2)]
        alone = agent.plan(Belief(belief.h[2:3], belief.s[2:3]), agent.initial_state(1), noise=noise).actions
    assert torch.equal(*plans)
    torch.testing.assert_close(plans[0][2:3], alone, rtol=1e-3, atol=1e-4)


def test_an_actors_plan_is_where_the_next_search_begins():
    for controller in (FULL, EMBEDDED):
        agent, belief = make_agent({**controller, "warm_start": True}), some_belief(200)
        plan = agent.plan(belief, agent.initial_state(200), noise=noise_of(agent))
        rows = plan.is_actors
        start = agent.next_state(belief, plan.actions[:, 0], plan)["plan"]
        begun = agent.controller.decode(start, belief)[:, :-1]
        if controller is FULL:
            assert torch.equal(begun[rows], plan.actions[rows, 1:])
        else:  # the nearest of the latent points that are looked at
            points = agent.controller.decode(agent.controller.points.expand(200, -1, -1), belief)[:, :, :-1]
            distance = (points - plan.actions[:, None, 1:]).square().sum((-1, -2)).amin(1)
            chosen = (begun - plan.actions[:, 1:]).square().sum((-1, -2))
            assert (chosen[rows] <= distance[rows] + 1e-5).all()


# On disk, and what is refused


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_an_agent_with_a_value_acts_as_before_from_its_checkpoint(tmp_path, controller):
    agent = make_agent(controller)
    groups = {"world_model": MODEL, "controller": controller, "decoder": {"hidden_size": 24}, "value": VALUE}
    save_agent(tmp_path, agent, {"env": {"id": "any"}, **groups})
    loaded, description = load_agent(tmp_path)
    assert description["value"] == VALUE
    obs = torch.randn(3, OBS, generator=seeded(9))
    for policy in (agent, loaded):
        policy.eval()
    actions = [policy.act(policy.initial_state(3), obs, seeded(1))[0] for policy in (agent, loaded)]
    assert torch.equal(*actions)
    with torch.no_grad():
        loaded.actor_critic.critic[0].weight.mul_(-3)
        loaded.actor_critic.actor[0].weight.mul_(-3)
    assert not torch.equal(actions[0], loaded.act(loaded.initial_state(3), obs, seeded(1))[0])


def test_what_cannot_have_a_value_is_refused(example_on_path):
    flat = {"kind": "parsec_example.gru_model:GRUModel", "options": {"hidden_size": 8}}
    with pytest.raises(ValueError, match=r"value needs a world model with .*, got GRUModel without predict_outcome"):
        PlanningAgent(3, 1, flat, {**FULL, "num_iterations": 1}, {}, VALUE)
    cost = {**FULL, "objective": "parsec_example.cost:upright"}
    with pytest.raises(ValueError, match=r"value is of rewards, and controller\.objective puts another cost"):
        PlanningAgent(3, 1, MODEL, cost, {}, VALUE)


@pytest.mark.parametrize("asks", [True, False])
def test_a_controller_of_other_code_must_ask_the_value(asks, monkeypatch, example_on_path):
    import parsec_example.random_shooting as example

    if not asks:
        plain = example.predicted_cost
        monkeypatch.setattr(
            example, "predicted_cost", lambda model, belief, actions, score: plain(model, belief, actions)
        )
    controller = {"kind": "parsec_example.random_shooting:RandomShooting", "horizon": H, "options": {"num_samples": 16}}
    if asks:
        agent = PlanningAgent(OBS, A, MODEL, controller, {}, VALUE)
        assert agent.controller.score.value is agent.actor_critic
        plan = agent.plan(some_belief(3), agent.initial_state(3), seeded(0))
        assert plan.is_actors.shape == (3,)
    else:
        with pytest.raises(ValueError, match="value is never asked by RandomShooting"):
            PlanningAgent(OBS, A, MODEL, controller, {}, VALUE)


# A task that needs it


class Corridor:
    """A place on a line, moved by 0.2 u. A small reward lies at -0.4, one ten times as large beyond 1.6.

    From 0 the large one is 8 decisions away, the small one 2. A belief is h = place, and no s.
    """

    reward_scale = 0.3

    def next_belief(self, belief: Belief, action: Tensor) -> Belief:
        return Belief((belief.h + 0.2 * action).clamp(-2, 2), belief.s)

    def rewards_and_continuation(self, belief: Belief) -> tuple[Tensor, Tensor]:
        x = belief.h.squeeze(-1)
        reward = 0.1 * torch.exp(-((x + 0.4) ** 2) / 0.05) + torch.sigmoid((x - 1.6) / 0.03)
        return reward, torch.ones_like(reward)

    def predict_outcome(self, belief: Belief, actions: Tensor) -> Outcome:
        state = Belief(*(part[:, None].expand(-1, actions.shape[1], -1) for part in belief))
        rewards = []
        for u in actions.unbind(2):
            state = self.next_belief(state, u)
            rewards.append(self.rewards_and_continuation(state)[0])
        return Outcome(torch.stack(rewards, -1), torch.ones(actions.shape[:2]), state)

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        return self.predict_outcome(belief, actions).rewards


def place(x: Tensor) -> Belief:
    return Belief(x[:, None], torch.zeros(len(x), 0))


@pytest.mark.learn
def test_a_reward_beyond_the_horizon_is_found_with_a_value_and_not_without():
    model, draw = Corridor(), seeded(0)
    torch.manual_seed(0)
    actor_critic = ActorCritic(1, 1, hidden_size=32, discount=0.95)
    optimiser = torch.optim.Adam(actor_critic.parameters(), 3e-3)
    for _ in range(600):
        start, eps = place(4 * torch.rand(64, generator=draw) - 2), torch.randn(5, 64, 1, generator=draw)
        loss, _ = actor_critic_loss(model, actor_critic, start, torch.ones(64), eps, 0.95)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        actor_critic.move_slow_critic(0.05)
    controller = FullSpaceController(3, 1, num_samples=50, num_elites=8, num_iterations=3)
    reached = {}
    for name, score in {"none": Score(), "value": Score(value=actor_critic)}.items():
        controller.score, belief = score, place(torch.zeros(1))
        with torch.no_grad():
            for _ in range(20):
                belief = model.next_belief(belief, controller.plan(model, belief, generator=draw).actions[:, 0])
        reached[name] = float(belief.h)
    assert reached["none"] == pytest.approx(-0.4, abs=0.1)
    assert reached["value"] > 1.6
