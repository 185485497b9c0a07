"""One interface for models of latent dynamics: encode, predict, loss.

Axes: B slices or problems, T transitions, O observation, Z latent, S state, A actions. Actions are numbers of one of A,
int64 [...], or vectors [..., A] in [-1, 1], float32; the type decides.
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
    action: Tensor  # [B, T] int64, or [B, T, A] float32


class DynamicsLoss(NamedTuple):
    """What to minimise, and the parts that it is made of."""

    total: Tensor  # []
    terms: dict[str, Tensor]  # each [], without gradient and before its weight


class LatentDynamics(nn.Module, ABC):
    """A model that embeds observations and predicts where actions lead in the embedding; float32, batched.

    `predicts` is False for a model that cannot predict, `trains` for one that has no objective of its own.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        latent_size: Z, at least 1.

    Raises:
        ValueError: A size is no integer of 1 or more.
    """

    predicts = True
    trains = True

    def __init__(self, obs_size: int, num_actions: int, latent_size: int):
        super().__init__()
        check_sizes(obs_size=obs_size, num_actions=num_actions, latent_size=latent_size)
        self.obs_size, self.num_actions, self.latent_size = obs_size, num_actions, latent_size

    @property
    def state_size(self) -> int:
        """S, the size of a state: Z, and what a memory takes."""
        return self.latent_size

    @abstractmethod
    def encode(self, obs: Tensor) -> Tensor:
        """Embed observations.

        Args:
            obs: [..., O], environment units.

        Returns:
            Latents [..., Z]; of a stochastic encoder the mean.
        """

    def latent_of(self, raw: Tensor) -> Tensor:
        """The latent in what an encoder gives: all of it, unless a model says otherwise.

        Args:
            raw: [..., n], the output of the model's `encoder`, or of a copy of that.

        Returns:
            Latents [..., Z].
        """
        return raw

    @abstractmethod
    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """Predict where an action leads.

        Args:
            state: [..., S].
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            The next state [..., S]; of a stochastic model the mean, so that it is deterministic.
        """

    @abstractmethod
    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """The model's own objective, averaged over the batch.

        Args:
            batch: B slices of T transitions.
            generator: Of the noise that a stochastic model draws.

        Returns:
            The loss and its terms.

        Raises:
            ValueError: The batch has other shapes.
        """

    def begin(self, obs: Tensor) -> Tensor:
        """The state at an episode's beginning.

        Args:
            obs: First observations [..., O].

        Returns:
            States [..., S].
        """
        return self.encode(obs)

    def observe(self, state: Tensor, action: Tensor, obs: Tensor) -> Tensor:
        """The state after an action and what was seen then.

        Args:
            state: [..., S], in which the action is taken.
            action: [...] int64 in [0, A), or [..., A] float32.
            obs: [..., O], seen after the action.

        Returns:
            States [..., S].
        """
        return self.encode(obs)

    def latent(self, state: Tensor) -> Tensor:
        """The latent of a state: its first Z entries.

        Args:
            state: [..., S].

        Returns:
            [..., Z].
        """
        return state[..., : self.latent_size]

    def distance(self, z: Tensor, goal: Tensor) -> Tensor:
        """The distance that a plan's rewards exp(-distance) are made of.

        Args:
            z: Latents [..., Z].
            goal: Latents [..., Z].

        Returns:
            [...], 0 or more.
        """
        return torch.linalg.vector_norm(z - goal, dim=-1)

    def with_action(self, x: Tensor, action: Tensor) -> Tensor:
        """Append the action: a number one-hot, a vector as it is.

        Args:
            x: [..., n].
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            [..., n + A].
        """
        return torch.cat([x, self.action_vector(action).expand(*x.shape[:-1], -1)], -1)

    def action_vector(self, action: Tensor) -> Tensor:
        """What networks see of actions: a number one-hot, a vector as it is.

        Args:
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            [..., A] float32.
        """
        return action if action.is_floating_point() else one_hot(action, self.num_actions).to(torch.float32)

    def check(self, batch: TransitionSequence, least: int = 1) -> None:
        """Check the shapes and types of a batch.

        Args:
            batch: What `loss` gets.
            least: Transitions that a slice must have, at least.

        Raises:
            ValueError: The batch has other shapes, or fewer transitions a slice.
        """
        action = batch.action
        is_vector = action.is_floating_point()
        lead = action.shape[:-1] if is_vector else action.shape
        fits = len(lead) == 2 and lead[1] >= least and action.dtype in (torch.int64, torch.float32)
        fits = fits and action.shape[2:] == ((self.num_actions,) if is_vector else ())
        if not fits or batch.obs.shape != (lead[0], lead[1] + 1, self.obs_size):
            raise ValueError(
                f"a batch must have actions int64 [B, T] or float32 [B, T, {self.num_actions}], T >= {least}, and "
                f"observations [B, T + 1, {self.obs_size}], got {action.dtype} {tuple(action.shape)} and "
                f"{tuple(batch.obs.shape)}; sample slices of {least} or more transitions"
            )


def check_sizes(**sizes: int) -> None:
    """Check sizes of a model.

    Args:
        **sizes: By name; integers of 1 or more.

    Raises:
        ValueError: One of them is not; the message has its name.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of 1 or more, got {value!r}; set model.{name}")


