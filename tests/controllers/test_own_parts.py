"""Controllers, world models and costs of users' own: what they must have, and what is said of those that lack it."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import load_agent, save_agent
from parsecrl.algorithms.controllers import (
    Controller,
    EmbeddedController,
    PlanningAgent,
    Score,
    make_controller,
    predicted_cost,
)
from parsecrl.algorithms.controllers.own_parts import _Trial, _try_controller, _try_world_model, parts
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief, WorldModel

OBS, A, H = 3, 1, 4
SHOOTING = {"kind": "parsec_example.random_shooting:RandomShooting", "horizon": H, "options": {"num_samples": 16}}
MODEL = {"kind": "parsec_example.gru_model:GRUModel", "options": {"hidden_size": 8}}
RSSM_SIZES = {"deterministic_size": 8, "stochastic_size": 3, "hidden_size": 8}
FULL = {"kind": "full", "horizon": H, "num_samples": 16, "num_elites": 4, "num_iterations": 2}
EMBEDDED = {**FULL, "kind": "embedded", "latent_size": 2}
COST = {"objective": "parsec_example.cost:upright"}

# Parts that each break one rule, by changing what the example does right.
BROKEN = """
import torch
from parsec_example.gru_model import GRUModel
from parsec_example.random_shooting import RandomShooting
from parsecrl.algorithms.controllers import Score

class NoLoss(GRUModel):
    @property
    def loss(self): raise AttributeError

class FlatRewards(GRUModel):
    def predict_rewards(self, belief, actions): return super().predict_rewards(belief, actions).sum(-1)

class NaNRewards(GRUModel):
    def predict_rewards(self, belief, actions): return super().predict_rewards(belief, actions) / 0 * 0

class DetachedLoss(GRUModel):
    def loss(self, *arguments):
        loss, terms, belief = super().loss(*arguments)
        return loss.detach(), terms, belief

class Raises(GRUModel):
    def filter_sequence(self, sequence, generator=None): raise IndexError("no such step")

class WrongSize(GRUModel):
    def __init__(self, obs_size, action_size):
        super().__init__(obs_size, action_size)
        self.obs_size = 7

class TooFar(RandomShooting):
    def decode(self, x, belief): return 3 * super().decode(x, belief) + 2

class Transposed(RandomShooting):
    def decode(self, x, belief): return super().decode(x, belief).transpose(-1, -2)

class NoHistory(RandomShooting):
    def plan(self, *arguments, keep_history=False, **options): return super().plan(*arguments, **options)

class SaysDecoder(RandomShooting):
    differentiable_in = ("decoder",)

class NeverAsks(RandomShooting):
    def plan(self, *arguments, **options):
        kept, self.score = self.score, Score()
        try: return super().plan(*arguments, **options)
        finally: self.score = kept

class Fails(RandomShooting):
    def __init__(self, horizon, action_size, belief_size): raise RuntimeError("no GPU\\nhere")

