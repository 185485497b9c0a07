import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal
from torch.distributions import kl_divergence as reference_kl

from parsecrl.algorithms.models import (
    Belief,
    Gaussian,
    ImageDecoder,
    ImageEncoder,
    ImageSequence,
    ParsimoniousPixels,
    PixelDynamics,
    PixelRSSM,
)
from parsecrl.algorithms.models.pixel_dynamics import MODELS
from tests.models.moving_squares import moving_squares

KINDS = sorted(MODELS)
A = 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(kind: str, **options) -> PixelDynamics:
    torch.manual_seed(0)
    sizes = {"image_size": 64, "latent_size": 5, "readout_size": 4, "memory_size": 12, "hidden_size": 16, "channels": 2}
    return MODELS[kind](A, **{**sizes, **options})


# -- images and vectors


@pytest.mark.parametrize(("size", "embedding"), [(64, 1024), (80, 2304)])
def test_the_papers_encoder_and_decoder_for_both_sizes(size: int, embedding: int):
    encoder, decoder = ImageEncoder(size), ImageDecoder(60, size)
    assert encoder.embedding_size == embedding
    assert [layer.out_channels for layer in encoder.layers[::2]] == [32, 64, 128, 256]
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, embedding)
    assert decoder.first.out_features == 1024
    assert [layer.out_channels for layer in decoder.layers[::2]] == [128, 64, 32, 3]
    assert [layer.kernel_size[0] for layer in decoder.layers[::2]] == [5, 5, 6, 6]
    assert decoder(torch.randn(2, 60)).shape == (2, 3, size, size)


@pytest.mark.parametrize("size", [96, 112])
def test_larger_images_pass_too(size: int):
    assert ImageDecoder(7, size, channels=2)(torch.randn(1, 7)).shape == (1, 3, size, size)
    assert ImageEncoder(size, channels=2)(torch.rand(1, 3, size, size)).shape[1] == ImageEncoder(size, 2).embedding_size


@pytest.mark.parametrize("size", [0, 48, 72, 84])
def test_other_sizes_are_refused(size: int):
    for network in (lambda: ImageEncoder(size), lambda: ImageDecoder(5, size)):
        with pytest.raises(ValueError, match="image_size must be"):
            network()


# -- the objective


def test_sizes_and_weights_are_the_papers():
    ours, rssm = ParsimoniousPixels(A), PixelRSSM(A)
    for model in (ours, rssm):
        assert (model.latent_size, model.core.readout_size, model.core.gru.hidden_size) == (30, 30, 200)
        assert model.transition_weight == 0.1
        assert model.decoder.first.in_features == 60
    assert ours.parsimony_weight == 0.5
    shared = {name: x.shape for name, x in ours.state_dict().items() if not name.startswith("code_")}
    assert {n: x.shape for n, x in rssm.state_dict().items() if not n.startswith("core.prior_net")} == shared


