"""Actions that are vectors: models, losses, replay, runner and policies; no Ray runtime."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn.functional import one_hot

from parsecrl.algorithms.latent_sac.checkpoint import load_policy, save_trial
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import LatentSACRLModule, check_bonus, check_target_entropy
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.latent_sac.runner import WholeEpisodeRunner
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.models import TransitionSequence
from parsecrl.algorithms.training.seeding import derive_seed
from tests.latent_sac.small import DESCRIPTION, Learning, O, changed, config

SIZE = 2  # entries of an action
SEEN, ACTION = spaces.Box(-10, 10, (O,)), spaces.Box(-1, 1, (SIZE,))
PENDULUM = {"id": "Pendulum-v1", "max_episode_steps": 15}


def module(**changes: Any) -> LatentSACRLModule:
    settings = config(**changes)._model_config_auto_includes
    return LatentSACRLModule(observation_space=SEEN, action_space=ACTION, model_config=settings)


def transitions(B: int = 20, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        Columns.OBS: torch.randn(B, O, generator=rng),
        Columns.NEXT_OBS: torch.randn(B, O, generator=rng),
        Columns.ACTIONS: 2 * torch.rand(B, SIZE, generator=rng) - 1,
        Columns.REWARDS: torch.randn(B, generator=rng),
        Columns.TERMINATEDS: torch.rand(B, generator=rng) < 0.3,
        UPDATE: torch.full((B,), 7),
    }


# --- models


@pytest.mark.parametrize("kind", ["parsimonious", "parsimonious_stochastic", "beta_vae", "rnn", "ssm"])
def test_a_one_hot_vector_is_to_a_model_what_its_number_is(kind: str):
    """The same loss, terms and predictions, so that codes come from latent and action either way."""
    settings = {"kind": kind, "latent_size": 4, "code_size": 5, "hidden_size": 16, "movement_weight": 1.0}
    model = make_model(settings, O, 5, seed=0)
    rng = torch.Generator().manual_seed(0)
    obs, action = torch.randn(9, 4, O, generator=rng), torch.randint(5, (9, 3), generator=rng)
    vectors = one_hot(action, 5).float()
    found = [model.loss(TransitionSequence(obs, a), torch.Generator().manual_seed(1)) for a in (action, vectors)]
    torch.testing.assert_close(found[0].total, found[1].total)
    torch.testing.assert_close(found[0].terms, found[1].terms)
    state = model.begin(obs[:, 0])
    torch.testing.assert_close(model.predict(state, action[:, 0]), model.predict(state, vectors[:, 0]))
    with pytest.raises(ValueError, match=r"float32 \[B, T, 5\]"):
        model.loss(TransitionSequence(obs, vectors[..., :4]))


# --- losses


def test_the_losses_are_sacs_for_a_squashed_gaussian():
    m, batch = module(alpha=0.3, discount=0.9, encoder_training="both"), transitions()
    found = m.policy_loss(batch)
    seed = derive_seed(m.model_config["trial_seed"], "actions", 7)
    eps = torch.randn(2, 20, SIZE, generator=torch.Generator().manual_seed(seed))

    def draw(raw: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = raw.chunk(2, -1)
        pi = Independent(TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1)), 1)
        action = torch.tanh(mean + log_std.exp() * noise)
        return action, pi.log_prob(action)

    with torch.no_grad():
        z_next = m.model.encode(batch[Columns.NEXT_OBS])
        a_next, log_next = draw(m.policy(z_next), eps[0])
        seen = torch.cat([z_next, a_next], -1)
        q_next = torch.minimum(m.qf_target(seen), m.qf_twin_target(seen))[:, 0]
        v_next = q_next - 0.3 * log_next
        y = batch[Columns.REWARDS] + 0.9 * torch.where(batch[Columns.TERMINATEDS], 0.0, v_next)
    z = m.model.encode(batch[Columns.OBS])
    seen = torch.cat([z, batch[Columns.ACTIONS]], -1)
    critic = sum(((net(seen)[:, 0] - y) ** 2).mean() for net in (m.qf, m.qf_twin))
    action, log_pi = draw(m.policy(z), eps[1])
    seen = torch.cat([z.detach(), action], -1)
    actor = (0.3 * log_pi - torch.minimum(m.qf(seen), m.qf_twin(seen))[:, 0]).mean()
    for name, value in (("critic_loss", critic), ("actor_loss", actor), ("entropy", -log_pi.mean())):
        torch.testing.assert_close(found["terms"][name], value.detach(), rtol=1e-4, atol=1e-4)
    policy, critics = list(m.policy.parameters()), [*m.qf.parameters(), *m.qf_twin.parameters()]
    # The actor's loss trains no critic, and the critics' no actor.
    expected = [*torch.autograd.grad(actor, policy), *torch.autograd.grad(critic, critics)]
    for a, b in zip(torch.autograd.grad(found["loss"], policy + critics), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_noise_is_of_the_update():
    m, batch = module(), transitions()
    first = m.policy_loss(batch)["loss"]
    assert torch.equal(first, m.policy_loss(batch)["loss"])
    assert not torch.equal(first, m.policy_loss({**batch, UPDATE: batch[UPDATE] + 1})["loss"])


def test_latents_that_are_given_make_the_same_losses():
    m, batch = module(), transitions()
    torch.testing.assert_close(
        m.policy_loss({**batch, **m.fixed_latents(batch)})["terms"], m.policy_loss(batch)["terms"]
    )


def test_each_update_steps_what_it_trains():
    learning = Learning(spaces=(SEEN, ACTION))
    start = learning.weights()
    batch = transitions()
    learning.update(batch)
    after = learning.weights()
    assert changed(start, after) == {"policy", "qf", "qf_twin", "qf_target", "qf_twin_target"}
    obs = torch.stack([batch[Columns.OBS], batch[Columns.NEXT_OBS]], 1)
    learning.update({Columns.OBS: obs, Columns.ACTIONS: batch[Columns.ACTIONS][:, None], UPDATE: batch[UPDATE]})
    assert changed(after, learning.weights()) == {"encoder", "model"}


@pytest.mark.parametrize(
    ("nats", "action", "rule"),
    [
        (1.4, ACTION, r"less than that of uniform actions, 1\.386 nats for 2 in \[-1, 1\], got 1\.4"),
        (1.7, spaces.Discrete(5), r"less than that of uniform actions, 1\.609 nats for 5, got 1\.7"),
        (-2.0, spaces.Discrete(5), "must be 0 nats or more for discrete actions"),
    ],
)
def test_target_entropies_that_no_policy_can_exceed_are_refused(nats: float, action: spaces.Space, rule: str):
    check_target_entropy(-2.0, ACTION)
    check_target_entropy(None, action)
    with pytest.raises(ValueError, match=rule):
        check_target_entropy(nats, action)


@pytest.mark.learn
def test_it_learns_the_soft_optimum_of_a_task_of_one_step():
    """Reward -(a - c)^2, c the state's best action: the soft policy is normal, of mean c and variance alpha / 2."""
    alpha = 0.02
    learning = Learning(
        spaces=(SEEN, ACTION), alpha=alpha, policy_learning_rate=3e-3, policy={"hidden_size": 64, "num_layers": 2}
    )
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(3, O, generator=rng)
    best = torch.tensor([[-0.6, 0.2], [0.1, 0.5], [0.4, -0.3]])
    for update in range(1200):
        s = torch.randint(3, (128,), generator=rng)
        action = 2 * torch.rand(128, SIZE, generator=rng) - 1
        reward = -(action - best[s]).square().sum(-1)
        ends = torch.ones(128, dtype=torch.bool)
        batch = {Columns.OBS: table[s], Columns.NEXT_OBS: table[s], Columns.ACTIONS: action, Columns.REWARDS: reward}
        learning.update({**batch, Columns.TERMINATEDS: ends, UPDATE: torch.full((128,), update)})
    m = learning.module
    raw = m.forward_inference({Columns.OBS: table})[Columns.ACTION_DIST_INPUTS]
    mean, log_std = raw.chunk(2, -1)
    assert (mean.tanh() - best).abs().max() < 0.1
    deviation = log_std.exp() * (1 - mean.tanh().square())  # of the squashed action, where it is small
    assert deviation.mean().item() == pytest.approx(math.sqrt(alpha / 2), rel=0.4)