def no_module(obs_size, action_size): return "a string"
def needs(obs_size, action_size, width): return GRUModel(obs_size, action_size, width)
def flat_cost(observations, rewards, actions): return rewards
def nan_cost(observations, rewards, actions): return (rewards.sum(-1) - 1e9).sqrt()
def hard_cost(observations, rewards, actions): return (rewards > 0).float().sum(-1)
def asks_for_more(observations, rewards): return rewards.sum(-1)
"""


@pytest.fixture(autouse=True)
def on_path(tmp_path, monkeypatch):
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    (tmp_path / "does_not_load.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "example_plugin"))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("broken_parts", "parsec_example")]:
        del sys.modules[name]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("model", [RSSM_SIZES, MODEL])
@pytest.mark.parametrize("controller", [FULL, EMBEDDED, SHOOTING])
def test_the_projects_own_parts_and_others_meet_the_same_protocols(model, controller):
    torch.manual_seed(0)
    agent = PlanningAgent(OBS, A, model, controller, {"hidden_size": 8})
    assert all(hasattr(agent.model, part) for part in parts(WorldModel))
    assert all(hasattr(agent.controller, part) for part in parts(Controller))
    _try_world_model(agent.model, OBS, A, _Trial("world_model.kind", "any"))
    _try_controller(agent.controller, agent.model, H, _Trial("controller.kind", "any"))
    assert agent.kind == controller["kind"]
    state = agent.initial_state(2)
    for i in range(3):
        action, state = agent.act(state, torch.randn(2, OBS, generator=seeded(i)), seeded(i))
        assert action.shape == (2, A)
        assert action.abs().max() <= 1


def test_making_and_trying_a_part_leaves_the_global_generator_where_weights_leave_it():
    torch.manual_seed(0)
    PlanningAgent(OBS, A, RSSM_SIZES, FULL, {})
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    PlanningAgent(OBS, A, RSSM_SIZES, {**SHOOTING, **COST}, {})
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("controller", "model", "message"),
    [
        ({"kind": "cma"}, {}, r"controller\.kind must be one of full, icem, mppi, embedded, or module:f.*, got 'cma'"),
        ({"kind": "no_such_module:C"}, {}, r"'no_such_module:C' cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        ({"kind": "does_not_load:C"}, {}, r"cannot be imported \(ZeroDivisionError: division by zero\).*PYTHONPATH"),
        ({"kind": "broken_parts:Missing"}, {}, r"cannot be imported \(AttributeError.*Missing"),
        (
            SHOOTING | {"options": {"num_sample": 3}},
            {},
            r"controller\.options\.num_sample is no option.*'num_samples'\?",
        ),
        (SHOOTING | {"num_samples": 3}, {}, r"controller\.num_samples is not a key .* under options"),
        ({"kind": "broken_parts:Fails"}, {}, r"cannot be made: RuntimeError: no GPU here"),
        ({"kind": "broken_parts:TooFar"}, {}, r"TooFar' must plan actions in \[-1, 1\], got"),
        ({"kind": "broken_parts:Transposed"}, {}, r"failed in a trial with a batch of 2: plan raised RuntimeError"),
        ({"kind": "broken_parts:NoHistory"}, {}, r"must return a history of one or more iterations"),
        ({"kind": "broken_parts:SaysDecoder"}, {}, r"must have a decoder where differentiable_in names one"),
        ({"kind": "broken_parts:no_module"}, {}, r"takes 2 positional arguments"),
        (FULL, {"kind": "rsm"}, r"world_model\.kind must be one of rssm, .*did you mean 'rssm'"),
        (FULL, {"kind": "broken_parts:no_module"}, r"must make a torch module, got str"),
        (FULL, {"kind": "broken_parts:needs"}, r"world_model\.options\.width is missing"),
        (FULL, {"kind": "broken_parts:NoLoss"}, r"lacks loss of the protocol WorldModel"),
        (FULL, {"kind": "broken_parts:FlatRewards"}, r"rewards \[B, N, H\] of shape \(2, 3, 4\) from predict_rewards"),
        (FULL, {"kind": "broken_parts:NaNRewards"}, r"must return finite rewards .* got NaN or infinity"),
        (FULL, {"kind": "broken_parts:DetachedLoss"}, r"must return a differentiable loss"),
        (FULL, {"kind": "broken_parts:Raises"}, r"filter_sequence raised IndexError: no such step"),
        (FULL, {"kind": "broken_parts:WrongSize"}, r"must have obs_size 3, got 7"),
        (FULL | {"objective": "parsec_example.cost:uprigt"}, {}, r"controller\.objective .* cannot be imported"),
        (
            FULL | {"objective": "broken_parts:flat_cost"},
            {},
            r"costs \[B, N\] of shape \(2, 3\) .* got shape \(2, 3, 4",
        ),
        (FULL | {"objective": "broken_parts:nan_cost"}, {}, r"must return finite costs"),
        (FULL | {"objective": "broken_parts:asks_for_more"}, {}, r"the function raised TypeError"),
        (EMBEDDED | {"objective": "broken_parts:hard_cost"}, {}, r"must be differentiable, since a decoder is trained"),
        ({"kind": "broken_parts:NeverAsks", **COST}, {}, r"is never asked by NeverAsks"),
    ],
)
def test_what_breaks_a_rule_is_named_with_its_key_and_value(controller, model, message):
    sizes = {} if model else RSSM_SIZES
    with pytest.raises(ValueError, match=message):
        PlanningAgent(OBS, A, {**sizes, **model}, controller, {})


def test_a_hard_cost_is_fine_where_nothing_is_trained_through_it():
    agent = PlanningAgent(OBS, A, RSSM_SIZES, FULL | {"objective": "broken_parts:hard_cost"}, {})
    agent.act(agent.initial_state(1), torch.randn(1, OBS))


@pytest.mark.parametrize("model", [RSSM_SIZES, MODEL])
def test_a_hand_written_cost_is_what_plans_minimise(model):
    """Of the torque alone, whose optimum is known: no torque at all, and with the opposite sign the largest."""
    torch.manual_seed(0)
    controller = FULL | {"num_samples": 200, "num_elites": 20, "num_iterations": 8}
    agent = PlanningAgent(OBS, A, model, controller, {})
    belief = agent.model.initial_belief(2)
    for sign, best in ((1, 0.0), (-1, 1.0)):
        agent.controller.score = Score(lambda obs, rewards, actions, s=sign: s * actions.square().sum((-1, -2)))
        plan = agent.controller.plan(agent.model, belief, generator=seeded(0))
        assert (plan.actions.abs() - best).abs().max() < 0.15


def test_a_cost_sees_what_the_model_predicts_in_units_of_the_environment():
    torch.manual_seed(0)
    model = RSSM(OBS, A, **RSSM_SIZES)
    model.obs_norm.update(100 + 5 * torch.randn(50, OBS, generator=seeded(0)))
    belief = Belief(torch.randn(2, 8, generator=seeded(1)), torch.randn(2, 3, generator=seeded(2)))
    actions = 2 * torch.rand(2, 5, H, A, generator=seeded(3)) - 1
    obs, rewards = model.predict(belief, actions)
    assert obs.shape == (2, 5, H, OBS)
    assert (obs - 100).abs().max() < 50
    torch.testing.assert_close(rewards, model.predict_rewards(belief, actions))
    # Step by step, as the filter's transition has it.
    h, s = belief.h[:, None].expand(2, 5, -1), belief.s[:, None].expand(2, 5, -1)
    for t in range(H):
        h = model.next_h(torch.cat([s, actions[:, :, t]], -1), h)
        s = model.prior(h).mean
        step = model.obs_norm.inverse(model.obs_net(torch.cat([h, s], -1)))
        torch.testing.assert_close(obs[:, :, t], step, rtol=1e-4, atol=1e-4)
    seen = []
    predicted_cost(model, belief, actions, Score(lambda *predicted: seen.extend(predicted) or predicted[1].sum(-1)))
    assert torch.equal(seen[0], obs)
    assert torch.equal(seen[2], actions)
    default = predicted_cost(model, belief, actions)
    torch.testing.assert_close(default, -rewards.sum(-1))


@pytest.mark.parametrize("model", [RSSM_SIZES, MODEL])
def test_the_gradient_of_a_cost_reaches_decoder_reward_and_transition(model):
    torch.manual_seed(0)
    agent = PlanningAgent(OBS, A, model, EMBEDDED, {"hidden_size": 8})
    agent.controller.score = Score(lambda obs, rewards, actions: (obs.square().mean(-1) - rewards).sum(-1))
    plan = agent.plan(agent.model.initial_belief(2), agent.initial_state(2), seeded(0))
    groups = (agent.decoder.parameters(), agent.model.reward_parameters(), agent.model.transition_parameters())
    for group in groups:
        gradients = torch.autograd.grad(plan.actions.sum(), list(group), retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    assert agent.controller.differentiable_in == ("reward", "transition", "decoder")
    hard = EmbeddedController(ActionDecoder(2, H, A), temperature=0.0)
    assert hard.differentiable_in == ("decoder",)


def test_an_agent_of_own_parts_is_saved_by_name_and_found_again_where_it_is_trusted(tmp_path, monkeypatch):
    torch.manual_seed(0)
    controller = {**SHOOTING, **COST}
    agent = PlanningAgent(OBS, A, MODEL, controller, {})
    description = {"env": {"id": "Pendulum-v1"}, "world_model": MODEL, "controller": controller, "decoder": {}}
    save_agent(tmp_path, agent, description)
    names = {controller["kind"], controller["objective"], MODEL["kind"]}
    with pytest.raises(ValueError, match=r"made by the code parsec_example\.random_shooting:RandomShooting, .*--trust"):
        load_agent(tmp_path)
    with pytest.raises(ValueError, match=r"made by the code parsec_example\.cost:upright, which"):
        load_agent(tmp_path, trust=names - {controller["objective"]})
    for trust in (True, names):
        loaded, _ = load_agent(tmp_path, trust)
        obs = torch.randn(2, OBS, generator=seeded(3))
        expected, _ = agent.act(agent.initial_state(2), obs, seeded(4))
        actual, _ = loaded.act(loaded.initial_state(2), obs, seeded(4))
        assert torch.equal(expected, actual)
    monkeypatch.setitem(sys.modules, "parsec_example.gru_model", None)
    with pytest.raises(ValueError, match=r"agent\.json: world_model\.kind .* cannot be imported .*PYTHONPATH"):
        load_agent(tmp_path, trust=True)


def test_own_model_with_an_own_controller_filters_as_it_learns():
    """The beliefs of whole sequences are those of step-by-step filtering, and nothing passes an episode's border."""
    torch.manual_seed(0)
    model = PlanningAgent(OBS, A, MODEL, SHOOTING, {}).model
    g = seeded(1)
    from parsecrl.algorithms.models import ReplaySequence

    obs, action = torch.randn(2, 6, OBS, generator=g).requires_grad_(), 2 * torch.rand(2, 6, A, generator=g) - 1
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 0] = is_first[:, 3] = True
    whole = model.filter_sequence(ReplaySequence(obs, action, torch.zeros(2, 6), is_first, 0 * is_first > 0))
    belief = model.initial_belief(2)
    for t in range(6):
        first = bool(is_first[0, t])
        belief = model.initial_belief(2) if first else belief
        belief = model.update_belief(belief, 0 * action[:, 0] if first else action[:, t - 1], obs[:, t])
        torch.testing.assert_close(whole.h[:, t], belief.h)
        torch.testing.assert_close(whole.s[:, t], belief.s)
    (gradient,) = torch.autograd.grad(whole.h[:, 3:].sum() + whole.s[:, 3:].sum(), obs)
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3:] != 0).any()


def test_make_controller_takes_a_model_of_any_origin():
    model = PlanningAgent(OBS, A, MODEL, FULL, {}).model
    decoder = make_controller(model, EMBEDDED, {"conditioning": "belief"}).decoder
    assert decoder.belief_in.in_features == model.belief_size
