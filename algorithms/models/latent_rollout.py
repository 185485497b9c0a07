"""What a plan is worth in a model of latent dynamics, and the same with no transition evaluated twice.

    G = sum over t of exp(-||z_t - z_goal||)       (Saanum and Schulz 2022, section 4.4)

Axes: B problems, N candidates, H horizon, S state, Z latent; M rows, nodes of a tree of action prefixes.
The term of t = 0 is the same for all plans and left out; t runs from 1 to H.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from parsecrl.algorithms.models.affine import Affine
from parsecrl.algorithms.models.latent_dynamics import LatentDynamics
from parsecrl.algorithms.models.parsimonious import ParsimoniousDynamics


class GoalCost:
    """An objective for `categorical_cem`: minus G, with one evaluation of the model for each transition.

    Args:
        model: What predicts.
        state: Where the plans start, [B, S].
        goal: Latents [B, Z] or [1, Z].

    Raises:
        ValueError: The model cannot predict, or the shapes are others.
    """

    def __init__(self, model: LatentDynamics, state: Tensor, goal: Tensor):
        if not model.predicts:
            raise ValueError(f"planning needs a model that predicts, got {type(model).__name__}; choose another model")
        B = len(state)
        if state.shape != (B, model.state_size) or goal.shape not in ((B, model.latent_size), (1, model.latent_size)):
            raise ValueError(
                f"states must be [B, {model.state_size}] and goals [B or 1, {model.latent_size}], "
                f"got {tuple(state.shape)} and {tuple(goal.shape)}; add an axis for the batch of problems"
            )
        self.model, self.state, self.goal = model, state, goal.expand(B, -1)
        self.num_asked = 0  # transitions that plans asked for
        self.num_evaluated = 0  # transitions that the model evaluated
        self.num_transformations = 0  # transformations decoded; 0 for a model without codes

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Tensor:
        """Rate plans.

        Args:
            actions: [B, N, H] int64 in [0, A).

        Returns:
            Costs -G [B, N].
        """
        B, N, _ = actions.shape
        state = self.state.repeat_interleave(N, 0)  # [B N, S]
        goal = self.goal.repeat_interleave(N, 0)
        total = state.new_zeros(B * N)
        for action in actions.flatten(0, 1).unbind(1):
            state = self.model.predict(state, action)
            total = total - self._reward(state, goal)
        self.num_asked += actions.numel()
        self.num_evaluated += actions.numel()
        if isinstance(self.model, ParsimoniousDynamics):
            self.num_transformations += actions.numel()
        return total.view(B, N)

    def _reward(self, state: Tensor, goal: Tensor) -> Tensor:
        return torch.exp(-self.model.distance(self.model.latent(state), goal))


class DistinctGoalCost(GoalCost):
    """The costs of `GoalCost` from fewer evaluations.

    A prefix of actions is evaluated once, in whatever candidate and iteration it comes up. The transformation of a
    pair (h, a) is decoded once. One object serves one search: it keeps the state of every prefix that it has seen.

    Costs equal those of `GoalCost` to the bit where a row of the model's products does not depend on the other rows
    (`matrix_products.linear` of 8 outputs or more), else to rounding.

    Args:
        model: What predicts.
        state: Where the plans start, [B, S].
        goal: Latents [B, Z] or [1, Z].

    Raises:
        ValueError: The model cannot predict, or the shapes are others.
    """

    def __init__(self, model: LatentDynamics, state: Tensor, goal: Tensor):
        super().__init__(model, state, goal)
        self._levels: list[_Level] = []
        self._codes = _Numbering(state.device)
        self._known: Affine | None = None  # the transformation of each number in _codes

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Tensor:
        """Rate plans.

        Args:
            actions: [B, N, H] int64 in [0, A).

        Returns:
            Costs -G [B, N].
        """
        B, N, _ = actions.shape
        roots = torch.arange(B, device=actions.device)
        level = _Level(self.state, self.state.new_zeros(B), roots, _Numbering(actions.device))
        node = roots.repeat_interleave(N)  # [B N] where each candidate is in the tree
        for t, action in enumerate(actions.flatten(0, 1).unbind(1)):
            parents = level
            if t == len(self._levels):
                self._levels.append(parents.empty())
            level = self._levels[t]
            node, new = level.numbering.number(node * self.model.num_actions + action)
            if len(new) > 0:
                parent, taken = new // self.model.num_actions, new % self.model.num_actions
                state, problem = self._advance(parents.state[parent], taken), parents.problem[parent]
                level.add(state, parents.total[parent] - self._reward(state, self.goal[problem]), problem)
                self.num_evaluated += len(new)
        self.num_asked += actions.numel()
        return level.total[node].view(B, N)

    def _advance(self, state: Tensor, action: Tensor) -> Tensor:
        """state [M, S], action [M] -> next state [M, S]."""
        model = self.model
        if not isinstance(model, ParsimoniousDynamics):
            return model.predict(state, action)
        bits = torch.arange(model.code_size, device=state.device)
        code = model.codes(state, action).long()  # [M, n]
        number, new = self._codes.number((code << bits).sum(-1) * model.num_actions + action)
        if len(new) > 0:
            code, taken = new.div(model.num_actions, rounding_mode="floor"), new % model.num_actions
            decoded = model.decode((code.unsqueeze(-1) >> bits & 1).to(state.dtype), taken)
            self._known = decoded if self._known is None else _concatenate(self._known, decoded)
            self.num_transformations += len(new)
        assert self._known is not None
        return model.move(state, self._known.select(number))


@dataclass
class _Numbering:
    """Numbers 0, 1, 2, ... for keys in the order in which they come up."""

    device: torch.device
    keys: Tensor = field(init=False)  # sorted
    numbers: Tensor = field(init=False)  # of the keys

    def __post_init__(self) -> None:
        self.keys = self.numbers = torch.empty(0, dtype=torch.int64, device=self.device)

    def number(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """keys [M] int64 -> their numbers [M], and the keys that were new, in the order of theirs."""
        distinct, inverse = torch.unique(keys, return_inverse=True)
        count = len(self.keys)
        if count == 0:
            self.keys, self.numbers = distinct, torch.arange(len(distinct), device=keys.device)
            return inverse, distinct
        at = torch.searchsorted(self.keys, distinct).clamp_(max=count - 1)
        known = self.keys[at] == distinct
        new = distinct[~known]
        numbers = torch.where(known, self.numbers[at], count - 1 + (~known).cumsum(0))
        merged = torch.cat([self.keys, new]).sort()
        self.numbers = torch.cat([self.numbers, numbers[~known]])[merged.indices]
        self.keys = merged.values
        return numbers[inverse], new


@dataclass
class _Level:
    """The distinct prefixes of one length: the state that each leads to, its cost so far and its problem."""

    state: Tensor  # [M, S]
    total: Tensor  # [M]
    problem: Tensor  # [M]
    numbering: _Numbering

    def empty(self) -> _Level:
        return _Level(self.state[:0], self.total[:0], self.problem[:0], _Numbering(self.state.device))

    def add(self, state: Tensor, total: Tensor, problem: Tensor) -> None:
        self.state = torch.cat([self.state, state])
        self.total = torch.cat([self.total, total])
        self.problem = torch.cat([self.problem, problem])


def _concatenate(first: Affine, second: Affine) -> Affine:
    parts = zip(first, second, strict=True)
    return Affine(*(None if a is None or b is None else torch.cat([a, b]) for a, b in parts))
