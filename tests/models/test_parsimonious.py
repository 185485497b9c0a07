import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.models import (
    ParsimoniousDynamics,
    ParsimonyObjective,
    TransitionSequence,
    distinct_transformations,
    parsimonious,
)
from parsecrl.algorithms.models.latent_dynamics import DistinctSlices
from parsecrl.algorithms.models.parsimony_terms import (
    bernoulli_kl,
    contrastive_loss,
    contrastive_targets,
    pairwise_distance,
    round_straight_through,
    transition_error,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(objective: ParsimonyObjective | None = None, **options) -> ParsimoniousDynamics:
    torch.manual_seed(0)
    settings = {"latent_size": 3, "code_size": 4, "hidden_size": 16, "objective": objective} | options
    return ParsimoniousDynamics(6, 5, **settings)


def a_batch(B: int = 7, T: int = 1, seed: int = 0) -> TransitionSequence:
    action = torch.randint(5, (B, T), generator=torch.Generator().manual_seed(seed))
    return TransitionSequence(randn(B, T + 1, 6, seed=seed), action)


# -- closed forms and brute force


def test_bernoulli_kl_is_the_sum_over_all_codes():
    q, p = randn(3, 5).double() * 3, randn(3, 5, seed=1).double() * 3
    expected = torch.zeros(3, dtype=torch.float64)
    for code in itertools.product([0.0, 1.0], repeat=5):
        h = torch.tensor(code, dtype=torch.float64)
        of_q, of_p = ((h * x.sigmoid() + (1 - h) * (1 - x.sigmoid())).prod(-1) for x in (q, p))
        expected += of_q * (of_q / of_p).log()
    torch.testing.assert_close(bernoulli_kl(q, p), expected)
    assert (bernoulli_kl(q, q) == 0).all()
    assert bernoulli_kl(torch.tensor([200.0]), torch.tensor([-200.0])).isfinite()


def test_rounding_is_exact_and_its_gradient_that_of_the_identity():
    p = torch.tensor([0.0, 0.2, 0.49999, 0.5, 0.7, 1.0], requires_grad=True)
    h = round_straight_through(p)
    assert h.tolist() == [0, 0, 0, 1, 1, 1]
    weight = randn(6)
    (grad,) = torch.autograd.grad((weight * h.square()).sum(), p)
    assert torch.equal(grad, weight * 2 * h)


def test_the_transition_term_trains_posterior_and_encoder_through_the_rounding():
    model = small(ParsimonyObjective(beta=0.0, diversity_weight=0.0))
    model.loss(a_batch()).total.backward()
    for net in (model.encoder, model.posterior_net, model.decoder):
        assert all((parameter.grad != 0).any() for parameter in net.parameters())
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in model.prior_net.parameters())


def test_contrastive_targets_and_loss_by_brute_force():
    s, z = randn(6, 4), randn(6, 3, seed=1)
    s[4], z[4] = s[1], z[1]  # one state twice
    target = contrastive_targets(s, 100.0)
    expected, loss = torch.zeros(6, 6), 0.0
    for i, j in itertools.product(range(6), repeat=2):
        label = math.exp(-100.0 * math.dist(s[i].tolist(), s[j].tolist()))
        rating = math.exp(-0.1 * math.dist(z[i].tolist(), z[j].tolist()))
        expected[i, j] = label
        same = torch.equal(s[i], s[j])
        assert label == (1.0 if same else pytest.approx(0.0, abs=1e-12))
        loss -= math.log(rating) if same else math.log(1 - rating)
    torch.testing.assert_close(target, expected)
    torch.testing.assert_close(contrastive_loss(target, pairwise_distance(z), 0.1), torch.tensor(loss / 6))


