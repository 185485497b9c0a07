"""The loop of every search that refits a Gaussian to its best candidates: CEM, DCEM, iCEM and MPPI.

Axes: B independent problems, N candidates, n variables of a problem, T iterations, k elites, M candidates from outside.
All minimise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from parsecrl.algorithms.registry.search_sizes import num_drawn
from parsecrl.algorithms.solvers.argument_checks import Bounds
from parsecrl.algorithms.solvers.candidate_pruning import most_influential
from parsecrl.algorithms.solvers.refinements import PLAIN, Refinements
from parsecrl.algorithms.solvers.scores import normalize

Objective = Callable[[Tensor], Tensor]


class Iteration(NamedTuple):
    """One iteration: what it tried, and the distribution that it left behind."""

    samples: Tensor  # [B, N, n] within the bounds
    costs: Tensor  # [B, N] as the objective gave them
    weights: Tensor  # [B, N], 0 or more, sum num_elites
    mean: Tensor  # [B, n] after the update
    std: Tensor  # [B, n] after the update


class Solution(NamedTuple):
    """The final sampling distribution of B problems; its mean is the answer, unless the best candidate is wanted."""

    mean: Tensor  # [B, n]
    std: Tensor  # [B, n]
    history: list[Iteration] | None  # T entries, with keep_history=True
    # [B] nats, without gradient: of the last iteration's weights as a distribution over candidates, w / k. log k for a
    # hard selection; the softer, the larger, up to log N. Its exponential is an effective number of elites.
    entropy: Tensor | None = None
    kept: Tensor | None = None  # [B, kept_elites, n] of the last iteration, best first, where elites are kept
    best: Tensor | None = None  # [B, n] of least cost of all that was tried, with Refinements.best


class _Tried(NamedTuple):
    """Candidates with their costs."""

    samples: Tensor  # [B, K, n]
    costs: Tensor  # [B, K]


class _Step(NamedTuple):
    """What an iteration hands on."""

    mean: Tensor  # [B, n]
    std: Tensor  # [B, n]
    finite: Tensor  # [] the least count of finite costs over the problems
    soft: Tensor | None  # [B, N] weights without gradient; None for a hard selection
    kept: _Tried | None
    best: _Tried | None  # K = 1
    tried: tuple[Tensor, Tensor, Tensor] | None  # samples, costs, weights, where all is to be kept


@dataclass
class GaussianSearch:
    """A search; `run` makes it.

    Args:
        mean: Where it starts, [B, n].
        std: [B, n].
        num_samples: N, that the first iteration draws.
        num_elites: k.
        num_iterations: T.
        bounds: As of `cem`.
        generator: As of `cem`.
        noise: As of `cem`.
        refinements: Beyond plain CEM.
        weigh: From scores [B, N] to weights [B, N] of sum k, differentiable; None: 1 for the k best, without gradient.
        normalize: Scores at mean 0 and standard deviation 1.
        checkpoint: As of `dcem`.
        keep_fraction: As of `dcem`.
    """

    mean: Tensor
    std: Tensor
    num_samples: int
    num_elites: int
    num_iterations: int
    bounds: Bounds | None
    generator: torch.Generator | None
    noise: Tensor | None
    refinements: Refinements = PLAIN
    weigh: Callable[[Tensor], Tensor] | None = None
    normalize: bool = False
    checkpoint: bool = False
    keep_fraction: float = 1.0

    def run(self, objective: Objective, keep_history: bool) -> Solution:
        """Search.

        Args:
            objective: Maps candidates [B, N, n] to costs [B, N].
            keep_history: Return every iteration as well.

        Returns:
            The solution.

        Raises:
            ValueError: As `cem`.
        """
        self.refinements.check(self.num_elites, self.mean)
        if self.noise is None and self.weigh is not None and torch.is_grad_enabled():
            # Autograd and checkpointing keep these draws anyway, and a second run must see the same ones.
            self.noise = torch.stack([self._draw(self.num_samples) for _ in range(self.num_iterations)])
        solution, counts, sizes = self._loop(objective, keep_history, guarded=False)
        if torch.compiler.is_compiling() or (counts.is_cuda and torch.cuda.is_current_stream_capturing()):
            return solution
        finite = counts.tolist()  # the one synchronisation
        for t, count in enumerate(finite):
            if count < self.num_elites:
                raise ValueError(
                    f"in iteration {t} (of 0 to {self.num_iterations - 1}) a problem has a finite cost for only "
                    f"{count} of {sizes[t]} candidates, fewer than num_elites={self.num_elites}; look for NaN "
                    f"or infinity in the objective, tighten the bounds or lower num_elites"
                )
        soft = self.weigh is not None and self.keep_fraction == 1.0  # a pruned search is guarded as it is
        if soft and solution.mean.requires_grad and any(map(int.__lt__, finite, sizes)):
            solution, _, _ = self._loop(objective, keep_history, guarded=True)
        return solution

    def _loop(self, objective: Objective, keep_history: bool, guarded: bool) -> tuple[Solution, Tensor, list[int]]:
        """The solution and, per iteration, the least number of finite costs over the problems [T] and of all costs."""
        mean, std, refined = self.mean, self.std, self.refinements
        history: list[Iteration] | None = [] if keep_history else None
        counts, sizes = [], []
        kept: _Tried | None = None
        best: _Tried | None = None
        soft: Tensor | None = None
        for t in range(self.num_iterations):
            drawn = num_drawn(self.num_samples, self.num_elites, refined.decay, t)
            eps = self._draw(drawn) if self.noise is None else self.noise[t][:, :drawn]
            given = [refined.candidates] if t == 0 and refined.candidates is not None else []
            if refined.best and t == self.num_iterations - 1:
                given.append(mean[:, None])
            sizes.append(drawn + sum(x.shape[1] for x in given) + (0 if kept is None else kept.samples.shape[1]))
            arguments = (objective, mean, std, eps, given, kept, best, keep_history, guarded)
            if self.checkpoint and torch.is_grad_enabled():
                step: _Step = recompute_in_backward(self._step, *arguments, use_reentrant=False)
            else:
                step = self._step(*arguments)
            mean, std, count, soft, kept, best, tried = step
            counts.append(count)
            if history is not None and tried is not None:
                history.append(Iteration(*tried, mean, std))
        if soft is None:
            entropy = mean.new_full(mean.shape[:1], math.log(self.num_elites))
        else:
            entropy = torch.special.entr(soft / self.num_elites).sum(-1)
        found = None if kept is None else kept.samples, None if best is None else best.samples[:, 0]
        return Solution(mean, std, history, entropy, *found), torch.stack(counts), sizes

    def _draw(self, count: int) -> Tensor:
        """Standard normal noise [B, count, n]."""
        B, n = self.mean.shape
        return torch.randn(B, count, n, generator=self.generator, dtype=self.mean.dtype, device=self.mean.device)

    def _step(
        self,
        objective: Objective,
        mean: Tensor,
        std: Tensor,
        eps: Tensor,
        given: list[Tensor],
        kept: _Tried | None,
        best: _Tried | None,
        keep_all: bool,
        guarded: bool,
    ) -> _Step:
        """One iteration; given [B, M, n] are tried beside what is drawn, kept ones count with the cost they have."""
        refined = self.refinements
        if refined.mixing is not None:
            eps = eps @ refined.mixing.t().to(eps)
        samples = (std.unsqueeze(1) * eps).add_(mean.unsqueeze(1))  # [B, N, n]
        if given:
            samples = torch.cat([samples, *given], 1)
        if self.bounds is not None:
            clamp = torch.clamp if samples.requires_grad else torch.clamp_
            # torch takes two numbers or two tensors; mypy asks which.
            samples = clamp(samples, *self.bounds)  # type: ignore[arg-type]
        costs, finite = self._evaluate_all(objective, samples, guarded)
        if kept is not None:
            samples, costs = torch.cat([samples, kept.samples], 1), torch.cat([costs, kept.costs], 1)
            finite = costs.isfinite()
        weights: Tensor | None = None
        if self.weigh is None:
            ranked = torch.where(finite, costs, math.inf)
            elite = torch.topk(ranked, self.num_elites, dim=1, largest=False, sorted=False).indices  # [B, k]
            mean, std = self._refit_to_best(samples, finite, elite)
            if keep_all:
                weights = torch.zeros_like(costs).scatter_(1, elite, 1.0)
        else:
            scores = -(normalize(costs, finite) if self.normalize else costs)
            weights = self.weigh(torch.where(finite, scores, -math.inf))
            mean, std = self._refit_to_weights(samples, weights)
        if refined.min_std > 0:
            std = std.clamp(min=refined.min_std)
        soft = None if self.weigh is None or weights is None else weights.detach()
        if refined.kept_elites:
            kept = self._least(samples, costs, finite, refined.kept_elites)
        if refined.best:
            best = self._better(self._least(samples, costs, finite, 1), best)
        tried = (samples, costs, weights) if keep_all and weights is not None else None
        return _Step(mean, std, finite.sum(-1).amin(), soft, kept, best, tried)

    def _evaluate_all(self, objective: Objective, samples: Tensor, guarded: bool) -> tuple[Tensor, Tensor]:
        """Costs [B, N], with a gradient unless the selection is hard, and which of them are finite."""
        if self.weigh is None:
            with torch.no_grad():
                costs = self._evaluate(objective, samples)
            return costs, costs.isfinite()
        if self.keep_fraction < 1.0 and torch.is_grad_enabled():
            return self._evaluate_influential(objective, samples)
        if guarded:
            return self._evaluate_guarded(objective, samples)
        costs = self._evaluate(objective, samples)
        return costs, costs.isfinite()

    def _evaluate(self, objective: Objective, samples: Tensor) -> Tensor:
        costs = objective(samples)
        if not isinstance(costs, Tensor) or costs.shape != samples.shape[:2]:
            got = f"shape {tuple(costs.shape)}" if isinstance(costs, Tensor) else type(costs).__name__
            raise ValueError(
                f"the objective must map candidates {tuple(samples.shape)} to one cost each, a tensor of shape "
                f"{tuple(samples.shape[:2])}, got {got}; sum the cost over every axis but the first two"
            )
        return costs.to(samples.dtype)

    def _evaluate_guarded(self, objective: Objective, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Costs whose gradient is exactly 0, not NaN, for a candidate whose own cost is not finite."""
        with torch.no_grad():
            raw = self._evaluate(objective, samples)
            finite = raw.isfinite()
            best = torch.where(finite, raw, math.inf).argmin(1)[:, None, None].expand(-1, 1, samples.shape[-1])
            anchor = samples.gather(1, best)  # [B, 1, n]
        costs = self._evaluate(objective, torch.where(finite.unsqueeze(-1), samples, anchor))
        finite = finite & costs.isfinite()
        return torch.where(finite, costs, raw), finite

    def _evaluate_influential(self, objective: Objective, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Costs of all candidates, with a gradient in the most influential ones of finite cost only."""
        assert self.weigh is not None
        num_kept = math.ceil(self.keep_fraction * samples.shape[1])
        with torch.no_grad():
            raw = self._evaluate(objective, samples)
            finite = raw.isfinite()
            scores = torch.where(finite, -(normalize(raw, finite) if self.normalize else raw), -math.inf)
            kept = most_influential(samples, scores, self.weigh(scores), num_kept, self.normalize)  # [B, K]
            kept_finite = finite.gather(1, kept)
            best = scores.argmax(1, keepdim=True)
        # In place of a candidate whose derivative may be infinite, the best one, whose second copy then counts 0.
        chosen = torch.where(kept_finite, kept, best).unsqueeze(-1).expand(-1, -1, samples.shape[-1])
        costs = self._evaluate(objective, samples.gather(1, chosen))
        change = torch.where(kept_finite, costs - costs.detach(), 0.0)  # 0, with the gradient of the cost
        return raw.scatter_add(1, kept, change), finite

    def _refit_to_best(self, samples: Tensor, finite: Tensor, elite: Tensor) -> tuple[Tensor, Tensor]:
        """Prop. 1: mean and standard deviation of the elites."""
        elites = samples.gather(1, elite.unsqueeze(-1).expand(-1, -1, samples.shape[-1]))  # [B, k, n]
        mean = elites.mean(1)
        std = _root((elites - mean.unsqueeze(1)).square().mean(1))
        # Too few finite costs are an error; where it cannot be raised, it must not pass for an answer.
        enough = finite.sum(1, keepdim=True) >= self.num_elites
        return torch.where(enough, mean, math.nan), std

    def _refit_to_weights(self, samples: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Prop. 3: the weighted mean and standard deviation. Plain sums: a matrix product may round to TF32."""
        w = weights.unsqueeze(-1) / self.num_elites  # [B, N, 1], sum 1
        mean = (w * samples).sum(1)
        squares = samples - mean.unsqueeze(1)
        squares = squares.square() if squares.requires_grad else squares.square_()
        return mean, _root((w * squares).sum(1))

    @staticmethod
    def _least(samples: Tensor, costs: Tensor, finite: Tensor, count: int) -> _Tried:
        """The candidates of least cost, best first, differentiable in their coordinates and costs."""
        chosen = torch.where(finite, costs.detach(), math.inf).topk(count, dim=1, largest=False).indices
        return _Tried(
            samples.gather(1, chosen.unsqueeze(-1).expand(-1, -1, samples.shape[-1])), costs.gather(1, chosen)
        )

    @staticmethod
    def _better(now: _Tried, before: _Tried | None) -> _Tried:
        """The one of less cost, row by row."""
        if before is None:
            return now
        is_better = now.costs < before.costs  # [B, 1]
        samples = torch.where(is_better.unsqueeze(-1), now.samples, before.samples)
        return _Tried(samples, torch.where(is_better, now.costs, before.costs))


def _root(variance: Tensor) -> Tensor:
    """The square root, with a floor below which its slope is 0 rather than infinite."""
    return variance.clamp(min=torch.finfo(variance.dtype).eps ** 2).sqrt()
