import pytest
import torch

from parsecrl.algorithms.models import RSSM, Belief, Gaussian, LossWeights, ReplaySequence
from parsecrl.algorithms.models.rssm import kl_divergence
from tests.models.small import OBS, A, random_belief, replay, seeded, small_model

# Closed forms


def test_kl_of_equal_gaussians_is_zero():
    q = Gaussian(torch.randn(3, 4, generator=seeded(0)), torch.rand(3, 4, generator=seeded(1)) + 0.1)
    assert torch.equal(kl_divergence(q, q), torch.zeros(3))


def test_kl_equals_the_closed_form():
    g = seeded(2)
    q, p = (
        Gaussian(torch.randn(7, 4, generator=g, dtype=torch.float64), torch.rand(7, 4, generator=g).double() + 0.1)
        for _ in range(2)
    )
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(*q), torch.distributions.Normal(*p)).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_standard_deviations_are_at_least_the_minimum():
    model = small_model(min_std=0.3)
    posterior = model.observe(replay(), torch.zeros(8, 3, 4))
    assert posterior.prior.std.min() > 0.3
    assert posterior.posterior.std.min() > 0.3


# Filtering


def test_filtering_a_sequence_without_noise_equals_filtering_step_by_step():
    model, sequence = small_model(), replay(first=(0, 5))
    whole = model.observe(sequence, torch.zeros(8, 3, 4)).belief
    belief, action = model.initial_belief(3), torch.zeros(3, A)
    for t in range(8):
        if sequence.is_first[0, t]:
            belief, action = model.initial_belief(3), torch.zeros(3, A)
        belief = model.update_belief(belief, action, sequence.obs[:, t])
        torch.testing.assert_close(Belief(whole.h[:, t], whole.s[:, t]), belief)
        action = sequence.action[:, t]


def test_noise_enters_as_mean_plus_std_times_noise():
    model, sequence = small_model(), replay()
    noise = torch.randn(8, 3, 4, generator=seeded(3))
    filtered = model.observe(sequence, noise)
    expected = filtered.posterior.mean + filtered.posterior.std * noise.transpose(0, 1)
    torch.testing.assert_close(filtered.belief.s, expected)


@pytest.mark.parametrize("reset", [1, 3, 7])
def test_reset_forgets_the_past(reset):
    model, sequence = small_model(), replay(first=(reset,))
    obs, action = sequence.obs.requires_grad_(), sequence.action.requires_grad_()
    noise = torch.randn(8, 3, 4, generator=seeded(3)).requires_grad_()
    belief = model.observe(sequence, noise).belief
    after = belief.h[:, reset:].sum() + belief.s[:, reset:].sum()
    g_obs, g_action, g_noise = torch.autograd.grad(after, (obs, action, noise))
    assert (g_obs[:, :reset] == 0).all()
    assert (g_obs[:, reset:] != 0).any(-1).all()
    assert (g_action[:, :reset] == 0).all()  # the action before the reset ended the old episode
    assert (g_action[:, reset:-1] != 0).all()
    assert (g_action[:, -1] == 0).all()  # taken after the last observation
    assert (g_noise[:reset] == 0).all()


def test_the_future_does_not_reach_the_past():
    model, sequence = small_model(), replay()
    obs, action = sequence.obs.requires_grad_(), sequence.action.requires_grad_()
    belief = model.observe(sequence, torch.zeros(8, 3, 4)).belief
    g_obs, g_action = torch.autograd.grad(belief.h[:, 4].sum() + belief.s[:, 4].sum(), (obs, action))
    assert (g_obs[:, 5:] == 0).all()
    assert (g_obs[:, :5] != 0).any(-1).all()
    assert (g_action[:, 4:] == 0).all()
    assert (g_action[:, :4] != 0).all()


def test_a_fragment_starts_from_nothing_whether_or_not_it_starts_an_episode():
    model, sequence = small_model(), replay()
    noise = torch.randn(8, 3, 4, generator=seeded(3))
    first = sequence.is_first.clone()
    first[:, 0] = True
    inside, start = model.observe(sequence, noise), model.observe(sequence._replace(is_first=first), noise)
    torch.testing.assert_close(inside.belief, start.belief)