# --- replay, runner and policies


def test_the_replay_keeps_vectors(tmp_path):
    replay, rng = TransitionReplay(100, O, SIZE), np.random.default_rng(0)
    obs, action = rng.normal(size=(9, O)).astype(np.float32), rng.uniform(-1, 1, (8, SIZE)).astype(np.float32)
    replay.add(obs, action, np.arange(8, dtype=np.float32), False)
    replay.save(tmp_path / "replay.npz")
    again = TransitionReplay(100, O, SIZE)
    again.load(tmp_path / "replay.npz")
    batch = again.sample(50, rng)
    np.testing.assert_array_equal(batch.action, action[batch.reward.astype(int)])
    slices, actions = again.slices(20, 3, rng)
    assert slices.shape == (20, 4, O)
    assert actions.shape == (20, 3, SIZE)
    assert actions.dtype == np.float32


def test_episodes_of_a_gymnasium_task_are_those_of_their_seed():
    made = config(world=PENDULUM)
    runner = WholeEpisodeRunner(config=made, worker_index=0)
    weights = runner.module.get_state()
    (a,), (b,), (c,) = (runner.play(weights, seed) for seed in (5, 5, 6))
    actions = np.asarray(a.get_actions())
    assert actions.shape == (15, 1)
    assert np.abs(actions).max() <= 1
    assert np.ptp(actions) > 0
    np.testing.assert_array_equal(actions, np.asarray(b.get_actions()))
    np.testing.assert_array_equal(np.asarray(a.get_observations()), np.asarray(b.get_observations()))
    assert not np.array_equal(actions, np.asarray(c.get_actions()))
    (greedy,) = runner.play(weights, 5, explore=False)
    seen = torch.from_numpy(np.asarray(greedy.get_observations(), np.float32)[:1])
    raw = runner.module.forward_inference({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    np.testing.assert_allclose(greedy.get_actions()[0], raw[0, :1].tanh().numpy(), rtol=1e-6)


def test_a_loaded_policy_acts_as_the_module_does(tmp_path):
    m = module()
    described = {**DESCRIPTION, "spaces": {"observation": {"shape": [O]}, "action": {"kind": "Box", "shape": [SIZE]}}}
    save_trial(tmp_path, described, m.state_dict())
    policy, _ = load_policy(tmp_path)
    obs = torch.randn(30, O, generator=torch.Generator().manual_seed(0))
    raw = m.forward_inference({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
    action, state = policy.act(policy.initial_state(30), obs)
    np.testing.assert_allclose(action, raw.chunk(2, -1)[0].tanh().numpy(), rtol=1e-6)
    assert state["action"].shape == (30, SIZE)
    drawn = policy.act(state, obs, np.random.default_rng(0))[0]
    assert np.abs(drawn).max() <= 1
    assert not np.allclose(drawn, action)


def test_visits_of_vectors_cannot_be_counted():
    check_bonus({"bonus": "error", "weight": 1.0}, ACTION)
    with pytest.raises(ValueError, match=r"exploration\.bonus=count needs discrete actions"):
        check_bonus({"bonus": "count", "weight": 1.0}, ACTION)
