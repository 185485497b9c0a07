"""The ensemble: its disagreement, how plans pay for it, and that a model without one is what it was."""

import math

import pytest
import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers import PlanningAgent, Score, make_controller, predicted_cost
from parsecrl.algorithms.models import RSSM, Belief, LossWeights, ReplaySequence, matrix_products
from parsecrl.algorithms.models.ensemble import UNITS, Ensemble
from parsecrl.algorithms.planet.settings import PlanetSettings

OBS, A, D, S = 5, 2, 16, 4
SIZES = {"deterministic_size": D, "stochastic_size": S, "hidden_size": 24}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(ensemble: int = 5) -> RSSM:
    torch.manual_seed(0)
    made = RSSM(OBS, A, **SIZES, ensemble=ensemble)
    made.reward_norm.update(5 * torch.randn(100, 1, generator=seeded(10)) + 2)
    return made


def beliefs(B: int) -> Belief:
    return Belief(torch.randn(B, D, generator=seeded(0)).tanh(), torch.randn(B, S, generator=seeded(1)))


def plans(B: int, N: int, H: int = 4) -> Tensor:
    return 2 * torch.rand(B, N, H, A, generator=seeded(2)) - 1


def replay(B: int = 4, T: int = 8, ends: bool = False) -> ReplaySequence:
    g = seeded(3)
    is_first, terminated = torch.zeros(2, B, T, dtype=torch.bool)
    is_first[:, 0] = True
    if ends:
        terminated[0, 5], is_first[0, 6] = True, True
    shape = (B, T)
    return ReplaySequence(
        torch.randn(*shape, OBS, generator=g),
        2 * torch.rand(*shape, A, generator=g) - 1,
        torch.randn(shape, generator=g),
        is_first,
        terminated,
    )


def equal_members(of: RSSM) -> None:
    ensemble = of.ensemble
    with torch.no_grad():
        for part in (ensemble.hidden.weight, ensemble.hidden.bias):
            part.copy_(part[:UNITS].repeat(ensemble.members, *[1] * (part.dim() - 1)))
        for part in (ensemble.weight, ensemble.bias):
            part.copy_(part[:1].expand_as(part))


def test_a_member_is_a_network_with_one_hidden_layer():
    torch.manual_seed(0)
    ensemble, h = Ensemble(3, D, S), torch.randn(7, D, generator=seeded(0))
    nn.init.normal_(ensemble.bias)
    predicted = ensemble(h)
    assert predicted.shape == (3, 7, S + 1)
    for k in range(3):
        rows = slice(k * UNITS, (k + 1) * UNITS)
        hidden = (h @ ensemble.hidden.weight[rows].t() + ensemble.hidden.bias[rows]).relu()
        torch.testing.assert_close(predicted[k], hidden @ ensemble.weight[k] + ensemble.bias[k])
    mean = predicted.mean(0)
    for m in range(7):
        apart = [(predicted[k, m] - mean[m]).abs() for k in range(3)]
        by_hand = sum(a[:-1].mean() for a in apart) / 3 + sum(a[-1] for a in apart) / 3
        torch.testing.assert_close(ensemble.disagreement(h)[m], by_hand)


def test_a_model_without_an_ensemble_is_what_it_was_and_one_with_it_predicts_and_learns_alike():
    """The same weights, predictions, loss terms and gradients, to the bit, and the same draws for what is made next."""
    made, draws = {}, {}
    for K in (1, 5):
        made[K] = model(K)
        draws[K] = torch.rand(3)
    assert torch.equal(draws[1], draws[5])
    assert made[1].ensemble is None
    assert not [name for name in made[1].state_dict() if "ensemble" in name]
    own = dict(made[5].named_parameters())
    terms = {}
    for K, m in made.items():
        loss, terms[K], _ = m.loss(replay(), LossWeights(), seeded(4))
        loss.backward()
    for name, parameter in made[1].named_parameters():
        assert torch.equal(parameter, own[name])
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, own[name].grad), name
    for name in terms[1].keys() - {"model_loss"}:
        assert torch.equal(terms[1][name], terms[5][name])
    with torch.no_grad():
        one, five = (m.predict_rewards(beliefs(3), plans(3, 9)) for m in made.values())
    assert torch.equal(one, five)


