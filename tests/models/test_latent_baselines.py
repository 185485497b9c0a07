import gymnasium
import pytest
import torch
from torch import Tensor

import parsecrl.envs  # noqa: F401  registers the worlds
from parsecrl.algorithms.models import (
    BetaVAE,
    EncoderOnly,
    LatentDynamics,
    ParsimoniousDynamics,
    ParsimonyObjective,
    RecurrentDynamics,
    StateSpaceModel,
    TransitionSequence,
    TrueDynamics,
)

KINDS = {
    "ours": ParsimoniousDynamics,
    "stochastic": lambda *sizes, **options: ParsimoniousDynamics(*sizes, stochastic=True, **options),
    "vae": BetaVAE,
    "rnn": RecurrentDynamics,
    "ssm": StateSpaceModel,
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(kind: str) -> LatentDynamics:
    torch.manual_seed(0)
    return KINDS[kind](6, 5, latent_size=4, hidden_size=16)


def a_batch(B: int = 8, T: int = 3) -> TransitionSequence:
    return TransitionSequence(randn(B, T + 1, 6), torch.randint(5, (B, T), generator=seeded(1)))


def true_dynamics(id: str = "parsecrl/FourRooms-v0") -> tuple[TrueDynamics, gymnasium.Env]:
    env = gymnasium.make(id).unwrapped
    tables = env.observations, env.topology.transitions, env.topology.distances
    return TrueDynamics(*(torch.from_numpy(table) for table in tables)), env


# -- the interface


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_independent_rows(kind: str):
    model, (obs, action) = make(kind), a_batch()
    state = model.begin(obs)
    assert model.encode(obs).shape == (8, 4, 4)
    assert state.shape == (8, 4, model.state_size)
    ahead = model.predict(state[:, 0], action[:, 0])
    assert ahead.shape == (8, model.state_size)
    assert ahead.dtype == torch.float32
    torch.testing.assert_close(model.latent(state), model.encode(obs))
    torch.testing.assert_close(model.predict(state[2:3, 0], action[2:3, 0]), ahead[2:3])
    seen = model.observe(state[:, 0], action[:, 0], obs[:, 1])
    torch.testing.assert_close(model.latent(seen), model.encode(obs[:, 1]))
    # what is remembered is the same whether the next observation was seen or predicted
    assert torch.equal(seen[:, 4:], ahead[:, 4:])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_trained(kind: str):
    model = make(kind)
    model.loss(a_batch(), seeded(0)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_the_generators(kind: str):
    model, batch = make(kind), a_batch()
    torch.manual_seed(1)
    a = model.loss(batch, seeded(5)).total
    torch.manual_seed(2)
    assert torch.equal(a, model.loss(batch, seeded(5)).total)
    is_random = not torch.equal(a, model.loss(batch, seeded(6)).total)
    assert is_random == (kind in ("stochastic", "vae", "ssm"))


@pytest.mark.learn
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_world_is_learned(kind: str):
    table = 3 * randn(9, 6)
    to = torch.tensor([[(s - 1) % 9, (s + 1) % 9, s, (s + 3) % 9, (s - 3) % 9] for s in range(9)])
    torch.manual_seed(0)
    options = {"beta": 0.01} if kind in ("vae", "ssm") else {}
    if kind == "stochastic":
        options = {"objective": ParsimonyObjective(diversity="reconstruction", transition_weight=0.1, beta=0.01)}
    model = KINDS[kind](6, 5, latent_size=8, hidden_size=64, **options)
    optimiser, generator = torch.optim.Adam(model.parameters(), lr=3e-3), seeded(0)
    for _ in range(400):
        s, a = torch.randint(9, (64,), generator=generator), torch.randint(5, (64,), generator=generator)
        batch = TransitionSequence(torch.stack([table[s], table[to[s, a]]], 1), a[:, None])
        optimiser.zero_grad()
        model.loss(batch, generator).total.backward()
        optimiser.step()
    with torch.no_grad():
        z = model.encode(table)
        ahead = model.predict(model.begin(table).repeat_interleave(5, 0), torch.arange(5).repeat(9))
        nearest = torch.cdist(model.latent(ahead), z).argmin(-1)
    assert (nearest.view(9, 5) == to).float().mean() > 0.8


# -- each model's equations


def test_vae_loss_by_its_terms():
    model, (obs, action) = make("vae"), a_batch()
    mean, raw = model.encoder(obs).chunk(2, -1)
    std = torch.nn.functional.softplus(raw) + 0.01
    z = mean + std * torch.randn(mean.shape, generator=seeded(3))
    ahead = model.predict(z[:, :-1], action)
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), standard).sum(-1).mean()
    errors = [(model.obs_net(a) - b).square().sum(-1).mean() / 2 for a, b in ((z, obs), (ahead, obs[:, 1:]))]
    torch.testing.assert_close(model.loss(TransitionSequence(obs, action), seeded(3)).total, sum(errors) + 0.1 * kl)


