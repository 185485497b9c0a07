"""The head of the RSSM that learns where episodes terminate, and plans that weigh rewards by it."""

import pytest
import torch

from parsecrl.algorithms.models import RSSM, LossWeights, ReplaySequence
from parsecrl.algorithms.models.layers import mlp
from parsecrl.algorithms.models.recurrent_core import RecurrentCore
from tests.models.small import OBS, A, random_belief, replay, seeded, small_model


def observed(model: RSSM, *terminal: int) -> RSSM:
    model.update_statistics(replay(first=(0,), terminal=terminal))
    return model


def test_survival_weights_equal_an_enumeration_of_all_outcomes():
    """Of four decisions: in each outcome the rewards until the termination, its own included."""
    model, B, N, H = observed(small_model(), 5), 2, 3, 4
    belief, actions = random_belief(model, B), 2 * torch.rand(B, N, H, A, generator=seeded(4)) - 1
    with torch.no_grad():
        # The layer's output grows until probabilities differ.
        model.continuation_net[-1].weight *= 30
        features = model._roll_out(belief, actions)
        goes_on = model.continuation_logit(features).sigmoid().view(H, B, N)
        rewards = model.reward_norm.inverse(model.reward_net(features)).view(H, B, N)
        expected = torch.zeros(B, N)
        for end in range(H):  # the decision that ends the episode, or the last one without an end
            probability = goes_on[:end].prod(0) * (1 - goes_on[end] if end < H - 1 else 1.0)
            expected += probability * rewards[: end + 1].sum(0)
        predicted = model.predict_rewards(belief, actions)
    assert 0.05 < goes_on.min() < goes_on.max() < 0.999
    torch.testing.assert_close(predicted.sum(-1), expected)
    torch.testing.assert_close(model.predict(belief, actions)[1], predicted)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_the_size_of_rewards_that_matters_to_a_plan(unit):
    """Their spread; of a constant reward, or where an episode's end ends what comes every step, their size."""
    is_first = torch.zeros(4, 50, dtype=torch.bool)
    is_first[:, 0] = True
    ends = torch.zeros_like(is_first)
    ends[0, -1] = True
    varied = unit * (3 + torch.randn(4, 50, generator=seeded(0)))
    for reward, terminated, expected in [
        (torch.full((4, 50), 2 * unit), torch.zeros_like(ends), 2 * unit),
        (torch.full((4, 50), 2 * unit), ends, 2 * unit),
        (varied, torch.zeros_like(ends), unit),
        (varied, ends, unit * 10**0.5),
        (torch.zeros(4, 50), ends, 1.0),
    ]:
        model = RSSM(3, 2, 8, 4, 8)
        model.update_statistics(
            ReplaySequence(torch.zeros(4, 50, 3), torch.zeros(4, 50, 2), reward, is_first, terminated)
        )
        assert float(model.reward_scale) == pytest.approx(expected, rel=0.15)


def test_without_a_termination_nothing_depends_on_the_continuation_head():
    """Neither predictions nor the loss nor what is made after the model; a termination changes predictions alone."""
    outcomes = []
    for scale in (1.0, float("nan")):
        model = observed(small_model())
        drawn = torch.rand(1)
        with torch.no_grad():
            model.continuation_net[-1].weight *= scale
            rewards = model.predict_rewards(random_belief(model, 2), torch.zeros(2, 3, 4, A))
        loss, terms, _ = model.loss(replay(), LossWeights(), seeded(0))
        loss.backward()
        assert all(p.grad is None for p in model.continuation_net.parameters())
        assert "continuation" not in terms
        outcomes.append((drawn, rewards, loss, model.gru.weight_hh.grad))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    observed(model, 5)
    assert model.predict_rewards(random_belief(model, 2), torch.zeros(2, 3, 4, A)).isnan().any()


