"""One interface for models of latent dynamics: encode, predict, loss.

Axes: B slices or problems, T transitions, O observation, Z latent, S state. Actions are numbers, int64.
A *state* is what predictions go on from. Its first Z entries are a latent; a model with memory keeps that behind them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from parsecrl.algorithms.models.beliefs import Gaussian
from parsecrl.algorithms.models.deduplication import DeduplicatingLayers, distinct_rows
from parsecrl.algorithms.models.layers import mlp
from parsecrl.algorithms.models.matrix_products import LinearOfVaryingRows

MIN_STD = 0.01  # of a latent's distribution


class TransitionSequence(NamedTuple):
    """B slices of T transitions, each within one episode; action[:, t] leads from obs[:, t] to obs[:, t + 1]."""

    obs: Tensor  # [B, T + 1, O] environment units
    action: Tensor  # [B, T] int64


class DynamicsLoss(NamedTuple):
    """What to minimise, and the parts that it is made of."""

    total: Tensor  # []
    terms: dict[str, Tensor]  # each [], without gradient and before its weight


class LatentDynamics(nn.Module, ABC):
    """A model that embeds observations and predicts where actions lead in the embedding; float32, batched.

    predicts, trains: False for a model that cannot predict, and for one that has no objective of its own.
    """

    predicts = True
    trains = True

    def __init__(self, obs_size: int, num_actions: int, latent_size: int):
        super().__init__()
        check_sizes(obs_size=obs_size, num_actions=num_actions, latent_size=latent_size)
        self.obs_size, self.num_actions, self.latent_size = obs_size, num_actions, latent_size

    @property
    def state_size(self) -> int:
        return self.latent_size

    @abstractmethod
    def encode(self, obs: Tensor) -> Tensor:
        """obs [..., O] -> latents [..., Z]; of a stochastic encoder the mean."""

    @abstractmethod
    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """state [..., S], action [...] int64 -> next state [..., S], of a stochastic model the mean: deterministic."""

    @abstractmethod
    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """The model's own objective, averaged over the batch. generator: of the noise that a stochastic model draws."""

    def begin(self, obs: Tensor) -> Tensor:
        """obs [..., O] -> the state [..., S] at an episode's beginning."""
        return self.encode(obs)

    def observe(self, state: Tensor, action: Tensor, obs: Tensor) -> Tensor:
        """The state after taking action [...] in state [..., S] and seeing obs [..., O]."""
        return self.encode(obs)

    def latent(self, state: Tensor) -> Tensor:
        """state [..., S] -> its latent [..., Z]."""
        return state[..., : self.latent_size]

    def distance(self, z: Tensor, goal: Tensor) -> Tensor:
        """Of latents z and goal, both [..., Z]: [...], what a plan's rewards exp(-distance) are made of."""
        return torch.linalg.vector_norm(z - goal, dim=-1)

    def with_action(self, x: Tensor, action: Tensor) -> Tensor:
        """x [..., n], action [...] -> [..., n + A], the action one-hot behind it."""
        return torch.cat([x, self.one_hot(action).expand(*x.shape[:-1], -1)], -1)

    def one_hot(self, action: Tensor) -> Tensor:
        """action [...] int64 -> [..., A]."""
        return one_hot(action, self.num_actions).to(torch.float32)

    def check(self, batch: TransitionSequence, least: int = 1) -> None:
        """Raises ValueError on a batch of other shapes, or of fewer transitions a slice than `least`."""
        B, T = batch.action.shape if batch.action.dim() == 2 else (0, 0)
        wanted = torch.Size((B, T + 1, self.obs_size)) if least <= T else None
        if batch.action.dtype != torch.int64 or batch.obs.shape != wanted:
            raise ValueError(
                f"a batch must have actions int64 [B, T], T >= {least}, and observations [B, T + 1, {self.obs_size}], "
                f"got {batch.action.dtype} {tuple(batch.action.shape)} and {tuple(batch.obs.shape)}; "
                f"sample slices of {least} or more transitions"
            )


def check_sizes(**sizes: int) -> None:
    """Raises ValueError unless each is an integer of 1 or more."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of 1 or more, got {value!r}; set model.{name}")


def check_weights(**weights: float) -> None:
    """Raises ValueError unless each is finite and 0 or more."""
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of 0 or more, got {value!r}; set model.{name}")


class Feedforward(nn.Sequential):
    """Layers of vectors [..., n], whose leading axes are folded once for all of them: a layer that did so would give a
    view, through which changes in place are dear to differentiate."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return super().forward(x)
        y = super().forward(x.reshape(-1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[-1])


def feedforward(n_in: int, n_out: int, hidden_size: int, num_layers: int) -> nn.Sequential:
    """ReLU layers of appendix A.2: `num_layers` hidden ones of `hidden_size` units."""
    check_sizes(hidden_size=hidden_size, num_layers=num_layers)
    # In place, for a product's result is not needed on the way back.
    relu = partial(nn.ReLU, inplace=True)
    return Feedforward(*mlp([n_in, *[hidden_size] * num_layers, n_out], relu, LinearOfVaryingRows))


def feedforward_encoder(obs_size: int, n_out: int, hidden_size: int, num_layers: int) -> nn.Sequential:
    """As `feedforward`, of observations: equal ones, of which a grid world has many, are computed once."""
    return DeduplicatingLayers(*feedforward(obs_size, n_out, hidden_size, num_layers))


class DistinctSlices(NamedTuple):
    """The distinct slices of a batch, and how often each was in it."""

    batch: TransitionSequence
    counts: Tensor  # [B] float


def distinct_slices(batch: TransitionSequence) -> DistinctSlices:
    """Those of observations that are not differentiated themselves; all of them where they are."""
    obs, action = batch
    if obs.requires_grad:
        return DistinctSlices(batch, obs.new_ones(len(obs)))
    found = distinct_rows(torch.cat([obs.flatten(1), action.to(obs.dtype)], 1))
    counts = torch.bincount(found.inverse, minlength=len(found.first)).to(obs.dtype)
    return DistinctSlices(TransitionSequence(obs[found.first], action[found.first]), counts)


def gaussian(raw: Tensor) -> Gaussian:
    """A network's output [..., 2 Z] -> a diagonal Gaussian [..., Z]."""
    mean, raw_std = raw.chunk(2, -1)
    return Gaussian(mean, softplus(raw_std) + MIN_STD)


def sample(distribution: Gaussian, generator: torch.Generator | None) -> Tensor:
    """A draw, differentiable in mean and standard deviation (the reparameterisation trick)."""
    mean, std = distribution
    eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + std * eps


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """[..., n] -> []: minus the log likelihood of unit variance, less its constant, averaged over the leading axes."""
    return 0.5 * (prediction - target).square().sum(-1).mean()
