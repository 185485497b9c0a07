"""What parsimonious dynamics are compared with (Saanum and Schulz 2022, sections 4.3, 4.4), behind one interface.

Each model that predicts computes a transformation from latent and action, by default a rotation and a translation.
Nothing keeps that transformation the same in other states.

Axes as in latent_dynamics.py; D memory, P parameters of a transformation, N states of a world.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from parsecrl.algorithms.models.affine import movement, num_parameters, transformation
from parsecrl.algorithms.models.beliefs import Gaussian
from parsecrl.algorithms.models.latent_dynamics import (
    MIN_STD,
    DynamicsLoss,
    LatentDynamics,
    TransitionSequence,
    check_sizes,
    check_weights,
    feedforward,
    feedforward_encoder,
    gaussian,
    sample,
    squared_error,
)
from parsecrl.algorithms.models.rssm import kl_divergence


class EncoderOnly(LatentDynamics):
    """No representation objective: an encoder that only actor and critic train. It cannot predict.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        latent_size: Z, at least 1.
        hidden_size: Units of each hidden layer of the encoder.
        num_layers: Hidden layers of the encoder.
        encoder: A module [..., O] -> [..., Z] of one's own in place of the feed-forward network.

    Raises:
        ValueError: A size is no integer of 1 or more.
    """

    predicts = trains = False

    def __init__(
        self,
        obs_size: int,
        num_actions: int,
        latent_size: int = 15,
        hidden_size: int = 1200,
        num_layers: int = 2,
        encoder: nn.Module | None = None,
    ):
        super().__init__(obs_size, num_actions, latent_size)
        self.encoder = encoder or feedforward_encoder(obs_size, latent_size, hidden_size, num_layers)

    def encode(self, obs: Tensor) -> Tensor:
        """The encoder's output [..., Z]."""
        return self.encoder(obs)

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """Refuse: there is no transition model.

        Args:
            state: Is not read.
            action: Is not read.

        Raises:
            ValueError: Always.
        """
        raise ValueError("planning needs a model that predicts, got one with an encoder alone; choose another model")

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """0, without gradient; the batch is checked."""
        self.check(batch)
        return DynamicsLoss(batch.obs.new_zeros(()), {})


