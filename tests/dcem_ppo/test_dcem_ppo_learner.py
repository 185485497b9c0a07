"""PPO through the planner: likelihood ratios, where the gradient goes, micro-batches, values. No Ray runtime."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.evaluation.postprocessing import Postprocessing

from parsecrl.algorithms.dcem_ppo.dcem_ppo import collect_episodes
from parsecrl.algorithms.dcem_ppo.dcem_ppo_learner import DCEMPPOLearner, policy_loss, select_decisions
from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import DECISION, IS_ACTORS, NOISE_INDEX, H, S
from parsecrl.algorithms.models import Belief, matrix_products
from parsecrl.algorithms.training.owed import raise_errors

ENV_ID, LONG = "parsecrl-tests/Target-v0", "parsecrl-tests/LongTarget-v0"
SUBSETS = [parts for n in (1, 2, 3) for parts in itertools.combinations(("reward", "transition", "decoder"), n)]


@pytest.fixture(autouse=True)
def _products() -> Iterator[None]:
    yield
    matrix_products.use(None)


class Trainer:
    """A runner and a learner with the same weights."""

    def __init__(self, config: Any):
        config.validate()
        self.config = config
        self.runner = SingleAgentEnvRunner(config=config, worker_index=0)
        self.learner: DCEMPPOLearner = config.build_learner(env=self.runner.env.unwrapped)
        self.module = self.learner.module[DEFAULT_MODULE_ID]
        self.steps = 0

    def sample(self) -> list:
        numbers = range(self.config.episodes_per_step)
        rollout = collect_episodes(self.runner, self.module.get_state(), self.config.seed, self.steps, numbers, 60.0)
        self.steps += 1
        return raise_errors([rollout])[0].episodes

    def decisions(self) -> dict[str, torch.Tensor]:
        """What the learner makes of one round of episodes."""
        return select_decisions(self.batch())

    def batch(self) -> dict[str, torch.Tensor]:
        connector = self.learner._learner_connector
        return connector(rl_module=self.learner.module, batch={}, episodes=self.sample(), shared_data={})[
            DEFAULT_MODULE_ID
        ]

    def update(self) -> dict[str, float]:
        results = self.learner.update(episodes=self.sample())[DEFAULT_MODULE_ID]
        return {name: float(value.peek()) for name, value in results.items()}


def parameters_of(module: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def part_of(name: str) -> str:
    """The part that a parameter of the module belongs to."""
    prefixes = {
        "agent.model.reward_net": "reward",
        "agent.model.gru": "transition",
        "agent.model.prior_net": "transition",
        "agent.controller.decoder": "decoder",
        "value_net": "value",
        "log_std": "std",
    }
    return next((part for prefix, part in prefixes.items() if name.startswith(prefix)), "frozen")


@pytest.mark.parametrize("products", [(False,) * 4, (True,) * 4, (False, False, True, True)])
def test_ratios_are_exact_on_the_first_pass(make_config, products):
    # The runner plans for 4 environments at once, the learner for 7 decisions: few rows in one, many in the other.
    matrix_products.use(products)
    results = Trainer(make_config(LONG, micro_batch=7, learning_rate=1e-2)).update()
    assert results["max_ratio_deviation"] <= 1e-4


def test_the_products_of_the_learner_travel_to_a_runner_with_its_weights(make_config):
    matrix_products.use((False, True, False, True))
    trainer = Trainer(make_config())
    weights = trainer.learner.get_state(components="rl_module", inference_only=True)["rl_module"]
    matrix_products.use(None)  # another process
    trainer.runner.set_state({"rl_module": weights})
    assert matrix_products.choice() == (False, True, False, True)


def test_a_planning_cost_by_hand_keeps_ratios_exact_and_passes_the_gradient(
    make_config, write_agent, tmp_path, monkeypatch
):
    cost = "((actions - 0.3).square() + observations.square()).sum((-1, -2)) - rewards.sum(-1)"
    (tmp_path / "own_cost.py").write_text(f"def cost(observations, rewards, actions):\n    return {cost}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    start_from, parts = write_agent(tmp_path, objective="own_cost:cost"), ["reward", "transition", "decoder"]
    config = make_config(LONG, start_from=start_from, micro_batch=7, fine_tune=parts).trust_start_from()
    trainer = Trainer(config)
    trainer.learner.accumulate_policy_gradient(trainer.decisions())
    moved = {part_of(name) for name, p in trainer.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(parts)
    assert trainer.update()["max_ratio_deviation"] <= 1e-4


def test_a_value_keeps_ratios_exact_and_what_the_actor_proposed_is_held(make_config, write_agent, tmp_path):
    start_from, parts = write_agent(tmp_path, value={"hidden_size": 16}), ["reward", "transition", "decoder"]
    trainer = Trainer(make_config(LONG, start_from=start_from, micro_batch=7, fine_tune=parts, episodes_per_step=8))
    decisions = trainer.decisions()
    held = decisions[IS_ACTORS].bool()
    assert 0 < int(held.sum()) < len(held)
    trainer.learner.accumulate_policy_gradient(decisions)
    moved = {part_of(name) for name, p in trainer.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(parts)
    with torch.no_grad():
        for parameter in trainer.module.fine_tuned_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        means = trainer.module.forward_train(decisions)[Columns.ACTION_DIST_INPUTS][:, 0]
    before = decisions[Columns.ACTION_DIST_INPUTS][:, 0]
    assert torch.equal(means[held], before[held])
    assert not torch.allclose(means[~held], before[~held], atol=1e-3)
    assert Trainer(trainer.config).update()["max_ratio_deviation"] <= 1e-4


def test_second_pass_has_other_ratios_on_the_same_episodes(make_config):
    trainer = Trainer(make_config(LONG, learning_rate=1e-2))
    decisions = trainer.decisions()
    with torch.no_grad():
        before = policy_loss(trainer.module.forward_train(decisions), decisions, 0.2, 0.0)[1]["ratio_deviation"]
        for parameter in trainer.module.fine_tuned_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = policy_loss(trainer.module.forward_train(decisions), decisions, 0.2, 0.0)[1]["ratio_deviation"]
    assert before <= 1e-4 < after


def test_the_noise_index_decides_the_plan(make_config):
    trainer = Trainer(make_config(LONG))
    decisions = trainer.decisions()
    with torch.no_grad():
        plan = trainer.module.plan(decisions).actions
        again = trainer.module.plan(decisions).actions
        other = trainer.module.plan({**decisions, NOISE_INDEX: (decisions[NOISE_INDEX] + 1) % 4}).actions
    assert torch.equal(plan, again)
    assert not torch.allclose(plan, other, atol=1e-3)


@pytest.mark.parametrize("parts", SUBSETS, ids="+".join)
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
def test_gradient_reaches_exactly_the_chosen_parts(make_config, parts, learned):
    trainer = Trainer(make_config(LONG, fine_tune=list(parts), std={"value": 0.1, "learned": learned}))
    trainer.learner.accumulate_policy_gradient(trainer.decisions())
    reached = {part_of(name) for name, p in trainer.module.named_parameters() if p.grad is not None}
    moved = {part_of(name) for name, p in trainer.module.named_parameters() if p.grad is not None and p.grad.any()}
    chosen = {*parts, "std"} if learned else set(parts)
    assert reached == moved == chosen
    trainable = {part_of(name) for name, p in trainer.module.named_parameters() if p.requires_grad}
    assert trainable == chosen | {"value"}


@pytest.mark.parametrize("parts", [("reward",), ("transition", "decoder")], ids="+".join)
def test_update_leaves_the_frozen_parts_bitwise(make_config, parts):
    trainer = Trainer(make_config(LONG, fine_tune=list(parts), passes=2))
    before, buffers = parameters_of(trainer.module), dict(trainer.module.agent.named_buffers())
    norm = {name: value.clone() for name, value in buffers.items()}
    trainer.update()
    changed = {part_of(name) for name, value in parameters_of(trainer.module).items() if (value != before[name]).any()}
    assert changed == {*parts, "value"}
    assert all(torch.equal(value, norm[name]) for name, value in trainer.module.agent.named_buffers())


@pytest.mark.parametrize(("minibatches", "parts"), [(1, 1), (6, 6), (32, 20)])
def test_a_pass_is_in_minibatches_that_leave_no_decision_out(make_config, minibatches, parts):
    trainer = Trainer(make_config(LONG, minibatches=minibatches))
    numbered = {Columns.ACTIONS: torch.arange(20)}
    order, other = ([m[Columns.ACTIONS] for m in trainer.learner.minibatches(numbered, number)] for number in (0, 1))
    assert len(order) == parts
    assert max(map(len, order)) - min(map(len, order)) <= 1
    assert sorted(torch.cat(order).tolist()) == list(range(20))
    assert not torch.equal(torch.cat(order), torch.cat(other))


@pytest.mark.parametrize(("episodes", "steps"), [(4, 2 * 6), (3, 2 * 3)])
def test_every_minibatch_is_one_step_of_policy_and_value(make_config, episodes, steps):
    """Also where episodes are of one step, and fewer than minibatches: no RLlib batch is rounded to nothing."""
    env_id = LONG if episodes == 4 else ENV_ID
    trainer = Trainer(make_config(env_id, passes=2, minibatches=6, micro_batch=2, episodes_per_step=episodes))
    results = trainer.update()
    for name in ("fine_tuned", "value"):
        state = trainer.learner.get_optimizer(DEFAULT_MODULE_ID, name).state.values()
        assert {int(slot["step"]) for slot in state} == {steps}
    assert results["max_ratio_deviation"] <= 1e-4
    assert results["kl"] > 0


def test_ratios_are_exact_where_episodes_differ_in_length(make_config, write_agent, tmp_path):
    config = make_config(
        "tests.envs.case_worlds:TwoLengths-v0",
        start_from=write_agent(tmp_path, sizes=(2, 1)),
        environments=3,
        episodes_per_step=6,
        learning_rate=1e-2,
    )
    trainer = Trainer(config)
    lengths = [len(episode) for episode in trainer.sample()]
    assert set(lengths) == {2, 40}
    assert len(trainer.decisions()[H]) == sum(len(episode) for episode in resampled(trainer, step=1))
    assert trainer.update()["max_ratio_deviation"] <= 1e-4


def resampled(trainer: Trainer, step: int) -> list:
    """The episodes of a PPO step once more."""
    trainer.steps = step
    return trainer.sample()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_micro_batches_give_the_gradient_of_one_batch(make_config, dtype, tolerance):
    """Equal but for rounding, which float64 shows. In float32 the planner amplifies rounding: there a gradient is only
    good to about 1e-5 (against float64), whatever the micro-batch.
    """
    trainer = Trainer(make_config(LONG, fine_tune=["reward", "transition", "decoder"], entropy_weight=0.01))
    decisions = trainer.decisions()
    assert len(decisions[Columns.ACTIONS]) == 20
    # Make the ratios differ from 1, some clipped, so that every branch of the loss is in the gradient.
    decisions[Columns.ACTION_LOGP] = decisions[Columns.ACTION_LOGP] + torch.linspace(-0.5, 0.5, 20)
    trainer.module.to(dtype)
    decisions = {name: v.to(dtype) if v.is_floating_point() else v for name, v in decisions.items()}

    def gradient(micro_batch: int) -> tuple[torch.Tensor, dict]:
        trainer.learner.config = trainer.learner.config.copy(copy_frozen=False)
        trainer.learner.config.micro_batch = micro_batch
        terms = trainer.learner.accumulate_policy_gradient(decisions)
        return torch.cat([p.grad.flatten() for p in trainer.module.fine_tuned_parameters()]), terms

    one, one_terms = gradient(20)
    many, many_terms = gradient(3)  # six of 3 and one of 2
    assert 0 < one_terms["clip_fraction"] < 1
    assert (many - one).norm() <= tolerance * one.norm()
    for name, term in one_terms.items():
        assert float(many_terms[name]) == pytest.approx(float(term), rel=tolerance, abs=tolerance), name


def test_loss_in_closed_form():
    """Ratios 1.5 and 0.5 with a clip of 0.2, by hand."""
    std = 0.1
    mean = torch.zeros(4, 1, requires_grad=True)
    policy = {Columns.ACTION_DIST_INPUTS: torch.cat([mean, torch.full((4, 1), math.log(std))], -1)}
    logp = -0.5 * math.log(2 * math.pi * std**2)  # of the action 0
    decisions = {
        Columns.ACTIONS: torch.full((4, 1), 0.0),
        Columns.ACTION_LOGP: logp - torch.tensor([1.5, 1.5, 0.5, 0.5]).log(),
        Postprocessing.ADVANTAGES: torch.tensor([1.0, -1.0, 1.0, -1.0]),
    }
    loss, terms = policy_loss(policy, decisions, clip=0.2, entropy_weight=2.0)
    surrogate = (1.2 - 1.5 + 0.5 - 0.8) / 4
    entropy = 0.5 * math.log(2 * math.pi * math.e * std**2)
    assert float(terms["policy_loss"]) == pytest.approx(-surrogate, abs=1e-5)
    assert float(terms["entropy"]) == pytest.approx(entropy, abs=1e-5)
    assert float(loss.detach()) == pytest.approx(-surrogate - 2 * entropy, abs=1e-4)
    assert float(terms["clip_fraction"]) == 1.0


def test_actions_are_stored_as_sampled_and_clipped_for_the_model(make_config):
    trainer = Trainer(make_config(LONG, std={"value": 2.0, "learned": False}))
    episodes = trainer.sample()
    actions = np.concatenate([episode.get_actions() for episode in episodes])
    seen = np.concatenate([episode.get_extra_model_outputs(Columns.STATE_OUT)["action"] for episode in episodes])
    logp = np.concatenate([episode.get_extra_model_outputs(Columns.ACTION_LOGP) for episode in episodes])
    inputs = np.concatenate([episode.get_extra_model_outputs(Columns.ACTION_DIST_INPUTS) for episode in episodes])
    assert np.abs(actions).max() > 1
    np.testing.assert_array_equal(seen, actions.clip(-1, 1))
    expected = -0.5 * ((actions - inputs[:, :1]) / 2.0) ** 2 - math.log(2.0) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(logp, expected[:, 0], atol=1e-5)


def test_bootstrap_value_is_that_of_the_belief_after_the_final_observation(make_config):
    trainer = Trainer(make_config(LONG))
    batch = trainer.batch()
    values = trainer.module.compute_values(batch)
    last, extra = (0, 4), (0, 5)  # five decisions, and the step that RLlib appends
    assert batch[Columns.LOSS_MASK][0].tolist()[:6] == [True] * 5 + [False]
    belief = Belief(batch[H][last][None], batch[S][last][None])
    after = trainer.module.agent.model.update_belief(
        belief, batch[Columns.ACTIONS][last][None].clamp(-1, 1), batch[Columns.OBS][extra][None]
    )
    torch.testing.assert_close(values[extra], trainer.module.compute_values({H: after.h, S: after.s})[0])
    torch.testing.assert_close(values[last], trainer.module.compute_values({H: belief.h, S: belief.s})[0])


def test_decisions_are_the_unpadded_ones_with_standardised_advantages(make_config):
    trainer = Trainer(make_config(LONG))
    decisions = trainer.decisions()
    assert all(len(decisions[name]) == 4 * 5 for name in DECISION)
    advantages = decisions[Postprocessing.ADVANTAGES]
    assert advantages.mean().abs() < 1e-5
    assert advantages.std(correction=0) == pytest.approx(1.0, abs=1e-4)


def test_values_are_in_environment_units_whatever_the_scale(make_config):
    trainer = Trainer(make_config(LONG, value_learning_rate=1e-2))
    decisions = trainer.decisions()
    decisions[Postprocessing.VALUE_TARGETS] = torch.full((20,), 500.0) + 50 * decisions[Columns.ACTIONS][:, 0]
    trainer.module.value_norm.update(decisions[Postprocessing.VALUE_TARGETS][:, None])
    for _ in range(5):
        trainer.learner.update_value(decisions)
    values = trainer.module.compute_values({H: decisions[H], S: decisions[S]})
    assert (values.mean() - decisions[Postprocessing.VALUE_TARGETS].mean()).abs() < 10


@pytest.mark.parametrize("column", [Columns.ACTION_LOGP, Postprocessing.VALUE_TARGETS])
def test_a_loss_that_is_not_finite_stops_before_the_step(make_config, monkeypatch, column):
    trainer = Trainer(make_config(LONG))
    trainer.update()
    before = parameters_of(trainer.module)
    module = "parsecrl.algorithms.dcem_ppo.dcem_ppo_learner.select_decisions"

    def poisoned(batch: dict) -> dict:
        decisions = select_decisions(batch)
        return {**decisions, column: torch.full_like(decisions[column], math.nan)}

    monkeypatch.setattr(module, poisoned)
    term = "policy_loss" if column == Columns.ACTION_LOGP else "value_loss"
    with pytest.raises(FloatingPointError, match=f"the loss term '{term}' became nan at update 2; lower learning_rate"):
        trainer.update()
    after = parameters_of(trainer.module)
    suspects = after if term == "policy_loss" else [name for name in after if part_of(name) == "value"]
    assert all(torch.equal(after[name], before[name]) for name in suspects)


def test_standard_deviation_is_fixed_or_learned(make_config):
    fixed = Trainer(make_config(LONG, std={"value": 0.3, "learned": False}))
    learned = Trainer(make_config(LONG, std={"value": 0.3, "learned": True}, value_learning_rate=0.01))
    fixed.update()
    learned.update()
    assert float(fixed.module.log_std.exp()) == pytest.approx(0.3)
    assert float(learned.module.log_std.detach().exp()) != pytest.approx(0.3, rel=1e-3)


@pytest.mark.learn
@pytest.mark.parametrize(("minibatches", "learning_rate"), [(1, 3e-3), (8, 1e-3)])
@pytest.mark.parametrize("parts", [("reward", "decoder"), ("reward", "transition", "decoder")], ids="+".join)
def test_policy_gradient_through_the_planner_reaches_a_known_optimum(make_config, parts, minibatches, learning_rate):
    """Mean 0.6 side, so that the exploration alone costs: -0.1^2 = -0.01 a step. The model knows no reward yet.

    On the way lies a saddle, the same mean on both sides (-0.37), which an agent leaves after 15 to 45 updates: how
    soon hangs on the seed, and on the last bits of a product.
    """
    config = make_config(
        fine_tune=list(parts),
        passes=2,
        minibatches=minibatches,
        episodes_per_step=64,
        environments=64,
        learning_rate=learning_rate,
        noise_bank_size=16,
    )
    trainer = Trainer(config)
    returns: list[float] = []
    while len(returns) < 120 and np.mean(returns[-5:] or -1.0) < -0.05:
        episodes = trainer.sample()
        returns.append(np.mean([episode.get_return() for episode in episodes]))
        trainer.learner.update(episodes=episodes)
    assert returns[0] < -0.3
    assert np.mean(returns[-5:]) > -0.05
