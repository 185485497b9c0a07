"""Controllers: belief -> action sequence, all beliefs of a batch planned at once (DCEM paper, section 4.2).

Axes: B beliefs, N candidates, n solver variables, H horizon, A action. Actions lie in [-1, 1].
Exploration noise is not a controller's business: whoever executes the action adds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.controller import Plan
from parsecrl.algorithms.controllers.score import RewardModel, Score, cost_scale, predicted_cost
from parsecrl.algorithms.models import ActionDecoder, Belief
from parsecrl.algorithms.registry.search_sizes import kept_elites
from parsecrl.algorithms.solvers import Refinements, cem, dcem, mppi
from parsecrl.algorithms.solvers.gaussian_search import Solution
from parsecrl.algorithms.solvers.refinements import PLAIN

SELECTIONS = ("lml", "softmax")
SHIFT_POINTS = 500  # that may stand for a plan that was moved on; a search tries num_samples x num_iterations


class SearchController(nn.Module):
    """A controller whose solver refits a Gaussian over its variables: what CEM, DCEM, iCEM and MPPI have in common.

    Args:
        horizon: H, decisions of a plan.
        action_size: A.
        plan_size: n, variables of the search.
        num_samples: N, candidates of an iteration.
        num_elites: k, of them those that the next Gaussian is fitted to, 1 <= k < N.
        num_iterations: Of a search.
        init_std: Standard deviation of the first Gaussian, in units of the variables.
        warm_start: Begin at the previous plan instead of at zero.
        refinements: Of the search, beyond plain CEM.
    """

    score: Score
    takes_candidates = False

    def __init__(
        self,
        horizon: int,
        action_size: int,
        plan_size: int,
        num_samples: int,
        num_elites: int,
        num_iterations: int,
        init_std: float,
        warm_start: bool,
        refinements: Refinements = PLAIN,
    ):
        super().__init__()
        self.horizon, self.action_size, self.plan_size = horizon, action_size, plan_size
        self.num_samples, self.num_elites, self.num_iterations = num_samples, num_elites, num_iterations
        self.init_std, self.warm_start = init_std, warm_start
        self.score, self._refinements = Score(), refinements

    @property
    def refinements(self) -> Refinements:
        """What the search does beyond plain CEM, its tensors on this module's device."""
        return self._refinements

    @property
    def num_carried(self) -> int:
        """Candidates that a warm start brings beside the mean."""
        return 0

    @property
    def warm_start_size(self) -> int:
        """The size of `shift`'s result: n for the mean, and n for each candidate that is carried on."""
        return (1 + self.num_carried) * self.plan_size

    @property
    def trajectories(self) -> int:
        """Candidates that the model rolls out for one decision."""
        sizes = self.num_samples, self.num_elites, self.num_iterations
        return self.refinements.num_evaluated(*sizes) + self.num_carried

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(iterations, candidates, n) of one belief's standard normal draws."""
        return self.num_iterations, self.num_samples, self.plan_size

    def plan(
        self,
        model: RewardModel,
        belief: Belief,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        keep_history: bool = False,
        checkpoint: bool = False,
        candidates: Tensor | None = None,
    ) -> Plan:
        """As `Controller.plan`; candidates [B, P, H, A] are tried in the first iteration, if the solver takes any."""
        if warm_start is None:
            warm_start = belief.h.new_zeros(belief.h.shape[0], self.plan_size)
        mean, carried = warm_start[:, : self.plan_size], warm_start[:, self.plan_size :]
        given = [] if candidates is None else [candidates.flatten(-2)]
        if carried.shape[1]:
            given.append(carried.unflatten(1, (-1, self.plan_size)))
        refinements = replace(self.refinements, candidates=torch.cat(given, 1)) if given else self.refinements
        solution = self._search(
            lambda x: self.cost(model, belief, x),
            cost_scale(model, self.score),
            init_mean=mean,
            init_std=torch.full_like(mean, self.init_std),
            num_samples=self.num_samples,
            num_elites=self.num_elites,
            num_iterations=self.num_iterations,
            bounds=(-1.0, 1.0),
            generator=generator,
            noise=noise,
            keep_history=keep_history,
            checkpoint=checkpoint,
            refinements=refinements,
        )
        answer = solution.mean if solution.best is None else solution.best
        carried_on = torch.cat([solution.mean[:, None], solution.kept], 1) if solution.kept is not None else None
        return Plan(self.decode(answer, belief), answer, solution.history, solution.entropy, carried=carried_on)

    def cost(self, model: RewardModel, belief: Belief, x: Tensor) -> Tensor:
        """C(x; belief) of eqs. (7) and (8): solver variables x [B, N, n] -> [B, N]."""
        return predicted_cost(model, belief, self.decode(x, belief), self.score)

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Solver variables x [B, n] or [B, N, n] to action sequences with two more axes [H, A] for n."""
        raise NotImplementedError

    def _search(
        self, objective: Callable[[Tensor], Tensor], scale: Tensor | float, checkpoint: bool, **arguments: Any
    ) -> Solution:
        """The solver of a subclass; scale: of `cost_scale`; `arguments` are those that all solvers take."""
        raise NotImplementedError


class FullSpaceController(SearchController):
    """CEM over whole action sequences (eq. 7): n = H * A variables, no gradient through the selection.

    Args:
        horizon: H, decisions of a plan.
        action_size: A.
        num_samples: N, candidates of an iteration.
        num_elites: k, of them those that the next Gaussian is fitted to, 1 <= k < N.
        num_iterations: Of a search.
        init_std: Standard deviation of the first Gaussian, of actions in [-1, 1].
        warm_start: Begin at the previous plan, shifted by one decision, instead of at zero.
        refinements: Of the search, beyond plain CEM.
    """

    differentiable_in: tuple[str, ...] = ()
    takes_candidates = True

    def __init__(
        self,
        horizon: int,
        action_size: int,
        num_samples: int = 1000,
        num_elites: int = 100,
        num_iterations: int = 10,
        init_std: float = 1.0,
        warm_start: bool = False,
        refinements: Refinements = PLAIN,
    ):
        sizes = horizon, action_size, horizon * action_size, num_samples, num_elites, num_iterations
        super().__init__(*sizes, init_std, warm_start, refinements)
        self.decoder = None

    def _search(
        self, objective: Callable[[Tensor], Tensor], scale: Tensor | float, checkpoint: bool, **arguments: Any
    ) -> Solution:
        return cem(objective, **arguments)  # nothing is kept for a backward pass

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Solver variables [B, ..., n] -> actions [B, ..., H, A]."""
        return x.unflatten(-1, (self.horizon, self.action_size))

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start of the next decision [B, n]: the plan moved on by one, its last action 0."""
        return torch.cat([plan.mean[:, self.action_size :], torch.zeros_like(plan.mean[:, : self.action_size])], -1)


class EmbeddedController(SearchController):
    """DCEM over the decoder's latent box (eq. 8): differentiable in the decoder, the reward and the transition.

    Args:
        decoder: From latent points [n] to action sequences [H, A].
        num_samples: N, candidates of an iteration.
        num_elites: k, the mass of the soft selection, 1 <= k < N.
        num_iterations: Of a search.
        init_std: Standard deviation of the first Gaussian, of latent points in [-1, 1].
        temperature: Of the selection; 0 is CEM's, with no gradient through it.
        normalize: Costs to mean 0 and variance 1 before the selection.
        warm_start: Begin at the latent point nearest to the previous plan, see `shift`, instead of at zero.
        selection: "lml", the soft top-k of DCEM, or "softmax", MPPI's weights of the elites; both differentiable.
        kept_fraction: Of the elites, in [0, 1], that are candidates of the next iteration as well (iCEM).
        decay: Factor, 1 or more, by which each iteration draws fewer candidates than the last (iCEM).
        min_std: Floor of the standard deviations after the first iteration, >= 0 (MPPI).

    A latent point has no time axis: there is no coloured noise, and no elite is moved on to the next decision. The
    answer is the mean, never the best candidate, whose gradient would miss the selection.
    """

    points: Tensor  # [N, n] of the latent box
    decoder: ActionDecoder

    def __init__(
        self,
        decoder: ActionDecoder,
        num_samples: int = 100,
        num_elites: int = 10,
        num_iterations: int = 10,
        init_std: float = 0.5,
        temperature: float = 1.0,
        normalize: bool = True,
        warm_start: bool = False,
        selection: str = "lml",
        kept_fraction: float = 0.0,
        decay: float = 1.0,
        min_std: float = 0.0,
    ):
        sizes = decoder.horizon, decoder.action_size, decoder.latent_size, num_samples, num_elites, num_iterations
        refinements = Refinements(decay, kept_elites(kept_fraction, num_elites), min_std=min_std)
        super().__init__(*sizes, init_std, warm_start, refinements)
        if selection not in SELECTIONS:
            raise ValueError(f"controller.selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")
        self.decoder = decoder
        self.temperature, self.normalize, self.selection = temperature, normalize, selection
        box = torch.quasirandom.SobolEngine(decoder.latent_size, scramble=True, seed=0)
        self.register_buffer("points", 2 * box.draw(SHIFT_POINTS) - 1, persistent=False)

    @property
    def differentiable_in(self) -> tuple[str, ...]:
        """Through a hard selection only the decoder's gradient passes, at the point that was found."""
        return ("decoder",) if self.temperature == 0 else ("reward", "transition", "decoder")

    def _search(
        self, objective: Callable[[Tensor], Tensor], scale: Tensor | float, checkpoint: bool, **arguments: Any
    ) -> Solution:
        temperature: Tensor | float = self.temperature
        if temperature and not self.normalize:
            temperature = temperature * scale
        solve = mppi if self.selection == "softmax" else dcem
        return solve(objective, temperature=temperature, normalize=self.normalize, checkpoint=checkpoint, **arguments)

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Latent points [B, n] or [B, N, n] -> actions [B, H, A] or [B, N, H, A]."""
        if x.dim() == 2:
            return self.decoder(x[:, None], belief)[:, 0]
        return self.decoder(x, belief)

    @torch.no_grad()
    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start of the next decision [B, n]: the latent point that stands for the plan moved on by one.

        A latent point has no time axis; the last one would mean the same actions, a decision too late. Of it and of
        points that fill the box evenly, the one whose actions are nearest to the plan's from its second on.

        Args:
            plan: The last one.
            belief: The one that the plan was made for.

        Returns:
            [B, n].
        """
        points = torch.cat([plan.mean[:, None], self.points.expand(plan.mean.shape[0], -1, -1)], 1)  # [B, 1 + N, n]
        actions = self.decode(points, belief)[:, :, :-1]
        nearest = (actions - plan.actions[:, None, 1:]).square().sum((-1, -2)).argmin(1)  # [B]
        return points.gather(1, nearest[:, None, None].expand(-1, 1, self.plan_size)).squeeze(1)
