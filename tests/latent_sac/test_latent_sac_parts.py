"""Replay, equal rows, losses, optimisers and the runner by themselves; no Ray runtime."""

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import nn

from parsecrl.algorithms.latent_sac import runner as runner_module
from parsecrl.algorithms.latent_sac.checkpoint import FILES, load_policy, load_trial, save_trial
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.latent_sac.runner import WholeEpisodeRunner
from tests.latent_sac.small import DESCRIPTION, SETTINGS, A, Learning, O, changed, config, module, slices, transitions


def touched(part: nn.Module | list[nn.Parameter]) -> bool:
    """Whether a gradient reached any of it."""
    parameters = part.parameters() if isinstance(part, nn.Module) else part
    return any(p.grad is not None and bool((p.grad != 0).any()) for p in parameters)


# --- replay


def filled(capacity: int = 1000) -> TransitionReplay:
    """Episodes e = 0, 1, 2 of 4 + e steps; the observation of step t is (e, t, 0), its action e, its reward t."""
    replay = TransitionReplay(capacity, O)
    for e in range(3):
        T = 4 + e
        obs = np.array([[e, t, 0] for t in range(T + 1)], np.float32)
        replay.add(obs, np.full(T, e), np.arange(T, dtype=np.float32), terminated=e == 1)
    return replay


def test_transitions_come_back_as_they_were():
    batch = filled().sample(500, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.obs[:, 0], batch.action)
    np.testing.assert_array_equal(batch.obs[:, 1], batch.reward)
    np.testing.assert_array_equal(batch.next_obs, batch.obs + np.array([0, 1, 0]))
    np.testing.assert_array_equal(batch.terminated, (batch.action == 1) & (batch.reward == 4))
    assert len({(a, r) for a, r in zip(batch.action, batch.reward, strict=True)}) == 4 + 5 + 6
    assert batch.obs.dtype == batch.reward.dtype == np.float32


def test_slices_stay_within_an_episode_and_begin_everywhere():
    obs, action = filled().slices(500, 3, np.random.default_rng(0))
    assert obs.shape == (500, 4, O)
    assert action.shape == (500, 3)
    np.testing.assert_array_equal(obs[..., 0], np.broadcast_to(action[:, :1], (500, 4)))
    np.testing.assert_array_equal(np.diff(obs[..., 1]), 1)
    assert len({tuple(row) for row in obs[:, 0]}) == 2 + 3 + 4
    with pytest.raises(ValueError, match=r"model\.rollout_steps must be at most the length of an episode, got 7"):
        filled().slices(1, 7, np.random.default_rng(0))


def test_the_oldest_go_and_what_is_left_is_whole():
    replay = filled(capacity=8)
    assert len(replay) == 8
    obs, action = replay.slices(300, 2, np.random.default_rng(0))
    assert set(action.flatten()) == {1, 2}  # two steps of the second episode, all six of the third
    np.testing.assert_array_equal(np.diff(obs[..., 1]), 1)
    for _ in range(5):
        replay.add(np.random.default_rng(1).normal(size=(9, O)), np.zeros(8), np.zeros(8), False)
        replay.add(np.random.default_rng(2).normal(size=(9, O)), np.ones(8), np.zeros(8), False)
    assert len(replay._table) <= 2 * 9  # observations that nothing refers to were forgotten
    assert (replay.sample(50, np.random.default_rng(0)).action == 1).all()


def test_a_saved_replay_is_the_same(tmp_path: Path):
    replay, other = filled(), TransitionReplay(1000, O)
    replay.save(tmp_path / "replay.npz")
    other.load(tmp_path / "replay.npz")
    for each in (replay, other):
        each.add(np.array([[0, 0, 0], [9, 9, 9]]), np.zeros(1), np.zeros(1), False)
    a, b = (each.sample(100, np.random.default_rng(3)) for each in (replay, other))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# --- losses