def test_the_loss_of_the_members_is_that_of_each_alone_and_reaches_no_other_part():
    m, sequence = model(), replay()
    belief, _, posterior = m.observe(sequence, m._noise(sequence, seeded(4)))
    known = (~sequence.is_first).float()
    reward = m.reward_norm(sequence.reward[..., None]).squeeze(-1)
    loss = m.ensemble.loss(*belief, posterior.mean, reward, known)
    target = m.ensemble.state_norm(posterior.mean)
    predicted = m.ensemble(belief.h.flatten(0, 1)).view(5, 4, 8, S + 1)
    by_hand = 0.0
    for k in range(5):
        for b in range(4):
            for t in range(8):
                of_state = (predicted[k, b, t, :-1] - target[b, t]).square().sum()
                of_reward = known[b, t] * (predicted[k, b, t, -1] - reward[b, t]) ** 2
                by_hand = by_hand + of_state + S * of_reward
    torch.testing.assert_close(loss, by_hand / (4 * 8))
    loss.backward()
    reached = {name.partition(".")[0] for name, p in m.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert reached == {"ensemble"}


def test_equal_members_disagree_nowhere():
    m = model()
    assert (m.predict_outcome(beliefs(2), plans(2, 5), judged=True).disagreement > 0).all()
    equal_members(m)
    actions = plans(2, 5).requires_grad_()
    apart = m.predict_outcome(beliefs(2), actions, judged=True).disagreement
    assert apart.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad(apart.sum(), actions)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("ends", [False, True])
def test_the_penalty_is_that_of_an_enumeration(ends):
    m = model()
    if ends:
        m.update_statistics(replay(ends=True))
    belief, actions = beliefs(2), plans(2, 3)
    with torch.no_grad():
        cost = predicted_cost(m, belief, actions, Score(pessimism=0.7))
        for b in range(2):
            for n in range(3):
                h, s, survival, total = belief.h[b : b + 1], belief.s[b : b + 1], 1.0, 0.0
                for t in range(actions.shape[2]):
                    h = m.next_h(torch.cat([s, actions[b, n, t][None]], -1), h)
                    s = m.prior(h).mean
                    predicted = m.ensemble(h)[:, 0]  # [K, S + 1]
                    apart = (predicted - predicted.mean(0)).abs().mean(0)
                    reward, goes_on = m.rewards_and_continuation(Belief(h, s))
                    penalty = 0.7 * m.reward_scale * (apart[:-1].mean() + apart[-1])
                    total += survival * (reward - penalty).item()
                    survival *= goes_on.item()
                assert cost[b, n].item() == pytest.approx(-total, rel=1e-4, abs=1e-4)


def test_the_penalty_is_in_units_of_the_rewards():
    costs = []
    for unit in (1.0, 1e3):
        m = model()
        m.reward_norm = type(m.reward_norm)(1)
        m.reward_norm.update(unit * torch.randn(100, 1, generator=seeded(0)))
        with torch.no_grad():
            costs.append(predicted_cost(m, beliefs(2), plans(2, 5), Score(pessimism=1.0)) / unit)
    torch.testing.assert_close(costs[0], costs[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("B", "N"), [(1, 700), (3, 40)])
def test_the_rollout_in_place_is_judged_as_the_plain_one(B, N):
    m = model()
    matrix_products.use((False,) * len(matrix_products.PROBES))
    try:
        plain = m.predict_outcome(beliefs(B), plans(B, N), judged=True)
        assert plain.disagreement.requires_grad
        with torch.no_grad():
            quick = m.predict_outcome(beliefs(B), plans(B, N), judged=True)
    finally:
        matrix_products.use(None)
    torch.testing.assert_close(quick.disagreement, plain.disagreement.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quick.rewards, plain.rewards.detach(), rtol=1e-4, atol=1e-4)


def agent(pessimism: float, kind: str = "embedded", **more) -> PlanningAgent:
    group = {"kind": kind, "horizon": 4, "num_samples": 30, "num_elites": 6, "num_iterations": 3}
    torch.manual_seed(0)
    return PlanningAgent(
        OBS, A, {**SIZES, "ensemble": 5}, {**group, "pessimism": pessimism, **more}, {"hidden_size": 16}
    )


@pytest.mark.parametrize("kind", ["full", "icem", "mppi", "embedded"])
def test_a_pessimist_plans_where_members_agree(kind):
    belief, apart = beliefs(8), []
    for pessimism in (0.0, 100.0):
        made = agent(pessimism, kind)
        with torch.no_grad():
            plan = made.plan(belief, made.initial_state(8), generator=seeded(1))
            apart.append(made.model.predict_outcome(belief, plan.actions[:, None], judged=True).disagreement.sum(-1))
    assert apart[1].mean() < 0.97 * apart[0].mean()


@pytest.mark.parametrize("selection", ["lml", "softmax"])
@pytest.mark.parametrize("pessimism", [0.0, 2.0])
def test_the_gradient_of_a_plan_passes_the_members_where_they_count(selection, pessimism):
    made = agent(pessimism, selection=selection)
    plan = made.plan(beliefs(3), made.initial_state(3), generator=seeded(1))
    plan.actions[:, 0].sum().backward()
    parts = ("decoder", "gru", "prior_net", "reward_net", "ensemble")
    reached = {
        part
        for part in parts
        for name, p in made.named_parameters()
        if part in name and p.grad is not None and (p.grad != 0).any()
    }
    assert reached == set(parts) - ({"ensemble"} if pessimism == 0 else set())


def test_the_gradient_through_the_penalty_is_the_finite_difference():
    m = model().double()
    belief = Belief(*(x.double() for x in beliefs(1)))
    actions = plans(1, 2, 3).double().requires_grad_()
    cost = lambda u: predicted_cost(m, belief, u, Score(pessimism=1.5))  # noqa: E731
    assert torch.autograd.gradcheck(cost, (actions,), atol=1e-5)


def test_an_ensemble_is_in_the_agents_file(tmp_path):
    from parsecrl.algorithms.checkpoints.agent import load_agent, save_agent

    before = agent(1.5)
    before.model.loss(replay(), LossWeights(), seeded(0))  # moves the states' statistics
    search = {"kind": "embedded", "horizon": 4, "num_samples": 30, "num_elites": 6, "num_iterations": 3}
    described = {
        "algorithm": "planet",
        "env": {"id": "any", "action_repeat": 1},
        "controller": {**search, "pessimism": 1.5},
        "world_model": {"kind": "rssm", **SIZES, "ensemble": 5},
        "decoder": {"hidden_size": 16},
        "env_steps": 1,
    }
    save_agent(tmp_path, before, described)
    after, _ = load_agent(tmp_path)
    assert after.controller.score.pessimism == 1.5
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_pessimism_needs_an_ensemble_and_rewards():
    with pytest.raises(ValueError, match=r"needs an ensemble, got 0.5 with world_model.ensemble=1; set it to 5"):
        PlanetSettings.checked({"controller": {"kind": "full", "pessimism": 0.5}})
    both = {"kind": "full", "pessimism": 0.5, "objective": "a:b"}
    with pytest.raises(ValueError, match="leave one of them out"):
        PlanetSettings.checked({"controller": both, "world_model": {"ensemble": 5}})
    with pytest.raises(ValueError, match=r"got RSSM without one; set world_model\.ensemble to 5"):
        make_controller(model(1), {"kind": "full", "pessimism": 0.5}, {})


@pytest.mark.learn
def test_members_agree_on_data_and_disagree_elsewhere():
    """A place that one of two actions moves; in the data only one direction of the second is ever pushed."""
    torch.manual_seed(0)
    m = RSSM(2, 2, deterministic_size=24, stochastic_size=4, hidden_size=24, ensemble=5)
    optimizer, g = torch.optim.Adam(m.parameters(), 3e-3), seeded(0)

    def walks(B: int, T: int = 12) -> ReplaySequence:
        action = 2 * torch.rand(B, T, 2, generator=g) - 1
        action[..., 1] = -action[..., 1].abs() * 0.2  # never above 0
        place = 0.5 * (action.cumsum(1) - action)
        is_first = torch.zeros(B, T, dtype=torch.bool)
        is_first[:, 0] = True
        return ReplaySequence(place, action, place[..., 0].sin(), is_first, torch.zeros_like(is_first))

    for _ in range(250):
        sequence = walks(32)
        m.update_statistics(sequence)
        loss, _, _ = m.loss(sequence, LossWeights(), g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        belief = m.filter_sequence(walks(200), g)
        start = Belief(belief.h[:, 4], belief.s[:, 4])
        known = 2 * torch.rand(200, 1, 6, 2, generator=g) - 1
        known[..., 1] = -known[..., 1].abs() * 0.2
        strange = known.clone()
        strange[..., 1] = 1.0
        seen, unseen = (m.predict_outcome(start, u, judged=True).disagreement.mean() for u in (known, strange))
    assert seen > 0
    assert unseen > 2 * seen, (seen, unseen)
    assert math.isfinite(unseen)