def by_hand(model: PixelDynamics, batch: ImageSequence, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss step by step with torch's modules and distributions; noise [T, B, Z]."""
    core = model.core
    images, one_hot = batch.images.float() / 255, torch.eye(A)[batch.actions]
    B, T = images.shape[:2]
    h, z, action = torch.zeros(B, core.deterministic_size), torch.zeros(B, model.latent_size), torch.zeros(B, A)
    reconstruction, transition, parsimony = torch.zeros(B), torch.zeros(B), torch.zeros(B)
    before = None  # u and mu of the step before
    for t in range(T):
        h = core.gru(torch.cat([z, action], -1), h)
        u = core.readout_net(h)
        embedding = model.encoder(images[:, t])
        mean, raw = core.posterior_net(torch.cat([u, embedding], -1)).chunk(2, -1)
        inferred = Normal(mean, torch.nn.functional.softplus(raw) + 0.1)
        if isinstance(model, PixelRSSM):
            prior, raw = core.prior_net(u).chunk(2, -1)
            predicted = Normal(prior, torch.nn.functional.softplus(raw) + 0.1)
            transition += reference_kl(inferred, predicted).sum(-1) / T
        elif before is not None:
            (last_u, last_mean), n = before, model.code_size
            raw = model.code_posterior_net(torch.cat([last_mean, last_u, action], -1))
            q, p = raw[:, :n], model.code_prior_net(torch.cat([last_u, action], -1))
            parameters = model.code_decoder(torch.cat([(q > 0).float(), action], -1))
            angles, offset = parameters[:, : -model.latent_size], parameters[:, -model.latent_size :]
            skew = torch.zeros(B, model.latent_size, model.latent_size)
            row, column = torch.tril_indices(model.latent_size, model.latent_size, -1)
            skew[:, row, column] = angles
            moved = (torch.linalg.matrix_exp(skew - skew.mT) @ last_mean[..., None])[..., 0] + offset
            predicted = Normal(moved, torch.nn.functional.softplus(raw[:, n:]) + 0.1)
            pair = (predicted, inferred) if model.printed_divergence else (inferred, predicted)
            transition += reference_kl(*pair).sum(-1) / (T - 1)
            parsimony += reference_kl(Bernoulli(logits=q), Bernoulli(logits=p)).sum(-1) / (T - 1)
        z = mean + inferred.stddev * noise[t]
        decoded = model.decoder(torch.cat([z, u], -1)) + 0.5
        reconstruction += 0.5 * (decoded - images[:, t]).square().sum((1, 2, 3)) / T
        before, action = (u, mean), one_hot[:, t] if t < T - 1 else None
    total = reconstruction + 0.1 * transition + 0.5 * parsimony
    terms = {"reconstruction": reconstruction.mean(), "transition": transition.mean(), "parsimony": parsimony.mean()}
    return total.mean(), terms


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS), ("parsimonious", {"printed_divergence": True, "initial_logit": 1.0})],
)
def test_loss_is_the_papers_by_hand(kind: str, options: dict):
    model, batch = small(kind, **options), moving_squares(2, 4)
    loss = model.loss(batch, seeded(3))
    expected, terms = by_hand(model, batch, torch.randn(4, 2, 5, generator=seeded(3)))
    torch.testing.assert_close(loss.total, expected)
    for name, value in loss.terms.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, terms[name].detach(), msg=name)
    assert set(loss.terms) == {"reconstruction", "transition"} | ({"parsimony"} if kind == "parsimonious" else set())


@pytest.mark.parametrize(("logit", "low", "high"), [(0.0, 0.3, 0.7), (-2.0, 0.0, 0.05), (2.0, 0.95, 1.0)])
def test_how_many_bits_are_on_at_first(logit: float, low: float, high: float):
    model, sequence = small("parsimonious", initial_logit=logit, code_size=30), moving_squares(4, 6)
    filtered = model.observe(sequence)
    share = torch.stack([model.codes(filtered, action) for action in range(A)]).mean()
    assert low <= share <= high