def test_state_space_loss_by_its_terms():
    model, (obs, action) = make("ssm"), a_batch()
    mean, raw = model.encoder(obs).chunk(2, -1)
    posterior = torch.distributions.Normal(mean, torch.nn.functional.softplus(raw) + 0.01)
    z = mean + posterior.stddev * torch.randn(mean.shape, generator=seeded(3))
    kl = 0.0
    for t in range(4):
        q = torch.distributions.Normal(mean[:, t], posterior.stddev[:, t])
        p = torch.distributions.Normal(torch.zeros(4), torch.ones(4)) if t == 0 else None
        p = p or torch.distributions.Normal(*model.prior(z[:, t - 1], action[:, t - 1]))
        kl += torch.distributions.kl_divergence(q, p).sum(-1).mean() / (1 if t == 0 else 3)
    reconstruction = (model.obs_net(z) - obs).square().sum(-1).mean() / 2
    torch.testing.assert_close(model.loss(TransitionSequence(obs, action), seeded(3)).total, reconstruction + 0.1 * kl)


def test_the_recurrent_model_remembers_and_looks_at_nothing_later():
    model, (obs, action) = make("rnn"), a_batch()
    obs.requires_grad_()
    state = model.begin(obs[:, 0])
    for t in range(2):
        state = model.observe(state, action[:, t], obs[:, t + 1])
    ahead = model.latent(model.predict(state, action[:, 2]))
    (grad,) = torch.autograd.grad(ahead.sum(), obs)
    assert (grad[:, :3] != 0).any(-1).all()
    assert (grad[:, 3] == 0).all()


def test_the_recurrent_loss_filters_with_what_was_seen():
    model, (obs, action) = make("rnn"), a_batch()
    state, errors = model.begin(obs[:, 0]), []
    for t in range(3):
        ahead = model.latent(model.predict(state, action[:, t]))
        errors.append((ahead - model.encode(obs[:, t + 1])).square().sum(-1).mean())
        state = model.observe(state, action[:, t], obs[:, t + 1])
    terms = model.loss(TransitionSequence(obs, action)).terms
    torch.testing.assert_close(terms["error"], torch.stack(errors).mean().detach())


def test_an_encoder_alone_has_no_objective_and_no_predictions():
    model = EncoderOnly(6, 5, hidden_size=16)
    loss = model.loss(a_batch())
    assert loss.total.item() == 0.0
    assert not loss.total.requires_grad
    assert not model.predicts
    assert not model.trains
    with pytest.raises(ValueError, match="planning needs a model that predicts"):
        model.predict(torch.zeros(1, 15), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("id", ["parsecrl/Gridworld-v0", "parsecrl/FourRooms-v0", "parsecrl/Torus-v0"])
def test_true_dynamics_are_the_worlds(id: str):
    model, env = true_dynamics(id)
    obs, info = env.reset(seed=0)
    state = model.begin(torch.from_numpy(obs))
    for action in torch.randint(5, (60,), generator=seeded(0)).tolist():
        state = model.predict(state, torch.tensor(action))
        obs, _, _, _, info = env.step(action)
        assert state.item() == model.encode(torch.from_numpy(obs)).item() == info["state"]
        goal = model.encode(torch.from_numpy(env.observations[info["goal_state"]]))
        assert model.distance(state, goal) == env.topology.distances[info["state"], info["goal_state"]]


# -- errors


@pytest.mark.parametrize("kind", [BetaVAE, StateSpaceModel])
def test_a_negative_beta_is_refused(kind: type):
    with pytest.raises(ValueError, match=r"beta must be a finite number of 0 or more, got -1\.0"):
        kind(6, 5, beta=-1.0)


@pytest.mark.parametrize("kind", [BetaVAE, StateSpaceModel, RecurrentDynamics])
def test_an_unknown_transformation_is_refused(kind: type):
    with pytest.raises(ValueError, match="one of rotation, translation, affine, got 'shear'"):
        kind(6, 5, transformation="shear")


def test_tables_that_do_not_belong_together_are_refused():
    model, _ = true_dynamics()
    with pytest.raises(ValueError, match=r"shapes \[N, O\], \[N, A\] and \[N, N\]"):
        TrueDynamics(model.observations, model.transitions[:-1], model.distances)
