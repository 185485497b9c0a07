"""Parsimonious latent dynamics (Saanum and Schulz 2022, sections 2.2 to 2.4, appendices A.1 and A.2).

    z_t = f(s_t)                          encoder
    h_t = round(p), q(h | z_t, a_t)       posterior, n Bernoulli variables
    p(h | a_t)                            prior, the same in all states
    T_t = j(h_t, a_t)                     decoder to a rotation, a translation or both
    z_{t+1} ~ T_t z_t

Axes: B slices, T transitions, K steps of a latent rollout, O observation, Z latent, n bits of a code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from parsecrl.algorithms.models.affine import Affine, check_transformation, movement, num_parameters, transformation
from parsecrl.algorithms.models.beliefs import Gaussian
from parsecrl.algorithms.models.latent_dynamics import (
    MIN_STD,
    DynamicsLoss,
    LatentDynamics,
    TransitionSequence,
    check_sizes,
    distinct_slices,
    feedforward,
    feedforward_encoder,
    gaussian,
    sample,
)
from parsecrl.algorithms.models.parsimony_objective import BETA_RANGE, ParsimonyObjective
from parsecrl.algorithms.models.parsimony_terms import (
    bernoulli_kl,
    contrastive_loss,
    contrastive_targets,
    pairwise_distance,
    round_straight_through,
    transition_error,
)
from parsecrl.algorithms.models.rssm import kl_divergence

MULTIPLIER_SPEED = 10.0  # log beta moves by this times the learning rate in a step of Adam
INITIAL_LOGIT = -2.0  # of all bits: see ParsimoniousDynamics
MAX_CODE_SIZE = 48  # a code and its action fit one int64


class ParsimoniousDynamics(LatentDynamics):
    """The paper's model; the defaults are the sizes of appendix A.2.

    All bits start clearly off. Where p is near 1/2, codes of different states differ although their distributions
    hardly do, which no divergence mends. From here a bit differs where the prediction needs it to.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        transformation: "rotation", "translation" or "affine" (a rotation, then a translation).
        latent_size: Z, at least 1.
        code_size: n, 1 to 48.
        hidden_size: Units of each hidden layer, of all networks.
        num_layers: Hidden layers of each network.
        stochastic: Latents are Gaussian (eqs. 7 and 9), and `encode` and `predict` give means. The objective then
            reconstructs by default: a contrast can be had by noise alone, and means collapse.
        period: Beyond the paper, > 0: latents lie on a torus, each dimension wraps at `period`. For translations only:
            on a line, no translation but zero leads back to where it began, as moves around a torus do.
        encoder: A module [..., O] -> [..., Z] of one's own (2 Z if stochastic) in place of the feed-forward network.
        objective: Weights and choices of the loss.

    Raises:
        ValueError: The transformation is unknown, a size is out of range, or a period does not go with the rest.
    """

    def __init__(
        self,
        obs_size: int,
        num_actions: int,
        transformation: str = "affine",
        latent_size: int = 15,
        code_size: int = 15,
        hidden_size: int = 1200,
        num_layers: int = 2,
        stochastic: bool = False,
        period: float | None = None,
        encoder: nn.Module | None = None,
        objective: ParsimonyObjective | None = None,
    ):
        super().__init__(obs_size, num_actions, latent_size)
        check_sizes(code_size=code_size)
        check_transformation(transformation)
        if code_size > MAX_CODE_SIZE:
            raise ValueError(f"code_size must be at most {MAX_CODE_SIZE}, got {code_size}; the paper has 15")
        if period is not None and (transformation != "translation" or stochastic or not 0 < period < math.inf):
            raise ValueError(
                f"a period must be positive and goes with a deterministic translation, got {period!r} with "
                f"{transformation!r} and stochastic={stochastic}; leave it out"
            )
        self.transformation, self.code_size = transformation, code_size
        self.stochastic, self.period = stochastic, period
        default = ParsimonyObjective(diversity="reconstruction" if stochastic else "contrastive")
        self.objective = objective or default
        layers: dict[str, Any] = {"hidden_size": hidden_size, "num_layers": num_layers}
        Z, n = latent_size, code_size
        self.encoder = encoder or feedforward_encoder(obs_size, (1 + stochastic) * Z, **layers)
        self.posterior_net = feedforward(Z + num_actions, n + stochastic * Z, **layers)
        self.prior_net = feedforward(num_actions, n, **layers)
        self.decoder = feedforward(n + num_actions, num_parameters(transformation, Z), **layers)
        with torch.no_grad():
            for net in (self.posterior_net, self.prior_net):
                head: nn.Linear = net[-1]  # type: ignore[assignment]  # mypy knows it as any module
                head.bias[:n] = INITIAL_LOGIT
        if self.objective.diversity == "reconstruction":
            self.obs_net = feedforward(Z, obs_size, **layers)
        if self.objective.constraint is not None:
            # A parameter like the others: the model's optimiser moves it, and it is kept where they are kept.
            self.multiplier = nn.Parameter(torch.tensor(math.log(self.objective.beta) / MULTIPLIER_SPEED))

    # -- the four functions of eq. (1), and what is made of them

    def encode(self, obs: Tensor) -> Tensor:
        """The latent [..., Z] of obs [..., O]: f of eq. 1, or its mean."""
        return self.latent_of(self.encoder(obs))

    def latent_of(self, raw: Tensor) -> Tensor:
        """The latent [..., Z] of the encoder's output."""
        return gaussian(raw).mean if self.stochastic else self._wrap(raw)

    def codes(self, z: Tensor, action: Tensor) -> Tensor:
        """Infer the codes of transitions (eq. 3).

        Args:
            z: Latents [..., Z].
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            h [..., n], 0 or 1, with the straight-through gradient.
        """
        return round_straight_through(self.posterior(z, action)[0].sigmoid())

    def decode(self, code: Tensor, action: Tensor) -> Affine:
        """Decode transformations: j of eq. 1.

        Args:
            code: h [..., n], 0 or 1.
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            One transformation for each leading position.
        """
        return self._transformation(self.decoder(self.with_action(code, action)))

    def _transformation(self, parameters: Tensor) -> Affine:
        return transformation(self.transformation, parameters, self.latent_size)

    def move(self, z: Tensor, by: Affine) -> Tensor:
        """Transform latents, on the torus if there is a period.

        Args:
            z: [..., Z].
            by: The transformations.

        Returns:
            [..., Z].
        """
        return self._wrap(by.apply(z))

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """The latent [..., Z] after the action: its code, the code's transformation."""
        return self.move(state, self.decode(self.codes(state, action), action))

    def posterior(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """q(h | z, a), as logits.

        Args:
            z: Latents [..., Z].
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            Logits [..., n], and the stochastic model's standard deviation of the next latent [..., Z], else None.
        """
        raw = self.posterior_net(self.with_action(z, action))
        if not self.stochastic:
            return raw, None
        return raw[..., : self.code_size], softplus(raw[..., self.code_size :]) + MIN_STD

    def prior(self) -> Tensor:
        """Logits [A, n] of p(h | a), of all actions that are numbers."""
        some = next(self.parameters())
        return self.prior_net(torch.eye(self.num_actions, dtype=some.dtype, device=some.device))

    def _prior_of(self, action: Tensor) -> Tensor:
        """Logits [..., n] of p(h | a); of numbers those of all actions are computed once."""
        return self.prior_net(action) if action.is_floating_point() else self.prior()[action]

    def distance(self, z: Tensor, goal: Tensor) -> Tensor:
        """Euclidean distance [...] of latents [..., Z], on the torus if there is a period."""
        return torch.linalg.vector_norm(self._wrap(z - goal), dim=-1)

    @property
    def beta(self) -> Tensor:
        """The weight of the parsimony term as it stands, [] without gradient."""
        if self.objective.constraint is None:
            return torch.tensor(self.objective.beta, device=self._device)
        low, high = BETA_RANGE
        return (MULTIPLIER_SPEED * self.multiplier.detach()).exp().clamp(low, high)

    # -- training

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """Transition, parsimony, diversity and movement terms (eqs. 4, 6, 8; stochastic: 7, 9); divergences in nats.

        Args:
            batch: B slices of T transitions, T at least rollout_steps.
            generator: Of the stochastic model's noise.

        Returns:
            The loss. Terms: "error" (eq. 8, or the divergence of eq. 9), "parsimony", "diversity",
            "movement" (square radians), "beta", and "distance", the mean Euclidean distance between predicted and
            encoded latents. The last means the same in every variant.

        Raises:
            ValueError: The batch has other shapes.
        """
        weights = self.objective
        self.check(batch, weights.rollout_steps)
        if self.stochastic:
            counts = batch.obs.new_ones(len(batch.obs))
            embedded = self._embed(batch.obs)
            z, drawn = embedded.mean, sample(embedded, generator)
        else:
            batch, counts = distinct_slices(batch)  # what is equal has equal losses
            embedded, z = None, self.encode(batch.obs)
            drawn = z
        obs, action = batch

        def mean(x: Tensor) -> Tensor:
            """Over the batch as it was given, [B, T] -> []."""
            return (counts @ x).mean() / counts.sum()

        prior = self._prior_of(action)  # [B, T, n]
        errors, divergences, distances, movements = [], [], [], []
        current = z[:, :-1]  # [B, T, Z]
        for k in range(weights.rollout_steps):
            a, there = action[:, k:], z[:, k + 1 :]  # [B, T - k], [B, T - k, Z]
            logits, std = self.posterior(current, a)
            parameters = self.decoder(self.with_action(round_straight_through(logits.sigmoid()), a))
            current = self.move(current, self._transformation(parameters))
            movements.append(mean(movement(self.transformation, parameters, self.latent_size, weights.movement_unit)))
            distances.append(mean(self.distance(current.detach(), there.detach())))
            if embedded is None:
                errors.append(mean(transition_error(self._wrap(current - there))))
            else:
                assert std is not None
                reached = Gaussian(there, embedded.std[:, k + 1 :])
                errors.append(mean(kl_divergence(reached, Gaussian(current, std))))
            divergences.append(mean(bernoulli_kl(logits, prior[:, k:])))
            current = current[:, :-1]
        error, parsimony, moved = (torch.stack(found).mean() for found in (errors, divergences, movements))
        diversity = self._diversity(obs, drawn, counts)
        beta = self.beta
        total = weights.transition_weight * error + beta * parsimony + weights.diversity_weight * diversity
        total = total + weights.movement_weight * moved
        total = total + self._multiplier_term(parsimony.detach(), error.detach())
        terms = {"error": error, "parsimony": parsimony, "diversity": diversity, "movement": moved, "beta": beta}
        terms["distance"] = torch.stack(distances).mean()
        return DynamicsLoss(total, {name: term.detach() for name, term in terms.items()})

    def _embed(self, obs: Tensor) -> Gaussian:
        return gaussian(self.encoder(obs))

    def _wrap(self, z: Tensor) -> Tensor:
        """The same point of the torus, or the shortest way between two, in [-period / 2, period / 2]."""
        return z if self.period is None else z - self.period * torch.round(z / self.period)

    def _diversity(self, obs: Tensor, z: Tensor, counts: Tensor) -> Tensor:
        if self.objective.diversity == "reconstruction":
            return 0.5 * (counts @ (self.obs_net(z) - obs).square().sum(-1)).mean() / counts.sum()
        # Of each slice's first state alone: later ones would be near each other, and B states are B^2 pairs already.
        s, z = obs[:, 0], z[:, 0]
        target = contrastive_targets(s, self.objective.similarity_scale_obs)
        apart = self.distance(z.unsqueeze(1), z.unsqueeze(0)) if self.period else pairwise_distance(z)
        return contrastive_loss(target, apart, self.objective.similarity_scale_latent, counts)

    def _multiplier_term(self, parsimony: Tensor, error: Tensor) -> Tensor | float:
        """What makes descent of the total an ascent of the multiplier, while its constraint is violated."""
        constraint, target = self.objective.constraint, self.objective.target
        if constraint is None or target is None:
            return 0.0
        with torch.no_grad():
            low, high = (math.log(b) / MULTIPLIER_SPEED for b in BETA_RANGE)
            self.multiplier.clamp_(low, high)
        violation = parsimony - target if constraint == "kl" else target - error
        return -MULTIPLIER_SPEED * self.multiplier * violation

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device