def test_equal_observations_are_equal_and_gradients_finite_in_a_large_batch():
    s = randn(10, 54).repeat(15, 1)
    target = contrastive_targets(s, 100.0)
    same = torch.arange(150)[:, None] % 10 == torch.arange(150) % 10
    assert torch.equal(target == 1.0, same)
    z = randn(10, 3).repeat(15, 1).requires_grad_()
    contrastive_loss(target, pairwise_distance(z), 0.1).backward()
    assert z.grad.isfinite().all()


def test_transition_error_is_equation_8_with_its_minimum_at_zero():
    e = randn(5, 3).requires_grad_()
    norm = e.detach().norm(dim=-1)
    torch.testing.assert_close(transition_error(e), norm.square() + 1 - torch.exp(-norm))
    zero = torch.zeros(1, 3, requires_grad=True)
    transition_error(zero).sum().backward()
    assert transition_error(zero).item() == 0.0
    assert (zero.grad == 0).all()


@pytest.mark.parametrize("kind", ["rotation", "translation", "affine"])
def test_loss_is_the_sum_of_its_equations(kind: str):
    model = small(ParsimonyObjective(beta=0.7), transformation=kind)
    obs, action = a_batch()
    s, a, s_next = obs[:, 0], action[:, 0], obs[:, 1]
    z, z_next = model.encode(s), model.encode(s_next)
    logits, _ = model.posterior(z, a)
    h = (logits.sigmoid() >= 0.5).float()
    predicted = model.decode(h, a).apply(z)
    torch.testing.assert_close(model.predict(z, a), predicted)
    error = transition_error(predicted - z_next).mean()
    parsimony = bernoulli_kl(logits, model.prior()[a]).mean()
    diversity = contrastive_loss(contrastive_targets(s, 100.0), pairwise_distance(z), 0.1)
    loss = model.loss(TransitionSequence(obs, action))
    torch.testing.assert_close(loss.total, error + 0.7 * parsimony + diversity)
    for name, value in (("error", error), ("parsimony", parsimony), ("diversity", diversity)):
        torch.testing.assert_close(loss.terms[name], value.detach())


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ({}, {}),
        ({"diversity": "reconstruction"}, {}),
        ({"rollout_steps": 2}, {}),
        ({}, {"transformation": "translation", "period": 4.0}),
    ],
)
def test_slices_that_repeat_are_computed_once_and_count_as_often_as_they_come(objective, options, monkeypatch):
    model = small(ParsimonyObjective(beta=0.7, **objective), **options).double()
    obs, action = a_batch(6, 2)
    obs, rows = obs.double(), torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5, 0])
    batch, found, computed = TransitionSequence(obs[rows], action[rows]), [], []
    model.posterior_net.register_forward_hook(lambda layer, inputs, output: computed.append(len(output)))
    for _ in range(2):
        loss = model.loss(batch)
        found.append([loss.total, *loss.terms.values(), *torch.autograd.grad(loss.total, list(model.parameters()))])
        monkeypatch.setattr(parsimonious, "distinct_slices", lambda b: DistinctSlices(b, b.obs.new_ones(len(b.obs))))
    assert computed[0] == 6
    assert computed[-1] == 10
    for once, plain in zip(*found, strict=True):
        torch.testing.assert_close(once, plain)


def test_multi_step_loss_goes_on_from_predictions():
    model = small(ParsimonyObjective(rollout_steps=3))
    obs, action = a_batch(4, 5)
    z = model.encode(obs)
    errors = []
    for k in range(1, 4):
        of_k = []
        for t in range(5 - k + 1):
            predicted = z[:, t]
            for i in range(k):
                predicted = model.predict(predicted, action[:, t + i])
            of_k.append(transition_error(predicted - z[:, t + k]))
        errors.append(torch.stack(of_k).mean())
    torch.testing.assert_close(model.loss(TransitionSequence(obs, action)).terms["error"], torch.stack(errors).mean())
    with pytest.raises(ValueError, match=r"T >= 3, .* sample slices of 3 or more"):
        model.loss(a_batch(4, 2))


