"""Other searches than CEM over whole action sequences: iCEM and MPPI.

Axes: B beliefs, N candidates, n = H * A solver variables, H horizon, A action. Actions lie in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from parsecrl.algorithms.controllers.controller import Plan
from parsecrl.algorithms.controllers.planning import FullSpaceController
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.registry.search_sizes import kept_elites
from parsecrl.algorithms.solvers import Refinements, colored_noise, mppi
from parsecrl.algorithms.solvers.gaussian_search import Solution


class ICEMController(FullSpaceController):
    """iCEM (Pinneri et al. 2020): CEM with coloured noise and a memory.

    Departures: the mean has no momentum, and the last action of a shifted sequence is repeated, not drawn.

    Args:
        horizon: H, decisions of a plan.
        action_size: A.
        num_samples: N, candidates of the first iteration.
        num_elites: k, of them those that the next Gaussian is fitted to, 1 <= k < N.
        num_iterations: Of a search.
        init_std: Standard deviation of the first Gaussian, of actions in [-1, 1].
        warm_start: Begin at the previous mean, with the previous kept elites among the candidates, all moved on by one
            decision.
        noise_exponent: Power of a candidate's noise falls as frequency to this power, 0 or more; 0 is white.
        kept_fraction: Of the elites, in [0, 1], that are candidates of the next iteration and decision as well.
        decay: Factor, 1 or more, by which each iteration draws fewer candidates than the last; 2 k at least.
        return_best: Answer with the best of all candidates, not with the mean.
    """

    mixing: Tensor  # [n, n]

    def __init__(
        self,
        horizon: int,
        action_size: int,
        num_samples: int = 100,
        num_elites: int = 10,
        num_iterations: int = 4,
        init_std: float = 0.5,
        warm_start: bool = True,
        noise_exponent: float = 2.0,
        kept_fraction: float = 0.3,
        decay: float = 1.25,
        return_best: bool = True,
    ):
        refinements = Refinements(decay, kept_elites(kept_fraction, num_elites), best=return_best)
        sizes = horizon, action_size, num_samples, num_elites, num_iterations
        super().__init__(*sizes, init_std, warm_start, refinements)
        self.register_buffer("mixing", colored_noise(horizon, action_size, noise_exponent), persistent=False)

    @property
    def refinements(self) -> Refinements:
        """Those of iCEM."""
        return replace(self._refinements, mixing=self.mixing)

    @property
    def num_carried(self) -> int:
        """The kept elites, where a plan begins at the last one."""
        return self._refinements.kept_elites if self.warm_start else 0

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start [B, (1 + kept) n]: mean and kept elites moved on by one decision, the last one repeated."""
        before = plan.mean[:, None] if plan.carried is None else plan.carried  # [B, 1 + kept, n]
        if plan.is_actors is not None:
            mean = torch.where(plan.is_actors[:, None], plan.mean, before[:, 0])
            before = torch.cat([mean[:, None], before[:, 1:]], 1)
        return torch.cat([before[..., self.action_size :], before[..., -self.action_size :]], -1).flatten(1)


class MPPIController(FullSpaceController):
    """MPPI (Williams et al. 2017) in the form of TD-MPC (Hansen et al. 2022): a Gaussian refitted by scores.

    Departures: costs are standardised, and the plan is the mean, not a sample.

    Args:
        horizon: H, decisions of a plan.
        action_size: A.
        num_samples: N, candidates of an iteration.
        num_elites: k, of them those that have weight, 1 <= k < N.
        num_iterations: Of a search.
        init_std: Standard deviation of the first Gaussian, of actions in [-1, 1].
        warm_start: Begin at the previous plan, shifted by one decision, instead of at zero.
        temperature: Weights are exp(-cost / temperature), costs in standard deviations of the candidates' costs, > 0.
        min_std: Floor of the standard deviations after the first iteration, >= 0.
    """

    def __init__(
        self,
        horizon: int,
        action_size: int,
        num_samples: int = 512,
        num_elites: int = 64,
        num_iterations: int = 6,
        init_std: float = 1.0,
        warm_start: bool = True,
        temperature: float = 0.5,
        min_std: float = 0.05,
    ):
        sizes = horizon, action_size, num_samples, num_elites, num_iterations
        super().__init__(*sizes, init_std, warm_start, Refinements(min_std=min_std))
        self.temperature = temperature

    def _search(
        self, objective: Callable[[Tensor], Tensor], scale: Tensor | float, checkpoint: bool, **arguments: Any
    ) -> Solution:
        with torch.no_grad():  # as of CEM: nothing is trained through these plans
            return mppi(objective, temperature=self.temperature, **arguments)
