"""Who trains the encoder and by which optimiser, the slow encoder, and bonuses for exploring; no Ray runtime."""

from collections import Counter

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from parsecrl.algorithms.latent_sac.checkpoint import load_policy, save_trial
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import VISITS
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from tests.latent_sac.small import DESCRIPTION, SETTINGS, Learning, changed, config, module, slices, transitions

ENCODER = "model.encoder.0.weight"


def moved(learning: Learning, batch: dict) -> float:
    """How far the encoder's first weights move at most in an update."""
    before = learning.weights()[ENCODER]
    learning.update(batch)
    return (learning.weights()[ENCODER] - before).abs().max().item()


# --- an optimiser for each loss


def test_each_loss_moves_the_encoder_at_its_own_rate_with_moments_of_its_own():
    learning = Learning(encoder_training="both", policy_learning_rate=0.01, dynamics_learning_rate=0.002)
    own = learning.learner.optimizers
    assert moved(learning, slices()) == pytest.approx(0.002, rel=1e-3)
    assert not own["encoder"].state
    assert moved(learning, transitions()) == pytest.approx(0.01, rel=1e-3)  # Adam's first step: nothing is mixed in
    weight = learning.module.model.encoder[0].weight
    assert own["encoder"].state[weight]["step"].item() == own["dynamics"].state[weight]["step"].item() == 1
    first = own["dynamics"].state[weight]["exp_avg"].clone()
    learning.update(transitions(seed=1))
    assert torch.equal(own["dynamics"].state[weight]["exp_avg"], first)


@pytest.mark.parametrize(
    ("kind", "training", "found"),
    [
        ("parsimonious", "dynamics", {"dynamics"}),
        ("parsimonious", "both", {"dynamics", "encoder"}),
        ("encoder_only", "dynamics", {"encoder"}),
    ],
)
def test_the_optimisers_are_those_of_the_losses(kind: str, training: str, found: set):
    learning = Learning(model={**SETTINGS["model"], "kind": kind}, encoder_training=training)
    assert set(learning.learner.optimizers) == {"policy", "qf", "qf_twin"} | found


# --- the slow encoder


def test_the_slow_encoder_moves_by_a_part_of_the_way_after_updates_of_the_model_alone():
    learning = Learning(encoder_tau=0.25, dynamics_learning_rate=0.01)
    start = learning.weights()
    learning.update(slices())
    after = learning.weights()
    for name in (n for n in start if n.startswith("slow_encoder.")):
        own = after["model.encoder." + name.removeprefix("slow_encoder.")]
        torch.testing.assert_close(after[name], 0.75 * start[name] + 0.25 * own)
    learning.update(transitions())
    assert changed(after, learning.weights()) == {"policy", "qf", "qf_twin", "qf_target", "qf_twin_target"}


@pytest.mark.parametrize("kind", ["parsimonious", "beta_vae", "parsimonious_stochastic"])
def test_actor_and_critics_look_through_the_slow_encoder_and_so_does_a_loaded_policy(kind: str, tmp_path):
    own = {**SETTINGS["model"], "kind": kind}
    slow = module(encoder_tau=0.5, model=own)
    batch = transitions()
    torch.testing.assert_close(slow.look(batch[Columns.OBS]), slow.model.encode(batch[Columns.OBS]))
    with torch.no_grad():
        for parameter in slow.slow_encoder.parameters():
            parameter.mul_(-1.5)
    seen = slow.look(batch[Columns.OBS])
    assert not torch.allclose(seen, slow.model.encode(batch[Columns.OBS]))
    assert torch.equal(slow.fixed_latents(batch)["latents"], seen)
    save_trial(tmp_path, {**DESCRIPTION, "model": own}, slow.state_dict())
    policy, _ = load_policy(tmp_path)
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    expected = slow.forward_inference({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS].argmax(-1)
    assert np.array_equal(policy.act(policy.initial_state(50), obs)[0], expected)


# --- bonuses


def test_visits_are_counted_by_observation_and_action():
    replay, rng = TransitionReplay(1000, 1), np.random.default_rng(0)
    for length in (30, 50):
        obs = rng.integers(4, size=(length + 1, 1)).astype(np.float32)
        replay.add(obs, rng.integers(3, size=length), np.zeros(length), False)
    batch = replay.sample(200, rng, with_visits=True)
    every = replay.sample(20_000, rng)
    shares = Counter(zip(every.obs[:, 0], every.action, strict=True))
    for obs, action, visits in zip(batch.obs[:, 0], batch.action, batch.visits, strict=True):
        assert visits == pytest.approx(80 * shares[(obs, action)] / 20_000, abs=1.5)
    once = {(o, a): n for o, a, n in zip(batch.obs[:, 0], batch.action, batch.visits, strict=True)}
    assert len(once) == 12
    assert sum(once.values()) == 80
    assert every.visits is None


def test_the_count_bonus_is_the_inverse_root_of_visits():
    m = module(exploration={"bonus": "count", "weight": 3.0})
    bonus = m.bonus({VISITS: torch.tensor([1, 4, 9, 100])})
    torch.testing.assert_close(bonus, torch.tensor([3.0, 1.5, 1.0, 0.3]))
    assert module().bonus(transitions()) is None


@pytest.mark.parametrize("kind", ["parsimonious", "beta_vae"])
def test_the_error_bonus_is_the_models_and_of_no_unit(kind: str):
    m = module(model={**SETTINGS["model"], "kind": kind}, exploration={"bonus": "error", "weight": 2.0})
    batch = transitions()
    z, new_z = m.model.encode(batch[Columns.OBS]), m.model.encode(batch[Columns.NEXT_OBS])
    errors = (m.model.predict(z, batch[Columns.ACTIONS]) - new_z).norm(dim=-1)
    scale = torch.stack([(new_z[i] - new_z[i - 1]).norm() for i in range(len(new_z))]).mean()
    torch.testing.assert_close(m.bonus(batch), (2 * errors / scale).detach())


def test_the_bonus_is_in_the_targets_of_the_critics_and_the_default_has_none():
    losses = []
    batch = {**transitions(), VISITS: torch.full((20,), 4)}
    rewarded = {**batch, Columns.REWARDS: batch[Columns.REWARDS] + 1.5}
    for settings, given in (({"bonus": "count", "weight": 3.0}, batch), ({}, rewarded)):
        results = Learning(exploration=settings).update(given)
        losses.append(results["default_policy"]["critic_loss"].peek())
        assert ("bonus" in results["default_policy"]) == bool(settings)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"encoder_tau": 0.1, "encoder_training": "both"}, "encoder_tau below 1 needs an encoder that the model alone"),
        ({"encoder_tau": 0.1, "model": {"kind": "encoder_only"}}, "encoder_tau below 1 needs an encoder"),
        ({"encoder_tau": 0.0}, "encoder_tau must be greater than 0, got 0"),
        ({"exploration": {"bonus": "error"}, "model": {"kind": "encoder_only"}}, "needs a model that predicts"),
        ({"exploration": {"bonus": "luck"}}, "exploration.bonus must be 'count' or 'error'"),
        ({"exploration": {"weight": -1.0}}, "exploration.weight must be greater than or equal to 0"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(changes: dict, rule: str):
    with pytest.raises(ValueError, match=rule):
        config(**changes)