class _Baseline(LatentDynamics):
    """Encoder, affine transition and observation decoder, which the three below share.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        latent_size: Z, at least 1.
        hidden_size: Units of each hidden layer, of all networks; the paper has 1200.
        num_layers: Hidden layers of each network; the paper has 2.
        transformation: "rotation", "translation" or "affine".
        encoder: A module [..., O] -> [..., Z] of one's own (2 Z if stochastic) in place of the feed-forward network.
        movement_weight: Beyond the paper, 0 or more: weight of the mean `movement` of the transformations, in square
            radians; a unit of the latent counts as a radian.
        stochastic: Whether the encoder gives a Gaussian.
        memory_size: Inputs of the transition network, if a memory is what it sees; 0 for latent and action.
        extra_outputs: Of the transition network, behind the parameters.
    """

    def __init__(
        self,
        obs_size: int,
        num_actions: int,
        latent_size: int = 15,
        hidden_size: int = 1200,
        num_layers: int = 2,
        transformation: str = "affine",
        encoder: nn.Module | None = None,
        *,
        movement_weight: float = 0.0,
        stochastic: bool = True,
        memory_size: int = 0,
        extra_outputs: int = 0,
    ):
        super().__init__(obs_size, num_actions, latent_size)
        layers: dict[str, Any] = {"hidden_size": hidden_size, "num_layers": num_layers}
        check_weights(movement_weight=movement_weight)
        self.transformation, self.movement_weight = transformation, movement_weight
        self.encoder = encoder or feedforward_encoder(obs_size, (1 + stochastic) * latent_size, **layers)
        outputs = num_parameters(transformation, latent_size) + extra_outputs
        inputs = memory_size or latent_size + num_actions
        self.transition_net = feedforward(inputs, outputs, **layers)
        self.obs_net = feedforward(latent_size, obs_size, **layers)

    def move(self, z: Tensor, parameters: Tensor) -> Tensor:
        """Transform latents.

        Args:
            z: [..., Z].
            parameters: Of the transformations, [..., P].

        Returns:
            [..., Z].
        """
        return transformation(self.transformation, parameters, self.latent_size).apply(z)

    def movement(self, parameters: Tensor) -> Tensor:
        """Mean movement of transformations.

        Args:
            parameters: [..., P].

        Returns:
            [] square radians.
        """
        return movement(self.transformation, parameters, self.latent_size).mean()

    def _decoding_errors(self, z: Tensor, following: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Of latents z [B, T + 1, Z] and those predicted for the last T, decoded together, from obs [B, T + 1, O]."""
        decoded = self.obs_net(torch.cat([z, following], 1))
        steps = z.shape[1]
        return squared_error(decoded[:, :steps], obs), squared_error(decoded[:, steps:], obs[:, 1:])


class BetaVAE(_Baseline):
    """A beta-VAE that also predicts the next observation, decoded from the transformed latent.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        beta: Weight of KL(q(z | s) || N(0, I)), 0 or more.
        **options: latent_size, hidden_size, num_layers, transformation and encoder, as in `ParsimoniousDynamics`, and
            movement_weight, as in `ParsimonyObjective`, with a unit of the latent for a radian.

    Raises:
        ValueError: beta is negative, the transformation is unknown, or a size is no integer of 1 or more.
    """

    def __init__(self, obs_size: int, num_actions: int, *, beta: float = 0.1, **options: Any):
        super().__init__(obs_size, num_actions, **options)
        check_weights(beta=beta)
        self.beta = beta

    def encode(self, obs: Tensor) -> Tensor:
        """The mean [..., Z] of q(z | s)."""
        return self.latent_of(self.encoder(obs))

    def latent_of(self, raw: Tensor) -> Tensor:
        """The mean [..., Z] in the encoder's output."""
        return gaussian(raw).mean

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """The transformed latent [..., Z]."""
        return self.move(state, self.transition_net(self.with_action(state, action)))

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """Reconstruction, prediction and divergence, each averaged over the batch.

        Args:
            batch: B slices of T transitions.
            generator: Of the latents' noise.

        Returns:
            The loss. Terms: "reconstruction", "prediction" of the next observation, "divergence" from N(0, I) in nats,
            "movement" in square radians.
        """
        self.check(batch)
        obs, action = batch
        posterior = gaussian(self.encoder(obs))
        z = sample(posterior, generator)
        parameters = self.transition_net(self.with_action(z[:, :-1], action))
        reconstruction, prediction = self._decoding_errors(z, self.move(z[:, :-1], parameters), obs)
        divergence = kl_divergence(posterior, _standard_normal(posterior)).mean()
        moved = self.movement(parameters)
        total = reconstruction + prediction + self.beta * divergence + self.movement_weight * moved
        terms = {"reconstruction": reconstruction, "prediction": prediction, "divergence": divergence}
        return DynamicsLoss(total, _values({**terms, "movement": moved}))


class RecurrentDynamics(_Baseline):
    """A deterministic recurrent model: the transformation comes from a GRU's state, which sees latents and actions.

    A state is a latent and the GRU's state behind it, [..., Z + D]. The GRU's is zeros where an episode or a slice
    begins.

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        memory_size: D, at least 1.
        **options: latent_size, hidden_size, num_layers, transformation and encoder, as in `ParsimoniousDynamics`, and
            movement_weight, as in `ParsimonyObjective`, with a unit of the latent for a radian.

    Raises:
        ValueError: The transformation is unknown, or a size is no integer of 1 or more.
    """

    def __init__(self, obs_size: int, num_actions: int, *, memory_size: int = 200, **options: Any):
        check_sizes(memory_size=memory_size)
        super().__init__(obs_size, num_actions, stochastic=False, memory_size=memory_size, **options)
        self.memory_size = memory_size
        self.gru = nn.GRUCell(self.latent_size + num_actions, memory_size)

    @property
    def state_size(self) -> int:
        """S = Z + D."""
        return self.latent_size + self.memory_size

    def encode(self, obs: Tensor) -> Tensor:
        """The encoder's output [..., Z]."""
        return self.encoder(obs)

    def begin(self, obs: Tensor) -> Tensor:
        """The latent of the first observation and a memory of zeros, [..., Z + D]."""
        z = self.encode(obs)
        return torch.cat([z, z.new_zeros(*z.shape[:-1], self.memory_size)], -1)

    def observe(self, state: Tensor, action: Tensor, obs: Tensor) -> Tensor:
        """The latent of what is seen, and the memory after the action, [..., Z + D]."""
        return torch.cat([self.encode(obs), self._remember(state, action)], -1)

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """The latent transformed as the next memory says, and that memory, [..., Z + D]."""
        memory = self._remember(state, action)
        return torch.cat([self.move(self.latent(state), self.transition_net(memory)), memory], -1)

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """Reconstruction, prediction and latent error, each averaged over the batch.

        Args:
            batch: B slices of T transitions.
            generator: Is not used.

        Returns:
            The loss. Terms: "reconstruction", "prediction" of the next observation, "error", the squared distance of
            the predicted latent from the encoded one, and "movement" in square radians.
        """
        self.check(batch)
        obs, action = batch
        z = self.encode(obs)
        memory, remembered = z.new_zeros(len(z), self.memory_size), []
        for t in range(action.shape[1]):
            memory = self._remember(torch.cat([z[:, t], memory], -1), action[:, t])
            remembered.append(memory)
        # The memory has seen encoded latents alone: all transformations are computed together.
        parameters = self.transition_net(torch.stack(remembered, 1))
        following, moved = self.move(z[:, :-1], parameters), self.movement(parameters)  # [B, T, Z], []
        reconstruction, prediction = self._decoding_errors(z, following, obs)
        error = (following - z[:, 1:]).square().sum(-1).mean()
        terms = {"reconstruction": reconstruction, "prediction": prediction, "error": error, "movement": moved}
        return DynamicsLoss(reconstruction + prediction + error + self.movement_weight * moved, _values(terms))

    def _remember(self, state: Tensor, action: Tensor) -> Tensor:
        """The GRU's next state [..., D]."""
        z, memory = state.split([self.latent_size, self.memory_size], -1)
        lead = z.shape[:-1]
        seen = self.with_action(z, action).reshape(-1, self.latent_size + self.num_actions)
        return self.gru(seen, memory.reshape(-1, self.memory_size)).reshape(*lead, -1)


class StateSpaceModel(_Baseline):
    """A stochastic state-space model with a beta-VAE's objective (eq. 7).

    It reconstructs, and keeps what is inferred from an observation near what was predicted for it. Its prior is N(T
    mean, std), with T and std from latent and action; at a slice's first step it is N(0, I).

    Args:
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        beta: Weight of both divergences, 0 or more.
        latent_size: Z, at least 1.
        **options: hidden_size, num_layers, transformation and encoder, as in `ParsimoniousDynamics`, and
            movement_weight, as in `ParsimonyObjective`, with a unit of the latent for a radian.

    Raises:
        ValueError: beta is negative, the transformation is unknown, or a size is no integer of 1 or more.
    """

    def __init__(self, obs_size: int, num_actions: int, *, beta: float = 0.1, latent_size: int = 15, **options: Any):
        super().__init__(obs_size, num_actions, latent_size, extra_outputs=latent_size, **options)
        check_weights(beta=beta)
        self.beta = beta

    def encode(self, obs: Tensor) -> Tensor:
        """The mean [..., Z] of q(z | s)."""
        return gaussian(self.encoder(obs)).mean

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """The mean [..., Z] of `prior`."""
        return self.prior(state, action).mean

    def prior(self, z: Tensor, action: Tensor) -> Gaussian:
        """The distribution of the next latent.

        Args:
            z: Latents [..., Z].
            action: [...] int64 in [0, A), or [..., A] float32.

        Returns:
            Mean and standard deviation [..., Z].
        """
        return self._prior(z, self.transition_net(self.with_action(z, action)))

    def _prior(self, z: Tensor, raw: Tensor) -> Gaussian:
        """Of latents [..., Z] and the transition network's output: parameters, then deviations."""
        parameters, raw_std = raw[..., : -self.latent_size], raw[..., -self.latent_size :]
        return Gaussian(self.move(z, parameters), softplus(raw_std) + MIN_STD)

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """Reconstruction and the two divergences (eq. 7), each averaged over the batch.

        Args:
            batch: B slices of T transitions.
            generator: Of the latents' noise.

        Returns:
            The loss. Terms: "reconstruction"; "error", the divergence from the prediction, and "divergence" from N(0,
            I), in nats; "movement" in square radians.
        """
        self.check(batch)
        obs, action = batch
        posterior = gaussian(self.encoder(obs))
        z = sample(posterior, generator)
        reconstruction = squared_error(self.obs_net(z), obs)
        reached = Gaussian(posterior.mean[:, 1:], posterior.std[:, 1:])
        raw = self.transition_net(self.with_action(z[:, :-1], action))
        error = kl_divergence(reached, self._prior(z[:, :-1], raw)).mean()
        moved = self.movement(raw[..., : -self.latent_size])
        first = Gaussian(posterior.mean[:, 0], posterior.std[:, 0])
        divergence = kl_divergence(first, _standard_normal(first)).mean()
        terms = {"reconstruction": reconstruction, "error": error, "divergence": divergence, "movement": moved}
        total = reconstruction + self.beta * (error + divergence) + self.movement_weight * moved
        return DynamicsLoss(total, _values(terms))


class TrueDynamics(LatentDynamics):
    """The world's own transitions, the upper bound of planning. Latents are numbers of states, [..., 1].

    An observation is taken for the nearest one of the table.

    Args:
        observations: What is seen in each of N states, [N, O].
        transitions: Where actions lead, [N, A] int64.
        distances: Length of a shortest path between two states, [N, N]; it is what `distance` gives.

    Raises:
        ValueError: The tables do not belong together.
    """

    trains = False
    observations: Tensor
    transitions: Tensor
    distances: Tensor

    def __init__(self, observations: Tensor, transitions: Tensor, distances: Tensor):
        N = len(observations)
        if observations.dim() != 2 or transitions.shape[:1] != (N,) or distances.shape != (N, N):
            raise ValueError(
                f"the tables must have shapes [N, O], [N, A] and [N, N], got {tuple(observations.shape)}, "
                f"{tuple(transitions.shape)} and {tuple(distances.shape)}; take all three from one world"
            )
        super().__init__(observations.shape[1], transitions.shape[1], 1)
        self.register_buffer("observations", observations.to(torch.float32))
        self.register_buffer("transitions", transitions)
        self.register_buffer("distances", distances.to(torch.float32))

    def encode(self, obs: Tensor) -> Tensor:
        """The number [..., 1] of the state whose observation is nearest."""
        # float32 numbers every state up to 2^24 exactly
        nearest = torch.cdist(obs.reshape(-1, self.obs_size), self.observations).argmin(-1)
        return nearest.to(torch.float32).view(*obs.shape[:-1], 1)

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        """The number [..., 1] of the state that the action leads to."""
        return self.transitions[state.squeeze(-1).long(), action].unsqueeze(-1).to(torch.float32)

    def distance(self, z: Tensor, goal: Tensor) -> Tensor:
        """Moves [...] of a shortest path from z to goal, both [..., 1]."""
        return self.distances[z.squeeze(-1).long(), goal.squeeze(-1).long()]

    def loss(self, batch: TransitionSequence, generator: torch.Generator | None = None) -> DynamicsLoss:
        """0, without gradient; the batch is checked."""
        self.check(batch)
        return DynamicsLoss(batch.obs.new_zeros(()), {})


def _standard_normal(like: Gaussian) -> Gaussian:
    return Gaussian(torch.zeros_like(like.mean), torch.ones_like(like.std))


def _values(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
