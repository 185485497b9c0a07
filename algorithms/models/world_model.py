"""What planning and its training ask of a world model; `RSSM` is one.

Axes: B beliefs or sequences, N candidates, T steps, H horizon, O observation, A action, D and S the two parts of a
belief. Actions lie in [-1, 1]; observations and rewards are in the environment's units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.beliefs import Belief, Outcome, ReplaySequence

if TYPE_CHECKING:
    from parsecrl.algorithms.models.rssm import LossWeights


class WorldModel(Protocol):
    """A torch module that filters observations into beliefs and predicts what actions lead to.

    `world_model.kind: module:name` names a callable (obs_size, action_size, **options) that returns one. Its parameters
    get their values from torch's global generator. Every method keeps the rows of a batch apart.

    Attributes:
        obs_size: O, of an observation vector.
        action_size: A.
        deterministic_size: D, of `Belief.h`.
        stochastic_size: S, of `Belief.s`; 0 where a belief has one part.
        reward_scale: Optional: [], the size of rewards that matters to a plan, environment units, > 0. What depends on
            the size of costs divides them by it; 1 where a model has none.
        terminates: Optional: whether a termination was seen. A model that has it weighs rewards as `predict` says;
            where episodes terminate, a run warns of one that has not.
    """

    obs_size: int
    action_size: int
    deterministic_size: int
    stochastic_size: int

    @property
    def belief_size(self) -> int:
        """D + S."""
        ...

    def initial_belief(self, batch_size: int) -> Belief:
        """The belief [B] before the first observation of an episode, on the parameters' device."""
        ...

    def update_belief(self, belief: Belief, action: Tensor, obs: Tensor) -> Belief:
        """Filter one step, as a deterministic function of the history.

        Args:
            belief: [B].
            action: [B, A], executed before obs; zeros at an episode's start.
            obs: [B, O].

        Returns:
            The belief [B] after obs.
        """
        ...

    def filter_sequence(self, sequence: ReplaySequence, generator: torch.Generator | None = None) -> Belief:
        """The beliefs [B, T] after each observation; what comes before an is_first step has no influence after it."""
        ...

    def update_statistics(self, sequence: ReplaySequence) -> None:
        """Take what is replayed into running statistics, before each `loss`; nothing where there are none.

        Args:
            sequence: The B slices of T steps that `loss` gets next.
        """
        ...

    def loss(
        self, sequence: ReplaySequence, weights: LossWeights, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Belief]:
        """What the learner minimises on replayed sequences.

        Args:
            sequence: B slices of T steps.
            weights: The spec's `loss` group. A term that the model lacks has no weight.
            generator: Of the sequence's device, for what is drawn.

        Returns:
            The loss [], differentiable; its terms [] by name, detached, among them `model_loss`; the beliefs [B, T].
        """
        ...

    def predict(self, belief: Belief, actions: Tensor) -> tuple[Tensor, Tensor]:
        """What candidate action sequences lead to, differentiable.

        A model of tasks that terminate weighs each reward by the probability that the episode lasts until the decision
        before it: the reward that arrives with the last observation counts in full. `ReplaySequence.terminated` says
        where episodes ended.

        Args:
            belief: [B].
            actions: [B, N, H, A]; actions[:, :, t] leads to the observation and the reward of index t.

        Returns:
            Observations [B, N, H, O] and rewards [B, N, H].
        """
        ...

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        """The rewards [B, N, H] of `predict` alone; planning spends its time here."""
        ...

    def transition_parameters(self) -> list[nn.Parameter]:
        """What `predict_rewards` runs through, the reward aside: PPO's part `transition`."""
        ...

    def reward_parameters(self) -> list[nn.Parameter]:
        """What makes rewards of predicted states: PPO's part `reward`."""
        ...


class ImaginationModel(Protocol):
    """What a value beyond the horizon asks of a world model besides; `RSSM` has it."""

    def predict_outcome(self, belief: Belief, actions: Tensor, judged: bool = False) -> Outcome:
        """The rewards of `predict`, and where they end: what a plan with a value is judged by.

        Args:
            belief: [B].
            actions: [B, N, H, A].
            judged: Whether an ensemble is to say where it disagrees; a model without one has no such argument, and no
                attribute `ensemble`.

        Returns:
            Rewards, survival and last states, and the disagreement if it was asked for; differentiable.
        """
        ...

    def next_belief(self, belief: Belief, action: Tensor) -> Belief:
        """One step of `predict`, differentiable: imagination goes on from there.

        Args:
            belief: [M].
            action: [M, A].

        Returns:
            The states [M] that the actions lead to.
        """
        ...

    def rewards_and_continuation(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """What a predicted state brings, differentiable.

        Args:
            belief: [...].

        Returns:
            The reward [...] that arrives with the state, and the probability [...] that the episode goes on from there.
        """
        ...
