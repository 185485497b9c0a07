"""What recurrent state-space models share, whatever they observe: the recurrence and the filter.

    h_t = f(h_{t-1}, s_{t-1}, u_{t-1})      GRU
    s_t ~ p(s_t | h_t)                      prior
    s_t ~ q(s_t | h_t, e_t)                 posterior, e_t an observation or an embedding of it

Axes: B sequences or beliefs, T steps, E embedding, A action, D deterministic, U what is read out of it, S stochastic,
K hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from parsecrl.algorithms.models.beliefs import Belief, Gaussian
from parsecrl.algorithms.models.layers import RunningNorm, gru_step, mlp
from parsecrl.algorithms.models.matrix_products import linear

OBS_LIMIT = 10.0  # standard deviations; observations further off count as that far


class Posterior(NamedTuple):
    """What filtering a sequence gives; all [B, T, ...]."""

    belief: Belief
    prior: Gaussian
    posterior: Gaussian


class Filtered(NamedTuple):
    """What filtering a sequence gives, without predictions; all [B, T, ...]."""

    belief: Belief
    posterior: Gaussian


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of diagonal Gaussians.

    Args:
        q: [..., S].
        p: [..., S].

    Returns:
        [...] nats.
    """
    ratio = (q.std / p.std) ** 2
    return 0.5 * (ratio + ((q.mean - p.mean) / p.std) ** 2 - 1 - ratio.log()).sum(-1)


class RecurrentCore(nn.Module):
    """GRU, posterior and, unless another form of prediction takes its place, prior.

    Args:
        embedding_size: E.
        action_size: A.
        deterministic_size: D.
        stochastic_size: S.
        hidden_size: K, units of each of two hidden layers.
        min_std: Least standard deviation of a state, > 0.
        readout_size: U, of a linear readout of h that posterior and prior see; None: h itself, U is D.
        prior: Whether there is a prior p(s | h).
        standardize: Standardise what is observed by a running mean and variance.
    """

    def __init__(
        self,
        embedding_size: int,
        action_size: int,
        deterministic_size: int = 200,
        stochastic_size: int = 30,
        hidden_size: int = 200,
        min_std: float = 0.1,
        readout_size: int | None = None,
        prior: bool = True,
        standardize: bool = False,
    ):
        super().__init__()
        self.action_size = action_size
        self.deterministic_size, self.stochastic_size, self.min_std = deterministic_size, stochastic_size, min_std
        self.readout_size = readout_size or deterministic_size
        U, S, K = self.readout_size, stochastic_size, hidden_size
        self.obs_norm = RunningNorm(embedding_size, OBS_LIMIT) if standardize else nn.Identity()
        self.gru = nn.GRUCell(S + action_size, deterministic_size)
        if prior:
            self.prior_net = mlp([U, K, K, 2 * S])
        self.posterior_net = mlp([U + embedding_size, K, K, 2 * S])
        self.readout_net = nn.Linear(deterministic_size, readout_size) if readout_size else nn.Identity()

    def initial_belief(self, batch_size: int) -> Belief:
        """The belief before the first observation of an episode: zeros.

        Args:
            batch_size: B.

        Returns:
            Beliefs [B].
        """
        weight = self.gru.weight_hh
        return Belief(
            weight.new_zeros(batch_size, self.deterministic_size), weight.new_zeros(batch_size, self.stochastic_size)
        )

    def readout(self, h: Tensor) -> Tensor:
        """What posterior and prior see of the GRU's state.

        Args:
            h: [..., D].

        Returns:
            [..., U].
        """
        return self.readout_net(h)

    def next_h(self, x: Tensor, h: Tensor) -> Tensor:
        """Step the GRU.

        Args:
            x: State and action [..., S + A].
            h: [..., D].

        Returns:
            The next h [..., D].
        """
        gru = self.gru
        return gru_step(linear(x, gru.weight_ih, gru.bias_ih), linear(h, gru.weight_hh, gru.bias_hh), h)

    def prior(self, h: Tensor) -> Gaussian:
        """p(s | h).

        Args:
            h: [..., D].

        Returns:
            Mean and standard deviation [..., S].
        """
        return self._gaussian(self.prior_net(self.readout(h)))

    def posterior(self, h: Tensor, seen: Tensor) -> Gaussian:
        """q(s | h, e).

        Args:
            h: [..., D].
            seen: [..., K], what `see` makes of the embedding e.

        Returns:
            Mean and standard deviation [..., S].
        """
        first: nn.Linear = self.posterior_net[0]  # type: ignore[assignment]  # mypy knows it as any module
        x = linear(self.readout(h), first.weight[:, : self.readout_size]) + seen
        return self._gaussian(self.posterior_net[1:](x))

    def see(self, embedding: Tensor) -> Tensor:
        """The part that an embedding has in the posterior's first layer: a loop over time need not compute it.

        Args:
            embedding: e [..., E].

        Returns:
            [..., K].
        """
        first: nn.Linear = self.posterior_net[0]  # type: ignore[assignment]  # mypy knows it as any module
        return linear(self.obs_norm(embedding), first.weight[:, self.readout_size :], first.bias)

    def filter(self, seen: Tensor, previous_action: Tensor, keep: Tensor | None, noise: Tensor | None) -> Filtered:
        """Filter whole sequences.

        Args:
            seen: [B, T, K], of `see`.
            previous_action: [B, T, A], the one that led to each step; zeros before the first.
            keep: [B, T, 1], 0 where the past must not reach, else 1; None for nowhere.
            noise: Standard normal [T, B, S], with which states are drawn; None for the posterior's means.

        Returns:
            Beliefs and posteriors of all steps.
        """
        h, s = self.initial_belief(len(seen))
        hs, means, stds, states = [], [], [], []
        # Unbound once: the gradient of an index is a tensor as large as the whole sequence, at every step.
        T = seen.shape[1]
        kept_all = keep.unbind(1) if keep is not None else [None] * T
        draws = noise.unbind(0) if noise is not None else [None] * T
        for kept, action, see, eps in zip(kept_all, previous_action.unbind(1), seen.unbind(1), draws, strict=True):
            if kept is not None:
                h, s = h * kept, s * kept
            h = self.next_h(torch.cat([s, action], -1), h)
            mean, std = self.posterior(h, see)
            s = mean if eps is None else mean + std * eps
            hs.append(h)
            means.append(mean)
            stds.append(std)
            states.append(s)
        belief = Belief(torch.stack(hs, 1), torch.stack(states, 1))
        return Filtered(belief, Gaussian(torch.stack(means, 1), torch.stack(stds, 1)))

    def _gaussian(self, parameters: Tensor) -> Gaussian:
        mean, raw_std = parameters.chunk(2, -1)
        return Gaussian(mean, softplus(raw_std) + self.min_std)