def test_sequences_of_a_batch_are_independent():
    model, sequence = small_model(), replay(first=(2,))
    noise = torch.randn(8, 3, 4, generator=seeded(3))
    whole = model.observe(sequence, noise).belief
    for b in range(3):
        row = ReplaySequence(*(x[b : b + 1] for x in sequence))
        alone = model.observe(row, noise[:, b : b + 1]).belief
        torch.testing.assert_close(Belief(whole.h[b : b + 1], whole.s[b : b + 1]), alone)
    obs = sequence.obs.requires_grad_()
    (g,) = torch.autograd.grad(model.observe(sequence, noise).belief.h[1].sum(), obs)
    assert (g[[0, 2]] == 0).all()
    assert (g[1] != 0).any()


# Planning


def naive_rewards(model: RSSM, belief: Belief, actions: torch.Tensor) -> torch.Tensor:
    """Candidate by candidate, step by step."""
    B, N, H, _ = actions.shape
    rewards = torch.zeros(B, N, H)
    for b in range(B):
        for n in range(N):
            h, s = belief.h[b : b + 1], belief.s[b : b + 1]
            for t in range(H):
                h = model.gru(torch.cat([s, actions[b, n, t][None]], -1), h)
                s = model.prior_net(h)[:, : model.stochastic_size]
                standard = model.reward_net(torch.cat([h, s], -1)).squeeze()
                rewards[b, n, t] = model.reward_norm.mean + standard * model.reward_norm.var.sqrt()
    return rewards


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(("B", "N", "H"), [(1, 1, 1), (2, 3, 4), (3, 1, 5), (1, 9, 1)])
def test_predicted_rewards_equal_a_naive_rollout(B, N, H, grad):
    model = small_model()
    belief, actions = random_belief(model, B), 2 * torch.rand(B, N, H, A, generator=seeded(4)) - 1
    with torch.set_grad_enabled(grad):
        rewards = model.predict_rewards(belief, actions)
    assert rewards.requires_grad == grad
    torch.testing.assert_close(rewards, naive_rewards(model, belief, actions), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("B", "N"), [(1, 1000), (3, 700), (40, 11), (7, 257)])
def test_predicted_rewards_do_not_depend_on_whether_a_gradient_is_asked_for(B, N):
    model = small_model()
    belief, actions = random_belief(model, B), 2 * torch.rand(B, N, 3, A, generator=seeded(4)) - 1
    with torch.no_grad():
        quick = model.predict_rewards(belief, actions)
    torch.testing.assert_close(quick, model.predict_rewards(belief, actions).detach(), rtol=1e-5, atol=1e-6)


def test_predicted_rewards_of_a_belief_depend_on_its_own_candidates():
    model = small_model()
    h, s = (x.requires_grad_() for x in random_belief(model, 3))
    actions = (2 * torch.rand(3, 4, 5, A, generator=seeded(4)) - 1).requires_grad_()
    rewards = model.predict_rewards(Belief(h, s), actions)
    g_h, g_s, g_u = torch.autograd.grad(rewards[1, 2, 3], (h, s, actions))
    assert (g_h[1] != 0).any()
    assert (g_s[1] != 0).any()
    assert (g_h[[0, 2]] == 0).all()
    assert (g_s[[0, 2]] == 0).all()
    assert (g_u[1, 2, :4] != 0).all()
    g_u[1, 2, :4] = 0
    assert (g_u == 0).all()  # neither other candidates nor later actions


def test_transition_parameters_are_the_rollout_without_the_reward():
    model = small_model()
    rewards = model.predict_rewards(random_belief(model, 2), torch.zeros(2, 3, 4, A))
    rewards.sum().backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None and (p.grad != 0).any()}
    expected = [*model.transition_parameters(), *model.reward_net.parameters()]
    assert reached == {id(p) for p in expected}


# The bound