def test_the_model_before_the_head_draws_the_weights_that_it_always_drew():
    model = small_model()
    after = torch.rand(1)
    torch.manual_seed(0)
    core = RecurrentCore(OBS, A, 16, 4, 24, standardize=True)
    nets = mlp([20, 24, 24, OBS]), mlp([20, 24, 24, 1])
    for made, known in ((core.gru, model.gru), (nets[0], model.obs_net), (nets[1], model.reward_net)):
        assert all(torch.equal(a, b) for a, b in zip(made.parameters(), known.parameters(), strict=True))
    assert torch.equal(torch.rand(1), after)


def test_an_untrained_head_says_how_often_episodes_terminate():
    model = small_model()
    for terminal in ((), (), (5,)):
        observed(model, *terminal)
    with torch.no_grad():
        for p in model.continuation_net.parameters():
            p.zero_()
        logit = model.continuation_logit(torch.zeros(20))
    assert torch.sigmoid(-logit) == pytest.approx(1 / (3 * 7), rel=1e-4)


def test_a_termination_is_known_where_the_weights_have_gone():
    model, other = observed(small_model(), 5), small_model()
    belief, actions = random_belief(model, 2), torch.zeros(2, 3, 4, A)
    before = other.predict_rewards(belief, actions)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.predict_rewards(belief, actions), model.predict_rewards(belief, actions))
    assert not torch.equal(other.predict_rewards(belief, actions), before)
    assert observed(small_model()).terminates is False


def test_a_first_step_and_the_future_say_nothing_of_termination():
    """What is masked has no gradient; the rewards after a step do not move the probability of reaching it."""
    model, sequence = observed(small_model(), 5), replay(first=(0, 4), terminal=(0, 3, 4))
    masked = sequence._replace(terminated=sequence.terminated & ~sequence.is_first)
    losses = [model.loss(s, LossWeights(), seeded(0))[1]["continuation"] for s in (sequence, masked)]
    assert losses[0] == losses[1]
    actions = torch.zeros(2, 3, 4, A).requires_grad_()
    (gradient,) = torch.autograd.grad(model.predict_rewards(random_belief(model, 2), actions)[..., 1].sum(), actions)
    assert (gradient[:, :, :2] != 0).all()
    assert (gradient[:, :, 2:] == 0).all()


@pytest.mark.learn
def test_the_head_learns_rare_terminations_and_their_probability():
    """Place and velocity of a walk; beyond 2 it ends in 2 of 3 cases. One step in some 200 is terminal."""
    model = RSSM(1, 1, deterministic_size=32, stochastic_size=4, hidden_size=32)
    optimizer, g = torch.optim.Adam(model.parameters(), 3e-3), seeded(0)

    def walks(B: int, T: int = 20) -> ReplaySequence:
        action = 2 * torch.rand(B, T, 1, generator=g) - 1
        place = torch.randn(B, 1, 1, generator=g) * 0.7 + 0.5 * (action.cumsum(1) - action)
        fatal = (place[..., 0] > 2) & (torch.rand(B, T, generator=g) < 2 / 3)
        over = fatal.cumsum(1)
        rows = (over - fatal.long()) == 0  # until the end, itself included
        is_first = ~rows  # what follows is of no use: each step its own episode
        is_first[:, 0] = True
        return ReplaySequence(place, action, torch.zeros(B, T), is_first, fatal & rows)

    for _ in range(500):
        sequence = walks(32)
        model.update_statistics(sequence)
        loss, _, _ = model.loss(sequence, LossWeights(), g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0.001 < model.terminations / model.steps < 0.05
    sequence = walks(2000)
    with torch.no_grad():
        features = torch.cat(model.filter_sequence(sequence, g), -1)
        ends = (-model.continuation_logit(features)).sigmoid()
    known, place = ~sequence.is_first, sequence.obs[..., 0]
    assert ends[known & (place < 1)].mean() < 0.02
    assert 0.3 < ends[known & (place > 2.3)].mean() < 0.9  # 2 in 3; the average rate is below 0.05
