"""Models that are known rather than learned: a pair of functions (DCEM paper, section 4.2, eqs. 7 and 8).

Axes: B initial states, N candidates, H horizon, S state, A action. Costs are of (x_t, u_t) for t = 1..H, x_1 being the
initial state, so that the state after the last action costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from parsecrl.algorithms.models.beliefs import Belief

Transition = Callable[[Tensor, Tensor], Tensor]
Cost = Callable[[Tensor, Tensor], Tensor]
SampleStates = Callable[[int, torch.Generator], Tensor]
RollOut = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class KnownDynamics:
    """A known system, and all that a controller or the embedding's training needs of it.

    Args:
        name: Of the system, for messages.
        transition: Maps state [..., S] and action [..., A] to the next state [..., S]. A deterministic, differentiable
            torch function for any leading axes; actions are in the system's own units.
        cost: Maps state and action to a cost [...]; a function of the same kind.
        state_size: S, at least 1.
        action_size: A, at least 1.
        low: Lower bounds of the action, A numbers in own units. Plans are in [-1, 1] and mapped onto the bounds.
        high: Upper bounds of the action, A numbers, each above its lower one.
        sample_states: Maps a count and a generator to initial states [count, S].
        fused_costs: The same rollout made faster: state [R, S] and action [R, H, A] in own units to costs [R, H]. It
            needs to be differentiable in the actions only. None for the rollout by the two functions.

    Raises:
        ValueError: A function returns another shape, type or NaN, or the bounds leave no room.
    """

    name: str
    transition: Transition
    cost: Cost
    state_size: int
    action_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    sample_states: SampleStates
    fused_costs: RollOut | None = None

    def __post_init__(self) -> None:
        for name, size in (("state_size", self.state_size), ("action_size", self.action_size)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{self.name}: {name} must be an integer of 1 or more, got {size!r}")
        if len(self.low) != self.action_size or len(self.high) != self.action_size:
            raise ValueError(
                f"{self.name}: low and high must have one number for each of the {self.action_size} actions, "
                f"got {self.low} and {self.high}"
            )
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(
                f"{self.name}: each lower bound must be below its upper one, got {self.low} and {self.high}"
            )
        states = self.sample_states(4, torch.Generator().manual_seed(0))
        self._check("sample_states", states, (4, self.state_size))
        with torch.no_grad():
            for u in (-1.0, 0.0, 1.0):
                action = self.scale(states.new_full((4, self.action_size), u))
                self._check("cost", self.cost(states, action), (4,))
                self._check("transition", self.transition(states, action), (4, self.state_size))

    def scale(self, actions: Tensor) -> Tensor:
        """Map actions to the system's own units.

        Args:
            actions: [..., A] in [-1, 1].

        Returns:
            [..., A] in [low, high].
        """
        return torch.addcmul(*_middle_and_half(self.low, self.high, actions.dtype, actions.device), actions)

    def belief(self, state: Tensor) -> Belief:
        """Wrap states as what controllers plan from; the stochastic part is empty.

        Args:
            state: [B, S].

        Returns:
            Beliefs [B].

        Raises:
            ValueError: The states have another shape.
        """
        if state.dim() != 2 or state.shape[-1] != self.state_size:
            raise ValueError(f"{self.name}: states must have shape [B, {self.state_size}], got {tuple(state.shape)}")
        return Belief(state, state.new_empty(state.shape[0], 0))

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        """Predict the rewards of candidate plans, minus the costs.

        Args:
            belief: Beliefs [B] of `belief`.
            actions: Plans [B, N, H, A] in [-1, 1].

        Returns:
            Rewards [B, N, H].
        """
        B, N, H, A = actions.shape
        state, u = belief.h, self.scale(actions)
        # The fused form is not asked for a gradient in the state: it has none.
        if self.fused_costs is not None and not state.requires_grad:
            rows = state.unsqueeze(1).expand(B, N, -1).reshape(B * N, -1)
            return -self.fused_costs(rows, u.reshape(B * N, H, A)).view(B, N, H)
        return -self.roll_out(state.unsqueeze(1).expand(B, N, -1), u)

    def roll_out(self, state: Tensor, actions: Tensor) -> Tensor:
        """Roll out plans by the two functions themselves.

        Args:
            state: Initial states [..., S].
            actions: [..., H, A] in own units.

        Returns:
            Costs [..., H], of (x_t, u_t) for t = 1..H.

        Raises:
            ValueError: A function returns another shape.
        """
        lead, costs = actions.shape[:-2], []
        for t, action in enumerate(actions.unbind(-2)):
            cost = self.cost(state, action)
            self._check_shape("cost", cost, lead)
            costs.append(cost)
            if t + 1 < actions.shape[-2]:
                state = self.transition(state, action)
                self._check_shape("transition", state, (*lead, self.state_size))
        return torch.stack(costs, -1)

    @torch.no_grad()
    def check_rollout(self, state: Tensor, actions: Tensor) -> None:
        """Roll out as `roll_out` does, and name the first function that returns NaN or infinity.

        Args:
            state: Initial states [..., S].
            actions: [..., H, A] in own units.

        Raises:
            ValueError: A function returns another shape, type, NaN or infinity; the message names the step.
        """
        lead = actions.shape[:-2]
        for t, action in enumerate(actions.unbind(-2)):
            self._check("cost", self.cost(state, action), lead, f" in step {t + 1} of {actions.shape[-2]}")
            state = self.transition(state, action)
            self._check("transition", state, (*lead, self.state_size), f" in step {t + 1} of {actions.shape[-2]}")

    def _check_shape(self, function: str, value: Tensor, shape: tuple[int, ...], where: str = "") -> None:
        if not isinstance(value, Tensor) or value.shape != shape:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            axes = {"cost": "one cost for each state, [...]", "sample_states": "[count, state_size]"}
            raise ValueError(
                f"{self.name}: {function} must return {axes.get(function, 'the next state, [..., state_size]')}, here "
                f"a tensor of shape {tuple(shape)}, got {got}{where}"
            )

    def _check(self, function: str, value: Tensor, shape: tuple[int, ...], where: str = "") -> None:
        self._check_shape(function, value, shape, where)
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            bad = "NaN or infinity" if value.is_floating_point() else str(value.dtype)
            raise ValueError(
                f"{self.name}: {function} must return finite floating-point numbers of shape {tuple(shape)}, got "
                f"{bad}{where}; look for a root, logarithm or division out of its range"
            )


@lru_cache(maxsize=32)
def _middle_and_half(
    low: tuple[float, ...], high: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Middle and half width of [low, high], each [A].

    Kept, since making a tensor costs as much as a step of a short rollout.
    """
    bounds = torch.tensor([low, high], dtype=torch.float64)
    middle, half = bounds.mean(0), (bounds[1] - bounds[0]) / 2
    return middle.to(device, dtype), half.to(device, dtype)
