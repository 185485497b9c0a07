"""The module and the learner of phases 1 and 2; no Ray runtime."""

import itertools
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from parsecrl.algorithms.models import Belief, ReplaySequence
from parsecrl.algorithms.planet.planet_rl_module import (
    DECODER_ONLY,
    INITIAL_ACTIONS,
    INITIAL_OBS,
    PLANNED_H,
    PLANNED_S,
    UPDATE,
    PlanetRLModule,
    explained_reward,
    followed,
)
from parsecrl.algorithms.planet.rollouts import collect
from parsecrl.algorithms.training.owed import raise_errors
from parsecrl.algorithms.training.rllib_phase import UnnamedTask
from parsecrl.algorithms.training.user_errors import Failed
from parsecrl.envs import EnvironmentFault, make_env
from tests.planet.small import EMBEDDED, FULL, PENDULUM, VALUE, small_config


def small_module(**kwargs) -> PlanetRLModule:
    config = small_config(**kwargs)
    with make_env(**PENDULUM) as env:
        config.validate()
        module = config.get_rl_module_spec(env=env).build()
    return module


def small_batch(seed=0, **extra) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    is_first = np.zeros((4, 6), dtype=bool)
    is_first[:, 0] = True
    batch = {
        Columns.OBS: rng.normal(size=(4, 6, 3)).astype(np.float32),
        Columns.ACTIONS: rng.uniform(-1, 1, size=(4, 6, 1)).astype(np.float32),
        Columns.REWARDS: rng.normal(size=(4, 6)).astype(np.float32),
        "is_first": is_first,
        "is_terminated": np.zeros((4, 6), dtype=bool),
        UPDATE: np.full(4, 7, dtype=np.int64),
        DECODER_ONLY: np.zeros(4, dtype=bool),
        INITIAL_OBS: rng.normal(size=(4, 3)).astype(np.float32),
        INITIAL_ACTIONS: rng.uniform(-1, 1, size=(4, 3, 1)).astype(np.float32),
        **extra,
    }
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def small_learner(**kwargs):
    config = small_config(**kwargs)
    env = gymnasium.make("parsecrl.envs:parsecrl/Control-v0", env_id="Pendulum-v1", action_repeat=20)
    learner = config.build_learner(env=env)
    env.close()
    return learner


def update(learner, batch=None):
    batch = SampleBatch(batch or small_batch())
    learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=24), timesteps={})
    return learner.module[DEFAULT_MODULE_ID].unwrapped().agent


def weights_of(part) -> list[torch.Tensor]:
    return [p.detach().clone() for p in part.parameters()]


@pytest.mark.parametrize("value", ["none", VALUE])
def test_decoder_loss_reaches_the_decoder_only(value):
    module = small_module(value=value)
    if module.agent.actor_critic is not None:
        torch.nn.init.normal_(module.agent.actor_critic.critic[-1].weight)  # a new critic's gradient is 0
    needed = {name for name, p in module.agent.named_parameters() if p.requires_grad}
    beliefs = Belief(torch.randn(5, 12), torch.randn(5, 4))
    cost, distance = module.decoder_loss(beliefs, torch.zeros(5, 3, 1))
    (cost + distance).backward()
    reached = {name for name, p in module.agent.named_parameters() if p.grad is not None}
    assert reached == {f"controller.decoder.{name}" for name, _ in module.agent.decoder.named_parameters()}
    assert {name for name, p in module.agent.named_parameters() if p.requires_grad} == needed
    assert any((p.grad != 0).any() for p in module.agent.decoder.parameters())


def test_the_decoders_gradient_does_not_depend_on_the_rewards_unit():
    gradients, costs = [], []
    for unit in (1.0, 1e4):
        module = small_module(decoder_anchor=0.5)
        batch = small_batch()
        batch[Columns.REWARDS] *= unit
        out = module._forward_train(batch)
        out["loss"].backward()
        gradients.append([p.grad for p in module.agent.decoder.parameters()])
        costs.append(float(out["terms"]["decoder_loss"]))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0.01, atol=1e-5)
    assert costs[1] == pytest.approx(1e4 * costs[0], rel=0.01)  # what is shown is in the environment's unit


def test_a_termination_reaches_the_model_and_its_loss():
    learner, batch = small_learner(), small_batch()
    batch["is_terminated"][0, 5] = True
    head = weights_of(learner.module[DEFAULT_MODULE_ID].unwrapped().agent.model.continuation_net)
    model = update(learner).model
    assert not model.terminates
    assert all(torch.equal(a, b) for a, b in zip(head, weights_of(model.continuation_net), strict=True))
    model = update(learner, batch).model
    assert model.terminates
    assert not all(torch.equal(a, b) for a, b in zip(head, weights_of(model.continuation_net), strict=True))