def check_weights(**weights: float) -> None:
    """Check weights and other numbers of a model.

    Args:
        **weights: By name; finite and 0 or more.

    Raises:
        ValueError: One of them is not; the message has its name.
    """
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of 0 or more, got {value!r}; set model.{name}")


class Feedforward(nn.Sequential):
    """Layers of vectors, whose leading axes are folded once for all of them.

    A layer that folded its own would give a view, through which changes in place are dear to differentiate.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers: [..., n] -> [..., m]."""
        if x.dim() == 2:
            return super().forward(x)
        y = super().forward(x.reshape(-1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[-1])


def feedforward(n_in: int, n_out: int, hidden_size: int, num_layers: int) -> nn.Sequential:
    """Make the network of appendix A.2: linear layers and ReLUs.

    Args:
        n_in: Inputs.
        n_out: Outputs.
        hidden_size: Units of each hidden layer, at least 1.
        num_layers: Hidden layers, at least 1.

    Returns:
        A network from [..., n_in] to [..., n_out].

    Raises:
        ValueError: hidden_size or num_layers is no integer of 1 or more.
    """
    check_sizes(hidden_size=hidden_size, num_layers=num_layers)
    # In place, for a product's result is not needed on the way back.
    relu = partial(nn.ReLU, inplace=True)
    return Feedforward(*mlp([n_in, *[hidden_size] * num_layers, n_out], relu, LinearOfVaryingRows))


def feedforward_encoder(obs_size: int, n_out: int, hidden_size: int, num_layers: int) -> nn.Sequential:
    """Make a `feedforward` network of observations, of which equal ones are computed once: a grid world has many.

    Args:
        obs_size: O.
        n_out: Outputs.
        hidden_size: Units of each hidden layer, at least 1.
        num_layers: Hidden layers, at least 1.

    Returns:
        A network from [..., O] to [..., n_out].

    Raises:
        ValueError: hidden_size or num_layers is no integer of 1 or more.
    """
    return DeduplicatingLayers(*feedforward(obs_size, n_out, hidden_size, num_layers))


class DistinctSlices(NamedTuple):
    """The distinct slices of a batch, and how often each was in it."""

    batch: TransitionSequence
    counts: Tensor  # [B] float


def distinct_slices(batch: TransitionSequence) -> DistinctSlices:
    """Find the distinct slices of a batch.

    Args:
        batch: Slices [B, T]. All are returned where their observations are differentiated themselves.

    Returns:
        The distinct slices, and how often each was in the batch.
    """
    obs, action = batch
    if obs.requires_grad:
        return DistinctSlices(batch, obs.new_ones(len(obs)))
    found = distinct_rows(torch.cat([obs.flatten(1), action.to(obs.dtype).flatten(1)], 1))
    counts = obs.new_zeros(len(found.first)).index_add_(0, found.inverse, obs.new_ones(len(obs)))
    return DistinctSlices(TransitionSequence(obs[found.first], action[found.first]), counts)


def gaussian(raw: Tensor) -> Gaussian:
    """Make a diagonal Gaussian from the output of a network.

    Args:
        raw: [..., 2 Z]: means, then standard deviations before the softplus.

    Returns:
        Mean and standard deviation [..., Z], the latter at least MIN_STD.
    """
    mean, raw_std = raw.chunk(2, -1)
    return Gaussian(mean, softplus(raw_std) + MIN_STD)


def sample(distribution: Gaussian, generator: torch.Generator | None) -> Tensor:
    """Draw from a diagonal Gaussian, differentiably in mean and standard deviation (the reparameterisation trick).

    Args:
        distribution: [..., Z].
        generator: Of the draw.

    Returns:
        A draw [..., Z].
    """
    mean, std = distribution
    eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + std * eps


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared error: minus the log likelihood of unit variance, less its constant.

    Args:
        prediction: [..., n].
        target: [..., n].

    Returns:
        [], summed over the last axis and averaged over the others.
    """
    return 0.5 * (prediction - target).square().sum(-1).mean()
