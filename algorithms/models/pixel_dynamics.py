"""Recurrent models of image sequences, predicted in a latent space (Saanum and Schulz 2022, section 5, A.3 and A.4).

    u_t = f(z_{t-1}, u_{t-1}, a_{t-1})      GRU, and a readout of its state
    z_t ~ p(z_t | s_t, u_t)                  what is inferred from an image
    z_t ~ q(z_t | ...)                       what is predicted for it: where the two models differ
    s_t ~ p(s_t | z_t, u_t)                  image, unit variance

Filter, images and recurrence are the same code for both, so that what is compared is the prediction.
Axes: B sequences, T images, C of them as context, H predicted steps, A actions, Z latent, U readout, D GRU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from parsecrl.algorithms.models.affine import check_transformation, num_parameters, transformation
from parsecrl.algorithms.models.beliefs import Belief, Gaussian
from parsecrl.algorithms.models.latent_dynamics import DynamicsLoss, check_sizes, check_weights, feedforward
from parsecrl.algorithms.models.parsimony_terms import bernoulli_kl, round_straight_through
from parsecrl.algorithms.models.pixels import PRECISIONS, ImageDecoder, ImageEncoder, ImageSequence
from parsecrl.algorithms.models.recurrent_core import Filtered, RecurrentCore, kl_divergence

IMAGES_AT_ONCE = 256  # decoded without gradient; all images of an evaluation would take gigabytes


class OpenLoop(NamedTuple):
    """What is predicted for H steps after a context."""

    latents: Gaussian  # [B, H, Z]
    images: Tensor  # [B, H, 3, S, S], 0 to 1


class PixelDynamics(nn.Module, ABC):
    """A model that filters image sequences and goes on without images; the sizes are the paper's.

    Args:
        num_actions: A, at least 1.
        image_size: S: 64, 80, 96, ...
        latent_size: Z, at least 1.
        readout_size: U, at least 1.
        memory_size: D, at least 1.
        hidden_size: Units of each hidden layer, at least 1.
        channels: Maps of the first convolution; all others are multiples of it.
        min_std: Least standard deviation of a latent, 0 or more.
        transition_weight: beta_1 of eqs. 10 and 12, 0 or more.
        precision: "float32" or "bfloat16", of the networks between images and vectors; the rest is float32.
        channels_last: Memory layout of the images inside these networks. It changes no number beyond rounding.
        has_prior: Whether the recurrent core predicts, by p(z | u).

    Raises:
        ValueError: A size or weight is out of range, or the precision is unknown.
    """

    def __init__(
        self,
        num_actions: int,
        image_size: int = 80,
        latent_size: int = 30,
        readout_size: int = 30,
        memory_size: int = 200,
        hidden_size: int = 200,
        channels: int = 32,
        min_std: float = 0.1,
        transition_weight: float = 0.1,
        precision: str = "float32",
        channels_last: bool = False,
        *,
        has_prior: bool,
    ):
        super().__init__()
        check_sizes(num_actions=num_actions, latent_size=latent_size, readout_size=readout_size)
        check_sizes(memory_size=memory_size, hidden_size=hidden_size)
        check_weights(transition_weight=transition_weight, min_std=min_std)
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; set model.precision"
            )
        self.num_actions, self.image_size, self.latent_size = num_actions, image_size, latent_size
        self.transition_weight, self.precision = transition_weight, PRECISIONS[precision]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder = ImageEncoder(image_size, channels)
        self.core = RecurrentCore(
            self.encoder.embedding_size,
            num_actions,
            memory_size,
            latent_size,
            hidden_size,
            min_std,
            readout_size,
            prior=has_prior,
        )
        self.decoder = ImageDecoder(latent_size + readout_size, image_size, channels)
        for net in (self.encoder, self.decoder):
            net.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # torch's stub lacks it

    @abstractmethod
    def predict(self, belief: Belief, action: Tensor, next_h: Tensor) -> Gaussian:
        """Predict the next latent.

        Args:
            belief: Beliefs [...].
            action: [...] int64 in [0, A), taken in them.
            next_h: The GRU's next state [..., D].

        Returns:
            Mean and standard deviation [..., Z].
        """

    @abstractmethod
    def latent_loss(self, filtered: Filtered, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective adds to the reconstruction.

        Args:
            filtered: Of whole sequences [B, T].
            actions: [B, T - 1] int64.

        Returns:
            The weighted sum [], and its terms in nats before their weights.
        """

    # -- what both models do

    def observe(self, sequence: ImageSequence, noise: Tensor | None = None) -> Filtered:
        """Filter sequences from the zero belief.

        Args:
            sequence: Images [B, T] and the actions between them.
            noise: Standard normal [T, B, Z], with which latents are drawn; None goes on with means.

        Returns:
            Beliefs and inferred latents of all steps, [B, T, ...].

        Raises:
            ValueError: The batch has other shapes or types.
        """
        self.check(sequence)
        return self._filter(self._floats(sequence.images), sequence.actions, noise)

    def loss(self, batch: ImageSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """Eq. 10 or 12, averaged over B and T.

        Args:
            batch: Images [B, T], T at least 2, and the actions between them.
            generator: Of the noise with which latents are drawn.

        Returns:
            The loss. Terms: "reconstruction", half the squared error summed over an image, and those of `latent_loss`.

        Raises:
            ValueError: The batch has other shapes or types.
        """
        self.check(batch, least=2)
        B, T = batch.images.shape[:2]
        noise = torch.randn(T, B, self.latent_size, generator=generator, device=batch.images.device)
        images = self._floats(batch.images)
        filtered = self._filter(images, batch.actions, noise)
        decoded = self._decode(self._features(filtered.belief))
        reconstruction = 0.5 * nn.functional.mse_loss(decoded, images.float(), reduction="sum") / (B * T)
        latent, terms = self.latent_loss(filtered, batch.actions)
        terms = {"reconstruction": reconstruction, **terms}
        return DynamicsLoss(reconstruction + latent, {name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def open_loop(self, context: ImageSequence, actions: Tensor) -> OpenLoop:
        """Predict what follows a context.

        Predictions go on from means, as the filter here does: the state is a deterministic function of context and
        actions.

        Args:
            context: Images [B, C] and the actions between them.
            actions: [B, H] int64, H at least 1, the first taken after the context's last image.

        Returns:
            Latents and images of the H steps.

        Raises:
            ValueError: The context or the actions have other shapes or types.
        """
        filtered = self.observe(context)
        self._check_actions(actions, len(context.images), least=1)
        belief = Belief(filtered.belief.h[:, -1], filtered.belief.s[:, -1])
        hs, means, stds = [], [], []
        for action in actions.unbind(1):
            h = self.core.next_h(torch.cat([belief.s, self.one_hot(action)], -1), belief.h)
            mean, std = self.predict(belief, action, h)
            belief = Belief(h, mean)
            hs.append(h)
            means.append(mean)
            stds.append(std)
        latents = Gaussian(torch.stack(means, 1), torch.stack(stds, 1))
        return OpenLoop(latents, self.decode(Belief(torch.stack(hs, 1), latents.mean)))

    @torch.no_grad()
    def decode(self, belief: Belief) -> Tensor:
        """Make images of beliefs, without gradient.

        Args:
            belief: [B, T].

        Returns:
            [B, T, 3, S, S] in [0, 1].
        """
        features = self._features(belief)
        images = torch.cat([self._decode(some) for some in features.split(IMAGES_AT_ONCE)]).clamp_(0.0, 1.0)
        return images.contiguous().unflatten(0, belief.s.shape[:2])

    def one_hot(self, action: Tensor) -> Tensor:
        """Encode actions one-hot.

        Args:
            action: [...] int64 in [0, A).

        Returns:
            [..., A] float32.
        """
        return one_hot(action, self.num_actions).to(torch.float32)

    def check(self, batch: ImageSequence, least: int = 1) -> None:
        """Check shapes, types and, on the CPU, the range of the actions of a batch.

        Args:
            batch: What `observe` or `loss` gets.
            least: Images that a sequence must have, at least.

        Raises:
            ValueError: Images are not uint8 [B, T, 3, S, S] with T >= least, or actions not int64 [B, T - 1] in [0,
                A).
        """
        images, S = batch.images, self.image_size
        if images.dtype != torch.uint8 or images.dim() != 5 or images.shape[2:] != (3, S, S) or images.shape[1] < least:
            raise ValueError(
                f"images must be uint8 [B, T, 3, {S}, {S}] with T >= {least}, got {images.dtype} "
                f"{tuple(images.shape)}; give slices of such images"
            )
        self._check_actions(batch.actions, len(images), images.shape[1] - 1, exactly=True)

    def _check_actions(self, actions: Tensor, B: int, least: int, exactly: bool = False) -> None:
        fits = actions.dim() == 2 and len(actions) == B and actions.shape[1] >= least
        if actions.dtype != torch.int64 or not fits or (exactly and actions.shape[1] != least):
            raise ValueError(
                f"actions must be int64 [{B}, {least}{'' if exactly else ' or more'}], got {actions.dtype} "
                f"{tuple(actions.shape)}; give one for every step between images"
            )
        # Elsewhere than on the CPU it would wait for the device.
        if (
            actions.device.type == "cpu"
            and actions.numel()
            and not 0 <= actions.min() <= actions.max() < self.num_actions
        ):
            raise ValueError(
                f"actions must lie in [0, {self.num_actions}), got {int(actions.min())} to {int(actions.max())}; "
                f"set num_actions to the world's"
            )

    def _filter(self, images: Tensor, actions: Tensor, noise: Tensor | None) -> Filtered:
        """images [B * T, 3, S, S] of `_floats`."""
        with self._autocast(images.device):
            embedding = self.encoder(images)
        previous = self.one_hot(actions)
        previous = torch.cat([previous.new_zeros(len(actions), 1, self.num_actions), previous], 1)
        seen = self.core.see(embedding.float()).unflatten(0, previous.shape[:2])
        return self.core.filter(seen, previous, None, noise)

    def _features(self, belief: Belief) -> Tensor:
        """What an image is decoded from: [B, T, ...] -> [B * T, Z + U]."""
        return torch.cat([belief.s, self.core.readout(belief.h)], -1).flatten(0, 1)

    def _decode(self, features: Tensor) -> Tensor:
        """Means of the pixels, about 0 to 1.

        Not squashed: dark images push a sigmoid so far to its end that no gradient brings it back.
        """
        with self._autocast(features.device):
            return self.decoder(features).float() + 0.5

    def _floats(self, images: Tensor) -> Tensor:
        """uint8 [B, T, 3, S, S] -> [B * T, 3, S, S], 0 to 1."""
        flat = images.flatten(0, 1).contiguous(memory_format=self.memory_format)
        return flat.to(torch.float32).div_(255.0)

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        lower = self.precision == torch.bfloat16
        return torch.autocast(device.type, dtype=torch.bfloat16) if lower else nullcontext()


class PixelRSSM(PixelDynamics):
    """The RSSM of eqs. 11 and 12: z_t is predicted from u_t, which has seen the latent and the action before it.

    Args:
        num_actions: A, at least 1.
        **options: The other arguments of `PixelDynamics`.
    """

    def __init__(self, num_actions: int, **options):
        super().__init__(num_actions, **options, has_prior=True)

    def predict(self, belief: Belief, action: Tensor, next_h: Tensor) -> Gaussian:
        """The prior p(z | u) of the GRU's next state."""
        return self.core.prior(next_h)

    def latent_loss(self, filtered: Filtered, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted KL(inferred || predicted); the first step's prediction is from the zero belief.

        Args:
            filtered: Of whole sequences [B, T].
            actions: Are not read: the filter has seen them.

        Returns:
            The weighted sum [], and the term "transition" in nats.
        """
        transition = kl_divergence(filtered.posterior, self.core.prior(filtered.belief.h)).mean()
        return self.transition_weight * transition, {"transition": transition}


class ParsimoniousPixels(PixelDynamics):
    """The stochastic parsimonious model of eqs. 9 and 10: z_{t+1} ~ N(T_t mu_t, std_t).

    T_t is decoded from the action and a code of n bits, q(h | z_t, u_t, a_t) rounded. p(h | u_t, a_t) is to foresee
    the code without the latent.

    Args:
        num_actions: A, at least 1.
        transformation: "rotation", "translation" or "affine".
        code_size: n, at least 1.
        parsimony_weight: beta_2, 0 or more.
        initial_logit: Of every bit.
        printed_divergence: Train KL(predicted || inferred), as eq. 10 prints it, and not the bound's.
        hidden_size: Units of each hidden layer, at least 1.
        **options: The other arguments of `PixelDynamics`.

    Raises:
        ValueError: As `PixelDynamics`, and for an unknown transformation.
    """

    def __init__(
        self,
        num_actions: int,
        transformation: str = "affine",
        code_size: int = 30,
        parsimony_weight: float = 0.5,
        initial_logit: float = 0.0,
        printed_divergence: bool = False,
        hidden_size: int = 200,
        **options,
    ):
        super().__init__(num_actions, hidden_size=hidden_size, **options, has_prior=False)
        check_transformation(transformation)
        self.printed_divergence = printed_divergence
        check_sizes(code_size=code_size)
        check_weights(parsimony_weight=parsimony_weight)
        self.transformation, self.code_size, self.parsimony_weight = transformation, code_size, parsimony_weight
        Z, U, A, n = self.latent_size, self.core.readout_size, num_actions, code_size
        layers = {"hidden_size": hidden_size, "num_layers": 2}
        self.code_posterior_net = feedforward(Z + U + A, n + Z, **layers)
        self.code_prior_net = feedforward(U + A, n, **layers)
        self.code_decoder = feedforward(n + A, num_parameters(transformation, Z), **layers)
        with torch.no_grad():
            for net in (self.code_posterior_net, self.code_prior_net):
                head: nn.Linear = net[-1]  # type: ignore[assignment]  # mypy knows it as any module
                head.bias[:n] = initial_logit

    def predict(self, belief: Belief, action: Tensor, next_h: Tensor) -> Gaussian:
        """The latent's mean transformed by its code, and the predicted deviation, [..., Z]."""
        return self.transition(belief.s, self.core.readout(belief.h), self.one_hot(action))[0]

    def transition(self, z: Tensor, u: Tensor, action: Tensor) -> tuple[Gaussian, Tensor]:
        """Predict the next latent, with the logits of the code behind it.

        Args:
            z: Latents [..., Z].
            u: Readouts of the GRU's state [..., U].
            action: One-hot [..., A].

        Returns:
            Mean and standard deviation [..., Z] of the next latent, and logits [..., n].
        """
        raw = self.code_posterior_net(torch.cat([z, u, action], -1))
        logits, raw_std = raw[..., : self.code_size], raw[..., self.code_size :]
        code = round_straight_through(logits.sigmoid())
        by = transformation(self.transformation, self.code_decoder(torch.cat([code, action], -1)), self.latent_size)
        return Gaussian(by.apply(z), softplus(raw_std) + self.core.min_std), logits

    def codes(self, filtered: Filtered, action: int) -> Tensor:
        """The codes that one action has in every inferred state.

        Args:
            filtered: Of whole sequences [B, T].
            action: In [0, A).

        Returns:
            [B, T, n], 0 or 1.
        """
        z = filtered.posterior.mean
        actions = self.one_hot(torch.full(z.shape[:-1], action, device=z.device))
        return (self.transition(z, self.core.readout(filtered.belief.h), actions)[1] > 0).to(z.dtype)

    def latent_loss(self, filtered: Filtered, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted divergences of the T - 1 transitions (eq. 10).

        Args:
            filtered: Of whole sequences [B, T].
            actions: [B, T - 1] int64.

        Returns:
            The weighted sum [], and terms in nats: "transition", KL(inferred || predicted), the other way round with
            printed_divergence, and "parsimony", KL(q(h) || p(h)).
        """
        inferred, u, action = filtered.posterior, self.core.readout(filtered.belief.h[:, :-1]), self.one_hot(actions)
        predicted, logits = self.transition(inferred.mean[:, :-1], u, action)
        reached = Gaussian(inferred.mean[:, 1:], inferred.std[:, 1:])
        pair = (predicted, reached) if self.printed_divergence else (reached, predicted)
        transition = kl_divergence(*pair).mean()
        parsimony = bernoulli_kl(logits, self.code_prior_net(torch.cat([u, action], -1))).mean()
        latent = self.transition_weight * transition + self.parsimony_weight * parsimony
        return latent, {"transition": transition, "parsimony": parsimony}


MODELS: dict[str, type[PixelDynamics]] = {"parsimonious": ParsimoniousPixels, "rssm": PixelRSSM}