@pytest.mark.parametrize("transformation", ["rotation", "translation", "affine"])
def test_ours_moves_latents_by_what_its_name_says(transformation: str):
    model = small("parsimonious", transformation=transformation)
    z, u = torch.randn(7, 5, generator=seeded(0)), torch.randn(7, 4, generator=seeded(1))
    action = torch.eye(A)[torch.arange(7) % A]
    with torch.no_grad():
        for layer in model.code_posterior_net:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(4.0)  # codes of more than zeros
        moved = model.transition(z, u, action)[0].mean
        zero = model.transition(torch.zeros_like(z), u, action)[0].mean
    if transformation == "rotation":
        torch.testing.assert_close(moved.norm(dim=-1), z.norm(dim=-1))
        assert (zero == 0).all()
    assert not torch.allclose(moved, z)
    if transformation == "translation":
        logits = model.transition(z, u, action)[1]
        code = (logits > 0).float()
        torch.testing.assert_close(moved - z, model.code_decoder(torch.cat([code, action], -1)).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_trained(kind: str):
    model = small(kind)
    model.loss(moving_squares(2, 4), seeded(0)).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_weights_multiply_their_terms(kind: str):
    batch, options = moving_squares(2, 4), {"transition_weight": 2.0}
    if kind == "parsimonious":
        options["parsimony_weight"] = 3.0
    loss = small(kind, **options).loss(batch, seeded(0))
    extra = 3.0 * loss.terms.get("parsimony", torch.zeros(()))
    torch.testing.assert_close(loss.total, loss.terms["reconstruction"] + 2.0 * loss.terms["transition"] + extra)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_seed_gives_the_same_loss(kind: str):
    model, batch = small(kind), moving_squares(2, 4)
    losses = [model.loss(batch, seeded(s)).total.item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


# -- filter and prediction


@pytest.mark.parametrize("kind", KINDS)
def test_open_loop_sees_nothing_after_the_context(kind: str):
    model, sequence = small(kind), moving_squares(2, 8)
    other = moving_squares(2, 8, seed=5)

    def predict(images: Tensor, actions: Tensor):
        return model.open_loop(ImageSequence(images[:, :3], actions[:, :2]), actions[:, 2:])

    told = predict(*sequence)
    assert told.latents.mean.shape == told.latents.std.shape == (2, 5, 5)
    assert told.images.shape == (2, 5, 3, 64, 64)
    swapped = sequence.images.clone()
    swapped[:, 3:] = other.images[:, 3:]
    torch.testing.assert_close(predict(swapped, sequence.actions), told, rtol=0, atol=0)
    swapped[:, 2] = other.images[:, 2]
    assert not torch.equal(predict(swapped, sequence.actions).latents.mean[:, 0], told.latents.mean[:, 0])
    actions = sequence.actions.clone()
    actions[:, 4] = (actions[:, 4] + 1) % A  # leads to the third predicted step
    moved = predict(sequence.images, actions)
    assert torch.equal(moved.latents.mean[:, :2], told.latents.mean[:, :2])
    assert torch.equal(moved.images[:, :2], told.images[:, :2])
    assert (moved.latents.mean[:, 2] != told.latents.mean[:, 2]).any(-1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_a_prediction_from_later_images(kind: str):
    model, sequence = small(kind), moving_squares(1, 6)
    images = model._floats(sequence.images).requires_grad_()
    filtered = model._filter(images, sequence.actions, None)
    belief = Belief(filtered.belief.h[:, 2], filtered.belief.s[:, 2])
    action = sequence.actions[:, 2]
    h = model.core.next_h(torch.cat([belief.s, model.one_hot(action)], -1), belief.h)
    (g,) = torch.autograd.grad(sum(part.sum() for part in model.predict(belief, action, h)), images)
    assert (g[3:] == 0).all()
    assert (g[:3] != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_open_loop_step_is_the_loss_own_prediction(kind: str):
    model, sequence = small(kind), moving_squares(3, 5)
    filtered = model.observe(sequence)
    images, actions = sequence
    ahead = [
        model.open_loop(ImageSequence(images[:, :t], actions[:, : t - 1]), actions[:, t - 1 :]) for t in range(1, 5)
    ]
    predicted = Gaussian(*(torch.stack([getattr(a.latents, part)[:, 0] for a in ahead], 1) for part in ("mean", "std")))
    inferred = Gaussian(filtered.posterior.mean[:, 1:], filtered.posterior.std[:, 1:])
    expected = reference_kl(Normal(*inferred), Normal(*predicted)).sum(-1)  # [B, T - 1]
    _, terms = model.latent_loss(filtered, sequence.actions)
    if kind == "rssm":  # which has a first step besides, from the zero belief
        zero = model.core.prior(filtered.belief.h[:, 0])
        first = Gaussian(filtered.posterior.mean[:, 0], filtered.posterior.std[:, 0])
        expected = torch.cat([reference_kl(Normal(*first), Normal(*zero)).sum(-1)[:, None], expected], 1)
    torch.testing.assert_close(terms["transition"], expected.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_a_batch_are_independent(kind: str):
    model, sequence = small(kind), moving_squares(3, 6)
    whole = model.open_loop(ImageSequence(sequence.images[:, :2], sequence.actions[:, :1]), sequence.actions[:, 1:])
    for b in range(3):
        images, actions = sequence.images[b : b + 1], sequence.actions[b : b + 1]
        alone = model.open_loop(ImageSequence(images[:, :2], actions[:, :1]), actions[:, 1:])
        torch.testing.assert_close(alone.images, whole.images[b : b + 1])
        torch.testing.assert_close(alone.latents.mean, whole.latents.mean[b : b + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_layout_changes_nothing_and_bfloat16_little(kind: str):
    batch = moving_squares(2, 4)
    plain, last, half = (
        small(kind, **options).loss(batch, seeded(0))
        for options in ({}, {"channels_last": True}, {"precision": "bfloat16", "channels_last": True})
    )
    torch.testing.assert_close(last.total, plain.total)
    torch.testing.assert_close(half.total, plain.total, rtol=0.02, atol=0.0)
    assert half.total != plain.total
    assert half.total.dtype == torch.float32


@pytest.mark.learn
@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_model_memorises_two_sequences(kind: str):
    """After two images the rest is predicted, with the actions alone, far better than by the last image."""
    batch = moving_squares(2, 6)
    model = small(kind, latent_size=8, readout_size=8, memory_size=32, hidden_size=32, channels=8)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = seeded(0)
    for _ in range(250):
        optimiser.zero_grad()
        model.loss(batch, generator).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
    told = model.open_loop(ImageSequence(batch.images[:, :2], batch.actions[:, :1]), batch.actions[:, 1:])
    truth = batch.images.float() / 255
    error = (told.images - truth[:, 2:]).square().mean()
    assert error < 0.2 * (truth[:, 1:2] - truth[:, 2:]).square().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_dark_images_are_learnt_too(kind: str):
    """A sigmoid behind the decoder stays at black for ever: 7.1 with these images, after 50 updates and after 250."""
    bright = moving_squares(2, 6)
    batch = ImageSequence(bright.images // 8, bright.actions)
    model = small(kind, latent_size=8, readout_size=8, memory_size=32, hidden_size=32, channels=8)
    optimiser, generator = torch.optim.Adam(model.parameters(), lr=3e-3), seeded(0)
    for _ in range(120):
        optimiser.zero_grad()
        loss = model.loss(batch, generator)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
    black = 0.5 * (batch.images.float() / 255).square().sum((2, 3, 4)).mean()
    assert loss.terms["reconstruction"] < 0.5 * black


# -- what is refused


@pytest.mark.parametrize(
    ("kind", "options", "rule"),
    [
        ("rssm", {"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ("rssm", {"latent_size": 0}, "latent_size must be an integer of 1 or more, got 0"),
        ("rssm", {"channels": 1.5}, "channels must be an integer of 1 or more, got 1.5"),
        ("rssm", {"image_size": 72}, "image_size must be 64, 80, 96 or more in steps of 16, got 72"),
        ("parsimonious", {"transition_weight": -1.0}, "transition_weight must be a finite number of 0 or more"),
        ("parsimonious", {"parsimony_weight": float("nan")}, "parsimony_weight must be a finite number"),
        ("parsimonious", {"transformation": "shear"}, "transformation must be one of rotation, translation, affine"),
        ("parsimonious", {"code_size": 0}, "code_size must be an integer of 1 or more, got 0"),
    ],
)
def test_bad_settings_are_named(kind: str, options: dict, rule: str):
    with pytest.raises(ValueError, match=rule):
        small(kind, **options)


def test_batches_of_other_shapes_are_refused():
    model, batch = small("rssm"), moving_squares(2, 4)
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, T, 3, 64, 64\] with T >= 2, got torch.float32"):
        model.loss(batch._replace(images=batch.images.float()))
    with pytest.raises(ValueError, match=r"got torch.uint8 \(2, 4, 3, 80, 80\)"):
        model.observe(moving_squares(2, 4, size=80))
    with pytest.raises(ValueError, match=r"actions must be int64 \[2, 3\], got torch.int64 \(2, 2\)"):
        model.loss(batch._replace(actions=batch.actions[:, :2]))
    with pytest.raises(ValueError, match=r"actions must lie in \[0, 6\), got 6 to 6"):
        model.loss(batch._replace(actions=torch.full_like(batch.actions, 6)))
    with pytest.raises(ValueError, match=r"actions must be int64 \[2, 1 or more\]"):
        model.open_loop(batch, batch.actions[:, :0])