def test_without_its_weight_nothing_is_learned_of_terminations():
    batch = small_batch()
    batch["is_terminated"][0, 5] = True
    seen, blind = small_module(), small_module(loss={"continuation_weight": 0.0})
    never = small_module()._forward_train(small_batch())["loss"]
    assert not torch.equal(seen._forward_train(batch)["loss"], never)
    assert torch.equal(blind._forward_train(batch)["loss"], never)
    assert seen.agent.model.terminates
    assert not blind.agent.model.terminates


def test_several_learners_need_not_use_every_part_in_every_batch(tmp_path):
    """As RLlib wraps the module of each of them; the head of termination has nothing to do here."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        module = small_module(value=VALUE)
        wrapped = torch.nn.parallel.DistributedDataParallel(module)
        for decoder_only in (False, True, False):
            batch = small_batch()
            batch[DECODER_ONLY][:] = decoder_only
            module.zero_grad()
            wrapped(batch)["loss"].backward()
            assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
        # Before the group ends: what holds it last waits for its threads, and they for the interpreter's lock.
        del wrapped
    finally:
        torch.distributed.destroy_process_group()


def test_an_update_moves_model_and_decoder_and_marks_the_agent_trained():
    learner = small_learner()
    agent = learner.module[DEFAULT_MODULE_ID].unwrapped().agent
    assert not agent.trained
    model, decoder = weights_of(agent.model), weights_of(agent.decoder)
    update(learner)
    assert any((a != b).any() for a, b in zip(model, agent.model.parameters(), strict=True))
    assert any((a != b).any() for a, b in zip(decoder, agent.decoder.parameters(), strict=True))
    assert agent.trained
    assert agent.model.obs_norm.count == 24


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_a_value_changes_nothing_of_what_model_and_decoder_learn(controller):
    """Bit by bit, over two updates; and `none` is what a spec without the key is."""
    agents = []
    for value in ({}, {"value": "none"}, {"value": VALUE}):
        learner = small_learner(controller=controller, **value)
        update(learner)
        agents.append(update(learner))
    plain, none, valued = (agent.state_dict() for agent in agents)
    assert plain.keys() == none.keys()
    assert valued.keys() > plain.keys()
    searched = ("controller.", "actor_critic.") if controller is EMBEDDED else ("actor_critic.",)
    for name, weight in plain.items():
        assert torch.equal(none[name], weight)
        # The decoder's loss is the cost of plans, in which a value counts.
        assert torch.equal(valued[name], weight) or name.startswith(searched)


def test_the_losses_of_critic_and_actor_reach_these_two_only():
    module = small_module(value=VALUE)
    batch = small_batch()
    sequence = ReplaySequence(
        *(batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.REWARDS, "is_first", "is_terminated"))
    )
    loss, terms = module.value_loss(Belief(torch.randn(4, 6, 12), torch.randn(4, 6, 4)), sequence)
    assert set(terms) == {"critic_loss", "actor_loss", "imagined_value"}
    loss.backward()
    reached = {name for name, p in module.agent.named_parameters() if p.grad is not None}
    assert {name.split(".")[1] for name in reached} == {"critic", "actor"}
    assert {name.split(".")[0] for name in reached} == {"actor_critic"}
    assert all(p.requires_grad for p in module.agent.model.parameters())


def test_an_update_moves_critic_actor_and_slow_critic_unless_the_decoder_alone_learns():
    learner = small_learner(value=VALUE)
    agent = learner.module[DEFAULT_MODULE_ID].unwrapped().agent
    nets = [getattr(agent.actor_critic, name) for name in ("critic", "actor", "slow_critic")]
    before = [weights_of(net) for net in nets]
    batch = small_batch()
    batch[DECODER_ONLY][:] = True
    update(learner, batch)
    for net, old in zip(nets, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(weights_of(net), old, strict=True))
    for _ in range(2):  # the first moves the last layers alone, which begin at 0
        update(learner)
    for net, old in zip(nets, before, strict=True):
        assert all(not torch.equal(a, b) for a, b in zip(weights_of(net), old, strict=True))
    critic, slow = (torch.cat([w.flatten() for w in weights_of(net)]) for net in (nets[0], nets[2]))
    begun = torch.cat([w.flatten() for w in before[0]])
    assert (slow - begun).norm() < 0.1 * (critic - begun).norm()  # at 0.02 of the way in each update


def test_an_update_trains_a_decoder_through_a_cost_and_a_model_of_another_package(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "example_plugin"))
    model = {"kind": "parsec_example.gru_model:GRUModel", "options": {"hidden_size": 8}}
    controller = {**EMBEDDED, "objective": "parsec_example.cost:upright"}
    learner = small_learner(world_model=model, controller=controller)
    agent = learner.module[DEFAULT_MODULE_ID].agent
    for trained in ((agent.model, agent.decoder), (agent.decoder,)):
        before = [weights_of(part) for part in trained]
        batch = small_batch()
        batch[DECODER_ONLY][:] = agent.model not in trained  # then on beliefs of `filter_sequence`
        update(learner, batch)
        for part, old in zip(trained, before, strict=True):
            assert any(not torch.equal(a, b) for a, b in zip(weights_of(part), old, strict=True))


def test_the_bound_alone_gives_the_model_its_gradient():
    """The model moves alike with and without a decoder beside it."""
    moved = {}
    for kind, controller in {"full": FULL, "embedded": EMBEDDED}.items():
        learner = small_learner(controller=controller)
        learner.config.grad_clip = None
        moved[kind] = weights_of(update(learner).model)
    for a, b in zip(moved["full"], moved["embedded"], strict=True):
        torch.testing.assert_close(a, b)


def sequence_of(batch: dict[str, torch.Tensor]) -> ReplaySequence:
    names = (Columns.OBS, Columns.ACTIONS, Columns.REWARDS, "is_first", "is_terminated")
    return ReplaySequence(*(batch[name] for name in names))


def test_planned_beliefs_replace_replayed_ones():
    module = small_module(decoder_initial_beliefs=1)
    planned = {PLANNED_H: np.ones((4, 12), np.float32), PLANNED_S: np.full((4, 4), 2, np.float32)}
    filtered = Belief(torch.zeros(4, 6, 12), torch.zeros(4, 6, 4))
    batch = small_batch(**planned)
    beliefs, actions = module._decoder_beliefs(batch, sequence_of(batch), filtered)
    assert beliefs.h.shape == (5, 12)
    assert (beliefs.h[:4] == 1).all()
    assert (beliefs.s[:4] == 2).all()
    assert actions[:4].isnan().all()
    assert (actions[4] == batch[INITIAL_ACTIONS][0]).all()
    batch = small_batch()
    sampled, actions = module._decoder_beliefs(batch, sequence_of(batch), filtered)
    assert (sampled.h[:-1] == 0).all()
    assert (sampled.h[-1] != 0).any()  # the belief after an episode's first observation
    assert not actions.isnan().any()


def test_replayed_actions_are_those_taken_from_the_belief():
    module = small_module(decoder_initial_beliefs=0)
    batch = small_batch()
    batch["is_first"][1, 3] = True
    number = torch.arange(24.0).view(4, 6)
    batch[Columns.ACTIONS] = number[..., None] / 24
    filtered = Belief(number[..., None].expand(4, 6, 12), torch.zeros(4, 6, 4))
    beliefs, actions = module._decoder_beliefs(batch, sequence_of(batch), filtered)
    first = beliefs.h[:, 0]
    taken = (first[:, None] + torch.arange(3)) / 24
    taken[(first[:, None] + torch.arange(3) >= 8) & (first < 9)[:, None] & (first > 5)[:, None]] = float("nan")
    torch.testing.assert_close(actions[..., 0], taken, equal_nan=True)
    # Four starts in a row of six steps; in row 1 an episode of two actions, at whose last observation none was taken.
    assert sorted(first.tolist()) == [0, 1, 2, 3, 6, 7, 9, 12, 13, 14, 15, 18, 19, 20, 21]


@given(st.integers(1, 6), st.integers(0, 2**12 - 1))
def test_every_row_has_a_step_whose_actions_are_known(horizon, borders):
    """Rows as the buffer makes them: a piece has one action or more, then its last observation."""
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 0] = True
    for b, t in itertools.product(range(2), range(2, 6)):
        is_first[b, t] = bool(borders >> (6 * b + t) & 1) and not is_first[b, t - 1]
    rows, steps, known = followed(is_first, horizon)
    assert set(rows.tolist()) == {0, 1}
    assert ((known >= 1) & (known <= horizon)).all()
    for b, t, n in zip(rows.tolist(), steps.tolist(), known.tolist(), strict=True):
        rest = is_first[b, t + 1 :].tolist()
        actions = rest.index(True) if True in rest else 6 - t  # before the last observation of the piece, or in the row
        assert n == min(actions, horizon)
        assert n == horizon or True in rest


def test_a_horizon_longer_than_the_sequences():
    with pytest.raises(ValueError, match=r"batch_length must be at least controller\.horizon, got 6 with horizon=7"):
        followed(torch.zeros(2, 6, dtype=torch.bool), 7)


def test_distance_counts_known_actions_only():
    module = small_module()
    beliefs = Belief(torch.randn(2, 12), torch.randn(2, 4))
    unknown = torch.full((2, 3, 1), float("nan"))
    assert module.decoder_loss(beliefs, unknown)[1] == 0
    module.seed(1)
    plan = module.agent.plan(beliefs, {}, generator=module._generator())
    target = torch.stack([plan.actions[0].detach() + 0.5, unknown[1]])
    module.seed(1)
    assert module.decoder_loss(beliefs, target)[1].item() == pytest.approx(3 * 0.25, rel=1e-4)


def test_proposals_of_full_cem_take_the_place_of_replayed_actions(monkeypatch):
    proposals = {"num_samples": 64, "num_elites": 8, "num_iterations": 3}
    module = small_module(decoder_proposals=proposals, decoder_anchor=1.0)
    asked, decoder_loss = [], module.decoder_loss

    def noted(beliefs, target):
        asked.append((beliefs, target))
        return decoder_loss(beliefs, target)

    monkeypatch.setattr(module, "decoder_loss", noted)
    assert module._forward_train(small_batch())["terms"]["decoder_distance"] > 0
    ((beliefs, target),) = asked
    predicted = module.agent.model.predict_rewards(beliefs, target[:, None]).sum(-1)
    random = 2 * torch.rand(len(target), 256, 3, 1, generator=torch.Generator().manual_seed(0)) - 1
    others = module.agent.model.predict_rewards(beliefs, random).sum(-1)
    assert (predicted > others.quantile(0.9, dim=1, keepdim=True)).all()  # they were searched for, in this model
    assert not target.requires_grad


def rollout_batch(module: PlanetRLModule, rows: int) -> dict:
    state = {name: value.expand(rows, *value.shape) for name, value in module.get_initial_state().items()}
    return {Columns.OBS: torch.randn(rows, 1, 3), Columns.STATE_IN: state}


def test_seed_episodes_act_uniformly_and_later_ones_plan():
    module = small_module(controller=FULL, exploration_noise=0.0)
    batch = rollout_batch(module, 2000)
    actions = module.forward_exploration(batch)[Columns.ACTIONS]
    assert actions.shape == (2000, 1, 1)
    assert abs(actions.mean()) < 0.05
    assert abs(actions.var() - 1 / 3) < 0.03
    module.agent.trained.fill_(True)
    batch = rollout_batch(module, 3)
    module.seed(5)
    out = module.forward_exploration(batch)
    generator = torch.Generator().manual_seed(5)
    action, state = module.agent.act(batch[Columns.STATE_IN], batch[Columns.OBS][:, 0], generator)
    assert (out[Columns.ACTIONS][:, 0] == action).all()
    assert all((out[Columns.STATE_OUT][name] == state[name]).all() for name in state)


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_a_warm_start_begins_at_zero_after_an_action_without_a_plan(controller):
    module = small_module(controller={**controller, "warm_start": True})
    state = module._forward_exploration(rollout_batch(module, 2))[Columns.STATE_OUT]
    assert (state["plan"] == 0).all()
    assert state["plan"].shape == (2, module.agent.controller.plan_size)


def test_exploration_noise_is_in_the_remembered_action_and_within_bounds():
    module = small_module(controller=FULL, exploration_noise=5.0)
    module.agent.trained.fill_(True)
    out = module.forward_exploration(rollout_batch(module, 50))
    actions = out[Columns.ACTIONS][:, 0]
    assert (out[Columns.STATE_OUT]["action"] == actions).all()
    assert actions.abs().max() <= 1
    assert (actions.abs() == 1).float().mean() > 0.5


def test_a_nan_loss_names_the_update_and_the_term():
    batch = small_batch()
    batch[Columns.REWARDS][1, 2] = float("nan")
    with pytest.raises(FloatingPointError, match=r"'reward' became nan at update 7; lower"):
        update(small_learner(), batch)


def test_the_same_update_twice_gives_the_same_weights():
    first, second = weights_of(update(small_learner())), weights_of(update(small_learner()))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    other = weights_of(update(small_learner(seed=1)))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_training": "never"}, "must be 'online', 'offline' or 'after_planning', got 'never'"),
        ({"decoder_training": "offline"}, "train on the replay of an earlier phase"),
        ({"value": {"discount": 1.0}}, r"value\.discount must be less than 1, got 1"),
        (
            {"value": {}, "controller": {**FULL, "objective": "a:b"}},
            "value is of rewards, and controller.objective puts",
        ),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        small_config(**settings).validate()


def test_a_setting_that_does_not_exist():
    with pytest.raises(ValueError, match="train_ration is not a known key; did you mean 'train_ratio'"):
        small_config(train_ration=0.1)


def test_a_gradient_that_is_not_finite_stops_the_trial():
    learner = small_learner(controller=FULL)
    agent = learner.module[DEFAULT_MODULE_ID].unwrapped().agent
    agent.model.gru.weight_hh.register_hook(lambda gradient: gradient * float("inf"))
    before = weights_of(agent.model)
    with pytest.raises(FloatingPointError, match="the norm of the gradient became"):
        update(learner)
    assert all((a == b).all() for a, b in zip(before, agent.model.parameters(), strict=True))


@pytest.mark.parametrize("worker_index", [0, 1])
def test_what_fails_in_a_runner_arrives_as_itself(worker_index):
    runner = SingleAgentEnvRunner(config=small_config(controller=FULL), worker_index=worker_index)
    weights = runner.module.get_state()
    weights["agent.trained"] = np.array(True)
    for name in weights:
        if "reward_net" in name:
            weights[name] = np.full_like(weights[name], np.nan)
    if worker_index == 0:  # in the trial's own process
        with pytest.raises(ValueError, match="finite cost"):
            collect(runner, weights, 0)
    else:
        rollout = collect(runner, weights, 0)
        at = r"\(parsecrl/algorithms/solvers/gaussian_search.py:\d+\)"
        with pytest.raises(Failed, match=rf"^ValueError: .*finite cost.* {at}$"):
            raise_errors([rollout])
        assert "in collect" in rollout.failure.traceback
    runner.stop()


class Unsound(gymnasium.Env):
    """Its third step gives what is not finite; `fault` says what."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, fault):
        self.fault, self.time = fault, 0

    def reset(self, seed=None, options=None):
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.time += 1
        obs, reward = np.zeros(3, np.float32), 0.0
        if self.time == 3:
            obs[1], reward = (np.nan, 0.0) if self.fault == "observation" else (0.0, np.inf)
        return obs, reward, False, self.time == 5, {}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("observation", "'unsound' at step 3 of an episode: the observation[1] must be a finite number"),
        ("reward", "'unsound' at step 3 of an episode: the reward must be a finite number"),
    ],
)
def test_what_a_world_gives_that_is_not_finite_is_refused(fault, said):
    config = small_config(controller=FULL)
    config.env_config = {"env_id": UnnamedTask("unsound", lambda context: Unsound(fault))}
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    with pytest.raises(RuntimeError) as told:  # RLlib's
        collect(runner, runner.module.get_state(), 0)
    assert isinstance(told.value.__cause__, EnvironmentFault)
    assert said in str(told.value.__cause__)
    runner.stop()


@pytest.mark.parametrize(("factor", "explained"), [(1.0, 1.0), (0.0, 0.0), (-3.0, -1.0)])
def test_the_share_of_reward_that_one_decision_explains(factor, explained):
    """A reward that is the action before it, with a mean of 0: predicted rightly, not at all, and worse than that."""

    class ActionIsReward:
        def predict_rewards(self, belief, actions):
            assert belief.h.shape[0] == actions.shape[0]
            return factor * actions[..., 0]

    action = torch.tensor([[1.0, -1.0, 7.0, 1.0, -1.0, 7.0]])[..., None]
    reward = torch.tensor([[9.0, 1.0, -1.0, 9.0, 1.0, -1.0]])  # what arrives with a first observation counts nothing
    is_first = torch.tensor([[True, False, False, True, False, False]])
    sequence = ReplaySequence(
        torch.zeros(1, 6, 2),
        action,
        reward,
        is_first,
        *[torch.zeros_like(is_first)] * (len(ReplaySequence._fields) - 4),
    )
    beliefs = Belief(torch.zeros(1, 6, 3), torch.zeros(1, 6, 2))
    assert explained_reward(ActionIsReward(), beliefs, sequence).item() == pytest.approx(explained)