def brute_force_loss(model: RSSM, sequence: ReplaySequence, weights: LossWeights, seed: int) -> torch.Tensor:
    """Every distance d from every start step on its own; the noise drawn in the loss's order."""
    B, T = sequence.obs.shape[:2]
    S, D = model.stochastic_size, weights.overshooting_steps
    g = seeded(seed)
    filtered = model.observe(sequence, torch.randn(T, B, S, generator=g))
    eps = [torch.randn(B, T - i, S, generator=g) for i in range(min(D, T - 1) - 1)]
    features = torch.cat(filtered.belief, -1)
    obs_error = (model.obs_net(features) - model.obs_norm(sequence.obs)).square().sum(-1).mean()
    standard = (sequence.reward - model.reward_norm.mean.float()) / model.reward_norm.var.sqrt().float()
    reward_error = 8 * ((1 + (model.reward_net(features)[..., 0] - standard).square() / 4).sqrt() - 1)
    reward_error = reward_error.masked_fill(sequence.is_first, 0.0).mean()
    divergence = kl_divergence(filtered.posterior, filtered.prior).clamp(min=weights.free_nats).mean()
    for d in range(2, min(D, T - 1) + 1):
        terms = []
        for b in range(B):
            for start in range(T - d):
                t = start + d
                if sequence.is_first[b, start + 1 : t + 1].any():
                    continue
                h = filtered.belief.h[b, start + 1]
                prior = Gaussian(filtered.prior.mean[b, start + 1], filtered.prior.std[b, start + 1])
                for i in range(2, d + 1):
                    step = start + i - 1
                    # The noise of distance i is indexed by the step it starts from, counted from the first one left.
                    s = prior.mean + prior.std * eps[i - 2][b, step - (i - 2)]
                    h = model.gru(torch.cat([s, sequence.action[b, step]], -1)[None], h[None])[0]
                    prior = model._gaussian(model.prior_net(h))
                q = Gaussian(filtered.posterior.mean[b, t], filtered.posterior.std[b, t])
                terms.append(kl_divergence(q, prior).clamp(min=weights.free_nats))
        divergence = divergence + weights.overshooting_weight * torch.stack(terms).mean()
    return (
        weights.observation_weight * obs_error
        + weights.reward_weight * reward_error
        + weights.kl_weight * divergence / D
    )


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("free_nats", [0.0, 1.0])
def test_loss_equals_brute_force(steps, free_nats):
    model, sequence = small_model(), replay(first=(5,))
    weights = LossWeights(0.7, 11.0, 1.3, free_nats, overshooting_steps=steps, overshooting_weight=0.6)
    with torch.no_grad():
        loss, terms, belief = model.loss(sequence, weights, seeded(6))
        expected = brute_force_loss(model, sequence, weights, 6)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert belief.h.shape == (3, 8, 16)
    assert belief.s.shape == (3, 8, 4)
    assert all(not term.requires_grad for term in terms.values())


def test_multi_step_prediction_does_not_cross_episodes():
    model, sequence = small_model(), replay(first=(4,))
    action = sequence.action.requires_grad_()
    weights = LossWeights(0.0, 0.0, 1.0, 0.0, overshooting_steps=4)
    filtered = model.observe(sequence, torch.zeros(8, 3, 4))
    far = model._overshooting_kl(sequence, filtered.belief, filtered.prior, filtered.posterior, weights, seeded(0))
    (g,) = torch.autograd.grad(far, action)
    assert (g[:, 3] == 0).all()  # led into the new episode's first step
    assert (g[:, [0, 1, 2, 4, 5, 6]] != 0).all()


def test_multi_step_bound_of_a_sequence_of_first_steps_is_finite():
    model, sequence = small_model(), replay(first=tuple(range(8)))
    loss, terms, _ = model.loss(sequence, LossWeights(overshooting_steps=3), seeded(0))
    assert terms["overshooting_kl"] == 0
    assert loss.isfinite()


def test_multi_step_bound_of_a_short_sequence():
    model = small_model()
    for T in (1, 2, 3):
        loss, _, _ = model.loss(replay(T=T), LossWeights(overshooting_steps=5), seeded(0))
        assert loss.isfinite()


def test_a_first_step_has_no_reward():
    model, sequence = small_model(), replay(first=(0, 4))
    reward = sequence.reward.requires_grad_()
    loss, _, _ = model.loss(sequence, LossWeights(), seeded(0))
    (g,) = torch.autograd.grad(loss, reward)
    assert (g[:, [0, 4]] == 0).all()
    assert (g[:, [1, 2, 3, 5, 6, 7]] != 0).all()


def test_below_the_free_nats_the_divergence_gives_no_gradient():
    model = small_model()
    loss, _, _ = model.loss(replay(), LossWeights(0.0, 0.0, 1.0, free_nats=1e6), seeded(0))
    loss.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