def test_stochastic_loss_is_equations_7_and_9():
    model = small(ParsimonyObjective(beta=0.5, diversity="reconstruction"), stochastic=True)
    obs, action = a_batch()
    mean, raw = model.encoder(obs).chunk(2, -1)
    std = torch.nn.functional.softplus(raw) + 0.01
    torch.testing.assert_close(model.encode(obs), mean)
    a = action[:, 0]
    logits, predicted_std = model.posterior(mean[:, 0], a)
    prior = torch.distributions.Normal(model.predict(mean[:, 0], a), predicted_std)
    posterior = torch.distributions.Normal(mean[:, 1], std[:, 1])
    error = torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    reconstruction = 0.5 * (model.obs_net(mean + std * eps) - obs).square().sum(-1).mean()
    loss = model.loss(TransitionSequence(obs, action), torch.Generator().manual_seed(3))
    parsimony = bernoulli_kl(logits, model.prior()[a]).mean()
    torch.testing.assert_close(loss.total, error + 0.5 * parsimony + reconstruction)


def test_the_papers_sizes():
    model = ParsimoniousDynamics(54, 5)
    for net, n_in, n_out in (
        (model.encoder, 54, 15),
        (model.posterior_net, 20, 15),
        (model.prior_net, 5, 15),
        (model.decoder, 20, 120),
    ):
        sizes = [tuple(layer.weight.shape) for layer in net if isinstance(layer, torch.nn.Linear)]
        assert sizes == [(1200, n_in), (1200, 1200), (n_out, 1200)]


# -- options beyond the paper


def test_a_period_takes_the_short_way_around():
    model = small(transformation="translation", period=4.0)
    z, goal = torch.tensor([[1.9, 0.0, -1.9]]), torch.tensor([[-1.9, 0.0, 1.8]])
    torch.testing.assert_close(model.distance(z, goal), torch.tensor([math.hypot(0.2, 0.3)]))
    assert (model.encode(100 * randn(20, 6)).abs() <= 2).all()
    moved = model.predict(z, torch.tensor([0]))
    assert (moved.abs() <= 2).all()


@pytest.mark.parametrize(("constraint", "target"), [("kl", 0.0), ("kl", 50.0), ("error", 0.0), ("error", 1e6)])
def test_beta_moves_towards_its_constraint(constraint: str, target: float):
    model = small(ParsimonyObjective(beta=0.3, constraint=constraint, target=target))
    torch.testing.assert_close(model.beta, torch.tensor(0.3))
    optimiser = torch.optim.Adam([model.multiplier], lr=1e-3)
    model.loss(a_batch()).total.backward()
    optimiser.step()
    # too much KL, or error to spare: more weight for parsimony
    wants_more = (constraint, target) in (("kl", 0.0), ("error", 1e6))
    assert model.beta.item() == pytest.approx(0.3 * math.exp(0.01 if wants_more else -0.01), rel=1e-4)
    assert "multiplier" in model.state_dict()


@pytest.mark.learn
def test_beta_finds_a_target_divergence():
    model = small(ParsimonyObjective(beta=1e-3, constraint="kl", target=0.2), hidden_size=32)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    table, to = randn(30, 6), torch.randint(30, (30, 5), generator=generator)  # moves without any structure
    late = []
    for i in range(500):
        s, a = torch.randint(30, (64,), generator=generator), torch.randint(5, (64,), generator=generator)
        loss = model.loss(TransitionSequence(torch.stack([table[s], table[to[s, a]]], 1), a[:, None]))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        if i >= 400:
            late.append(loss.terms["parsimony"].item())
    assert np.mean(late) == pytest.approx(0.2, rel=0.25)


# -- learning a known answer

SIDE = 13


def torus() -> tuple[Tensor, Tensor]:
    """Coordinates (row, column) of all cells [169, 2], and where five actions lead [169, 5]."""
    cells = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    to = (cells[:, None] + torch.tensor([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])) % SIDE
    return cells.float(), to[..., 0] * SIDE + to[..., 1]