@pytest.mark.parametrize("stays", [False, True])
def test_the_policy_loss_is_sacs_for_discrete_actions(stays: bool):
    m, batch = module(alpha=0.3, discount=0.9, encoder_training="both"), transitions()
    if stays:  # nothing is reached that is not where a transition begins
        batch[Columns.NEXT_OBS] = batch[Columns.OBS]
    found = m.policy_loss(batch)
    s, s_next, a = batch[Columns.OBS], batch[Columns.NEXT_OBS], batch[Columns.ACTIONS]
    with torch.no_grad():
        z_next = m.model.encode(s_next)
        pi_next = m.policy(z_next).softmax(-1)
        q_next = torch.minimum(m.qf_target(z_next), m.qf_twin_target(z_next))
        v_next = (pi_next * (q_next - 0.3 * pi_next.log())).sum(-1)
        y = batch[Columns.REWARDS] + 0.9 * torch.where(batch[Columns.TERMINATEDS], 0.0, v_next)
    rows, z = torch.arange(len(a)), m.model.encode(s)
    pi, q = m.policy(z).softmax(-1), torch.minimum(m.qf(z), m.qf_twin(z)).detach()
    critic = sum(((net(z)[rows, a] - y) ** 2).mean() for net in (m.qf, m.qf_twin))
    actor = (pi * (0.3 * pi.log() - q)).sum(-1).mean()
    entropy = -(pi * pi.log()).sum(-1).mean()
    terms = found["terms"]
    torch.testing.assert_close(terms["critic_loss"], critic.detach())
    torch.testing.assert_close(terms["actor_loss"], actor.detach())
    torch.testing.assert_close(terms["entropy"], entropy.detach())
    torch.testing.assert_close(found["loss"], critic + actor)
    trained = [p for part in (m.model.encoder, m.policy, m.qf, m.qf_twin) for p in part.parameters()]
    for x, y in zip(
        torch.autograd.grad(found["loss"], trained), torch.autograd.grad(critic + actor, trained), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
    assert terms["alpha"].item() == pytest.approx(0.3)


def test_latents_that_stay_the_same_are_computed_once_for_all_updates_of_a_call():
    m, batch = module(), transitions()
    latents = m.fixed_latents(batch)
    for given in latents.values():
        assert not given.requires_grad
    found, expected = m.policy_loss({**batch, **latents}), m.policy_loss(batch)
    weights = list(m.policy.parameters()) + list(m.qf.parameters())
    for a, b in zip(*(torch.autograd.grad(x["loss"], weights) for x in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(found["terms"], expected["terms"])
    assert module(encoder_training="both").fixed_latents(batch) == {}
    assert module(model={**SETTINGS["model"], "kind": "encoder_only"}).fixed_latents(batch) == {}

    learning, calls = Learning(), []
    learning.module.model.encoder.register_forward_hook(lambda layer, inputs, output: calls.append(len(output)))
    two = {name: torch.cat([column, column]) for name, column in batch.items()}
    learning.update(two, minibatch_size=len(batch[UPDATE]))
    assert calls == [2 * len(two[UPDATE])]


@pytest.mark.parametrize(
    ("kind", "training", "reaches"),
    [
        ("parsimonious", "dynamics", False),
        ("parsimonious", "both", True),
        ("beta_vae", "dynamics", False),
        ("beta_vae", "both", True),
        ("encoder_only", "dynamics", True),  # nothing else would train it
        ("encoder_only", "both", True),
    ],
)
def test_gradients_of_actor_and_critics_reach_the_encoder_where_the_switch_says_so(kind, training, reaches):
    m = module(model={**SETTINGS["model"], "kind": kind}, encoder_training=training)
    m.forward_train(transitions())["loss"].backward()
    encoder = set(m.model.encoder.parameters())
    assert touched(m.model.encoder) == reaches
    assert not touched([p for p in m.model.parameters() if p not in encoder])
    assert touched(m.policy)
    assert touched(m.qf)
    assert touched(m.qf_twin)
    assert not touched(m.qf_target)
    assert not touched(m.qf_twin_target)
    assert m.log_alpha.grad is None


@pytest.mark.parametrize("kind", ["parsimonious", "beta_vae"])
@pytest.mark.parametrize("training", ["dynamics", "both"])
def test_gradients_of_the_model_reach_the_model_alone(kind, training):
    m = module(model={**SETTINGS["model"], "kind": kind}, encoder_training=training)
    m.forward_train(slices())["loss"].backward()
    assert touched(m.model.encoder)
    assert touched([p for p in m.model.parameters() if p not in set(m.model.encoder.parameters())])
    for part in (m.policy, m.qf, m.qf_twin, m.qf_target, m.qf_twin_target):
        assert not touched(part)


def test_the_actors_gradient_does_not_reach_the_critics_and_back():
    m, batch = module(), transitions()
    loss = m.policy_loss(batch)["loss"]
    policy = list(m.policy.parameters())
    with_critics = torch.autograd.grad(loss, policy)
    z = m.model.encode(batch[Columns.OBS]).detach()
    log_pi = m.policy(z).log_softmax(-1)
    q = torch.minimum(m.qf(z), m.qf_twin(z)).detach()
    alone = torch.autograd.grad((log_pi.exp() * (0.5 * log_pi - q)).sum(-1).mean(), policy)
    for a, b in zip(with_critics, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# --- optimisers


def test_each_kind_of_update_steps_what_it_trains():
    learning = Learning()
    start = learning.weights()
    learning.update(slices())
    after_model = learning.weights()
    assert changed(start, after_model) == {"encoder", "model"}
    learning.update(transitions())
    after_policy = learning.weights()
    assert changed(after_model, after_policy) == {"policy", "qf", "qf_twin", "qf_target", "qf_twin_target"}
    learning.update(slices(seed=1))
    assert changed(after_policy, learning.weights()) == {"encoder", "model"}

    both = Learning(encoder_training="both", target_entropy=1.0)
    start = both.weights()
    both.update(transitions())
    critics = {"qf", "qf_twin", "qf_target", "qf_twin_target"}
    assert changed(start, both.weights()) == {"encoder", "policy", "log_alpha"} | critics


def test_the_first_step_of_adam_is_each_parts_own_learning_rate():
    learning = Learning(policy_learning_rate=0.01, dynamics_learning_rate=0.002)
    start = learning.weights()
    learning.update(slices())
    learning.update(transitions())
    moved = {name: (value - start[name]).abs().max().item() for name, value in learning.weights().items()}
    assert moved["policy.0.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved["qf_twin.0.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved["model.encoder.0.weight"] == pytest.approx(0.002, rel=1e-3)
    assert moved["model.posterior_net.0.weight"] == pytest.approx(0.002, rel=1e-3)
    alone = Learning(model={**SETTINGS["model"], "kind": "encoder_only"}, policy_learning_rate=0.01)
    start = alone.weights()
    alone.update(transitions())
    moved_by = (alone.weights()["model.encoder.0.weight"] - start["model.encoder.0.weight"]).abs().max().item()
    assert moved_by == pytest.approx(0.01, rel=1e-3)


def test_targets_move_by_tau_of_the_way():
    learning = Learning(tau=0.25, policy_learning_rate=0.01)
    start = learning.weights()
    assert torch.equal(start["qf_target.0.weight"], start["qf.0.weight"])
    learning.update(transitions())
    after = learning.weights()
    for name in start:
        if name.startswith(("qf_target.", "qf_twin_target.")):
            expected = 0.75 * start[name] + 0.25 * after[name.replace("_target", "")]
            torch.testing.assert_close(after[name], expected)


def bandit(wanted: float | None) -> tuple[float, float]:
    """(entropy, alpha) after learning that action a pays a, in any of three cells, without a future."""
    learning = Learning(
        target_entropy=wanted, alpha=0.5, policy_learning_rate=0.01, alpha_learning_rate=0.01, batch_size=60
    )
    batch = transitions(B=60, states=3)
    batch[Columns.REWARDS] = batch[Columns.ACTIONS].float()
    batch[Columns.TERMINATEDS] = torch.ones(60, dtype=torch.bool)
    for _ in range(600):
        learning.update(batch)
    with torch.no_grad():
        terms = learning.module.policy_loss(batch)["terms"]
    return terms["entropy"].item(), terms["alpha"].item()


def boltzmann_entropy(alpha: float) -> float:
    p = (torch.arange(A).double() / alpha).softmax(-1)
    return float(-(p * p.log()).sum())


@pytest.mark.learn
def test_alpha_brings_the_entropy_to_its_target():
    entropy, alpha = bandit(1.2)
    assert entropy == pytest.approx(1.2, abs=0.05)
    assert boltzmann_entropy(alpha) == pytest.approx(1.2, abs=0.1)  # the policy is that of the closed form
    entropy, alpha = bandit(None)
    assert alpha == pytest.approx(0.5)
    assert entropy == pytest.approx(boltzmann_entropy(0.5), abs=0.05)


def test_what_is_not_finite_ends_the_update():
    learning = Learning()
    batch = transitions()
    batch[Columns.REWARDS][0] = math.inf
    with pytest.raises(FloatingPointError, match="'critic_loss' became inf at update 0"):
        learning.update(batch)


def test_a_weight_that_is_not_finite_ends_the_call():
    learning = Learning()
    bias = learning.module.qf[-1].bias
    bias.register_hook(lambda gradient: gradient * math.nan)  # the loss of this update is finite
    with pytest.raises(FloatingPointError, match="the norm of the weights became nan; lower"):
        learning.update(transitions())


# --- the runner


def runner(**changes: Any) -> WholeEpisodeRunner:
    return WholeEpisodeRunner(config=config(**changes), worker_index=0)


def test_episodes_are_whole_and_those_of_their_seed():
    first, second = runner(), runner()
    weights = first.module.get_state()
    (a,), (b,), (c,) = first.play(weights, 5), second.play(weights, 5), second.play(weights, 6)
    assert len(a) == 12
    assert a.is_truncated
    assert not a.is_terminated
    np.testing.assert_array_equal(a.get_actions(), b.get_actions())
    np.testing.assert_array_equal(np.asarray(a.get_observations()), np.asarray(b.get_observations()))
    assert not np.array_equal(a.get_actions(), c.get_actions())
    metrics = second.get_metrics()
    assert metrics["num_episodes"].peek() == 2


def test_what_is_played_is_what_the_world_does():
    played = runner()
    (episode,) = played.play(played.module.get_state(), 0)
    env = gymnasium.make(played.config.env, **played.config.env_config)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs, episode.get_observations(0))
    for t, action in enumerate(episode.get_actions()):
        obs, reward, *_ = env.step(action)
        np.testing.assert_array_equal(obs, episode.get_observations(t + 1))
        assert reward == episode.get_rewards(t)


def test_actions_are_drawn_by_their_probabilities_and_without_exploration_the_best_is_taken():
    played = runner()
    obs = np.random.default_rng(0).normal(size=played.env.single_observation_space.shape).astype(np.float32)
    nn.init.normal_(played.module.policy[-1].bias)
    with torch.no_grad():
        p = played.module.forward_inference({Columns.OBS: torch.from_numpy(obs)[None]})
    p = p[Columns.ACTION_DIST_INPUTS][0].softmax(-1).numpy()
    (cumulative,) = played._cumulative(obs[None], explore=True)
    drawn = np.searchsorted(cumulative, (np.arange(10_000) + 0.5) / 10_000, side="right")
    np.testing.assert_allclose(np.bincount(drawn, minlength=A) / 10_000, p, atol=2e-4)
    (greedy,) = played._cumulative(obs[None], explore=False)
    assert (np.searchsorted(greedy, [0.0, 0.3, 0.999], side="right") == p.argmax()).all()


def test_probabilities_of_what_was_seen_last_are_computed_together_and_with_the_new_weights():
    played, fresh, weights = runner(), runner(), runner().module.get_state()
    (first,) = played.play(weights, 5)
    calls = []
    played.module.policy.register_forward_hook(lambda layer, inputs, output: calls.append(len(output)))
    weights = {name: -value for name, value in weights.items()}
    (again,), (expected,) = played.play(weights, 6), fresh.play(weights, 6)
    before = {obs.tobytes() for obs in first.get_observations()}
    new = {obs.tobytes() for obs in again.get_observations()[:-1]} - before
    assert calls == [len(before)] + [1] * len(new)
    np.testing.assert_array_equal(again.get_actions(), expected.get_actions())


def test_of_what_was_seen_in_all_calls_the_last_is_expected_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner_module, "EXPECTED", 10)
    played = runner(world={**SETTINGS["world"], "size": 5})
    seen = []
    for seed in (5, 6):
        (episode,) = played.play(played.module.get_state(), seed)
        seen += [obs.tobytes() for obs in episode.get_observations()]
    last = list(dict.fromkeys(reversed(seen)))  # the latest first
    assert len(last) > 10 > len(set(seen[13:]))  # more than one call's
    assert list(played._recent) == last[:10][::-1]


def test_settings_that_it_does_not_have_are_named():
    with pytest.raises(ValueError, match="learning_rate is not a known key"):
        config(learning_rate=1.0)
    with pytest.raises(ValueError, match=r"model\.kind must be 'parsimonious'"):
        module(model={"kind": "gru"})


@pytest.mark.parametrize("kind", ["parsimonious", "encoder_only"])
def test_a_trial_without_updates_is_refused(kind):
    with pytest.raises(ValueError, match=r"there must be updates.*raise policy_updates"):
        config(policy_updates=0, dynamics_updates=0 if kind == "parsimonious" else 5, model={"kind": kind})


# Checkpoints.


def test_a_policy_is_read_without_its_world(tmp_path):
    saved = module()
    save_trial(tmp_path, {**DESCRIPTION, "world": None}, saved.state_dict())
    policy, description = load_policy(tmp_path)
    assert description["policy"] == SETTINGS["policy"]
    obs = torch.randn(4, O, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = saved.policy(saved.model.encode(obs)).argmax(-1)
    assert np.array_equal(policy.act(policy.initial_state(4), obs)[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        *({key: None} for key in ("spaces", "model", "policy")),
        {"spaces": {"observation": {"shape": []}, "action": {"n": A}}},
        {"spaces": {"observation": {"shape": [O + 1]}, "action": {"n": A}}},
        {"model": {**SETTINGS["model"], "kind": "legs"}},
        {"policy": {"hidden_size": "wide", "num_layers": 2}},
    ],
)
def test_a_damaged_description_is_a_sentence(change, tmp_path):
    described = {key: value for key, value in {**DESCRIPTION, **change}.items() if value is not None}
    save_trial(tmp_path, described, module().state_dict())
    with pytest.raises(ValueError, match=r"holds no whole latent_sac checkpoint \(.*; give an undamaged"):
        load_policy(tmp_path)


def test_missing_tensors_are_a_sentence(tmp_path):
    weights = {f"model.{name}": value for name, value in module().model.state_dict().items()}
    FILES.write(tmp_path, DESCRIPTION, weights)
    for load in (load_policy, load_trial):
        with pytest.raises(ValueError, match="holds no whole latent_sac checkpoint"):
            load(tmp_path)