def test_the_same_generator_seed_gives_the_same_loss():
    model, sequence = small_model(), replay()
    weights = LossWeights(overshooting_steps=3)
    losses = [model.loss(sequence, weights, seeded(s))[0].item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


# Units


UNITS = [(1e-4, 0.0), (1e4, 0.0), (1.0, 1e5), (30.0, -1e4)]


def in_units(sequence: ReplaySequence, obs_unit: float, obs_offset: float, reward_unit: float) -> ReplaySequence:
    return sequence._replace(obs=sequence.obs * obs_unit + obs_offset, reward=sequence.reward * reward_unit)


@pytest.mark.parametrize("reward_unit", [1e-3, 1e4])
@pytest.mark.parametrize(("obs_unit", "obs_offset"), UNITS)
def test_the_units_of_observations_and_rewards_change_nothing_but_the_predictions_units(
    obs_unit, obs_offset, reward_unit
):
    plain = replay(6, 20, first=(0, 9), terminal=(8,))
    results = []
    for unit, offset, scale in ((1.0, 0.0, 1.0), (obs_unit, obs_offset, reward_unit)):
        sequence = in_units(plain, unit, offset, scale)
        torch.manual_seed(0)
        model = RSSM(OBS, A, deterministic_size=16, stochastic_size=4, hidden_size=24)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-4)
        for i in range(3):
            model.update_statistics(sequence)
            loss, _, _ = model.loss(sequence, LossWeights(), seeded(i))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            belief = model.update_belief(model.initial_belief(6), torch.zeros(6, A), sequence.obs[:, 0])
            obs, rewards = model.predict(belief, sequence.action[:, None])
        results.append((loss.detach(), belief.h, (obs - offset) / unit, rewards / scale))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_an_outlier_among_the_rewards_moves_its_gradient_no_further_than_a_near_one():
    model, sequence = small_model(), replay()
    gradients = []
    for reward in (1e2, 1e6):
        sequence.reward[1, 3] = reward
        loss, _, _ = model.loss(sequence, LossWeights(0.0, 20.0, 0.0), seeded(0))
        gradients.append(torch.autograd.grad(loss, model.reward_net[-1].bias)[0].abs())
    assert gradients[1] < 1.1 * gradients[0]


@pytest.mark.learn
def test_overfits_one_batch():
    model, sequence = small_model(deterministic_size=48, hidden_size=48, stochastic_size=8), replay(4, 12, first=(0,))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    history = []
    generator = seeded(0)
    for _ in range(400):
        loss, terms, _ = model.loss(sequence, LossWeights(), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(terms["reward"].item())
    assert sum(history[-20:]) < 0.05 * sum(history[:20])


def test_parameters_keep_the_names_and_order_that_checkpoints_and_optimizers_know():
    names = [name for name, _ in small_model().named_parameters()]
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    assert parts == ["gru", "prior_net", "posterior_net", "obs_net", "reward_net", "continuation_net"]
    statistics = {f"{norm}.{name}" for norm in ("obs_norm", "reward_norm") for name in ("mean", "var", "count")}
    assert {name for name, _ in small_model().named_buffers()} == statistics | {"steps", "terminations"}
    assert small_model().posterior_net[0].weight.shape == (24, 16 + OBS)


@pytest.mark.parametrize(("B", "N"), [(1, 1), (1, 700), (3, 200), (600, 2)])
def test_the_rollout_without_gradient_is_the_plain_one(B, N):
    model = RSSM(17, 6, deterministic_size=20, stochastic_size=5, hidden_size=16)
    belief = Belief(torch.randn(B, 20, generator=seeded(0)).tanh(), torch.randn(B, 5, generator=seeded(1)))
    actions = 2 * torch.rand(B, N, 4, 6, generator=seeded(2)) - 1
    plain = model.predict_rewards(belief, actions)
    assert plain.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model.predict_rewards(belief, actions), plain.detach(), rtol=1e-4, atol=1e-5)


def test_the_rollout_without_gradient_holds_no_state_between_calls():
    model = RSSM(17, 6, deterministic_size=20, stochastic_size=5, hidden_size=16)
    belief, actions = model.initial_belief(2), torch.rand(2, 30, 4, 6, generator=seeded(0))
    with torch.no_grad():
        first = model.predict_rewards(belief, actions)
        kept = first.clone()
        model.predict_rewards(belief, -actions)
        assert torch.equal(first, kept)
        assert torch.equal(model.predict_rewards(belief, actions), kept)
        model.gru.weight_hh.mul_(2)
        assert not torch.equal(model.predict_rewards(belief, actions), kept)