def train(model: ParsimoniousDynamics, obs: Tensor, to: Tensor, steps: int = 500) -> float:
    """After training, the largest distance between predicted and true next latent over all states and actions."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        s, a = (torch.randint(high, (100,), generator=generator) for high in (len(obs), 5))
        optimiser.zero_grad()
        model.loss(TransitionSequence(torch.stack([obs[s], obs[to[s, a]]], 1), a[:, None])).total.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        z, action = model.encode(obs), torch.arange(5).expand(len(obs), -1)
        ahead = model.predict(z[:, None].expand(-1, 5, -1), action)
        return model.distance(ahead, z[to]).max().item()


@pytest.mark.learn
def test_translations_of_a_torus_need_one_transformation_per_action():
    cells, to = torus()
    torch.manual_seed(0)
    objective = ParsimonyObjective(beta=1.0, diversity_weight=0.0)
    model = ParsimoniousDynamics(
        2,
        5,
        "translation",
        latent_size=2,
        hidden_size=32,
        period=SIDE,
        encoder=torch.nn.Identity(),
        objective=objective,
    )
    assert train(model, cells, to) < 1e-3  # of a step of length 1
    assert distinct_transformations(model, cells).tolist() == [1] * 5


@pytest.mark.learn
def test_rotations_of_a_torus_need_one_transformation_per_action():
    cells, to = torus()
    angles = 2 * math.pi * cells / SIDE
    circles = torch.cat([angles.cos(), angles.sin()], -1)  # [169, 4]; a step is of length 0.48
    torch.manual_seed(0)
    objective = ParsimonyObjective(beta=1.0, diversity_weight=0.0)
    model = ParsimoniousDynamics(
        4, 5, "rotation", latent_size=4, hidden_size=32, encoder=torch.nn.Identity(), objective=objective
    )
    assert train(model, circles, to) < 1e-3
    assert distinct_transformations(model, circles).tolist() == [1] * 5


# -- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "beta must be a finite number of 0 or more, got -0.1"),
        ({"beta": math.nan}, "beta must be a finite number of 0 or more, got nan"),
        ({"similarity_scale_obs": -1.0}, "similarity_scale_obs must be"),
        ({"rollout_steps": 0}, "rollout_steps must be an integer of 1 or more, got 0"),
        ({"diversity": "none"}, "diversity must be contrastive or reconstruction, got 'none'"),
        ({"constraint": "size", "target": 1.0}, "constraint must be kl, error or None, got 'size'"),
        ({"constraint": "kl"}, "constraint and target come together, got 'kl' and None"),
        ({"constraint": "kl", "target": -1.0}, "target must be a finite number of 0 or more, got -1.0"),
        ({"constraint": "kl", "target": 1.0, "beta": 0.0}, r"with a constraint beta must lie in .*, got 0\.0"),
    ],
)
def test_an_objective_out_of_range_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ParsimonyObjective(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transformation": "shear"}, "one of rotation, translation, affine, got 'shear'"),
        ({"latent_size": 0}, "latent_size must be an integer of 1 or more, got 0"),
        ({"hidden_size": 2.0}, r"hidden_size must be an integer of 1 or more, got 2\.0"),
        ({"code_size": 60}, "code_size must be at most 48, got 60"),
        ({"transformation": "affine", "period": 3.0}, r"got 3\.0 with 'affine'"),
        ({"transformation": "translation", "period": -1.0}, r"a period must be positive .*, got -1\.0"),
    ],
)
def test_a_model_out_of_range_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_batch_of_other_shapes_is_refused():
    obs, action = a_batch()
    for bad in (TransitionSequence(obs[:, 0], action), TransitionSequence(obs, action.float())):
        with pytest.raises(
            ValueError, match=r"actions int64 \[B, T\] or float32 \[B, T, 5\], T >= 1, and observations"
        ):
            small().loss(bad)
