"""The cross-entropy method and its differentiable form (DCEM paper, Prop. 1, Prop. 3, algorithm 1), in one loop.

Axes: B independent problems, N candidates, n variables of a problem, T iterations. Both methods minimise. The paper's
eq. (5) projects the values v, which for a minimum must be -v.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from parsecrl.algorithms.solvers.argument_checks import Bounds, check_arguments
from parsecrl.algorithms.solvers.candidate_pruning import most_influential
from parsecrl.algorithms.solvers.lml import lml_projection

Objective = Callable[[Tensor], Tensor]


class Iteration(NamedTuple):
    """One iteration: what it drew, and the distribution that it left behind."""

    samples: Tensor  # [B, N, n] within the bounds
    costs: Tensor  # [B, N] as the objective gave them
    weights: Tensor  # [B, N] in [0, 1], sum num_elites
    mean: Tensor  # [B, n] after the update
    std: Tensor  # [B, n] after the update


class Solution(NamedTuple):
    """The final sampling distribution of B problems; its mean is the answer."""

    mean: Tensor  # [B, n]
    std: Tensor  # [B, n]
    history: list[Iteration] | None  # T entries, with keep_history=True
    # [B] nats, without gradient: of the last iteration's weights as a distribution over candidates, w / k. log k for a
    # hard selection; the softer, the larger, up to log N. Its exponential is an effective number of elites.
    entropy: Tensor | None = None


def cem(
    objective: Objective,
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int = 100,
    num_elites: int = 10,
    num_iterations: int = 10,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    keep_history: bool = False,
) -> Solution:
    """Minimise by the cross-entropy method: refit a Gaussian to the best candidates (DCEM paper, Prop. 1).

    No gradient passes the hard selection. The answer is differentiable in init_mean and init_std, through the elites'
    own coordinates.

    Args:
        objective: Maps candidates [B, N, n] to costs [B, N]; called without gradient. A candidate of NaN or infinite
            cost is never elite.
        init_mean: Mean of the first candidates, [B, n], float32 or float64.
        init_std: Standard deviation of the first candidates, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: Candidates that the Gaussian is refitted to, in [1, N).
        num_iterations: T, at least 1.
        bounds: (low, high), floats or tensors that broadcast to [n], low < high. Candidates are clamped to them.
        generator: Of the candidates' noise, on the device of init_mean.
        noise: Standard normal draws [T, B or 1, N, n], used in place of the generator's.
        keep_history: Return every iteration as well.

    Returns:
        The last sampling distribution. Its mean [B, n] is the answer.

    Raises:
        ValueError: An argument is out of range, costs have the wrong shape, or an iteration has fewer finite costs
            than elites. The last check reads the device once, after the loop. Under torch.compile and CUDA graph
            capture it is left out: such a problem's mean is NaN.
    """
    std, bounds = check_arguments(
        init_mean, init_std, num_samples, num_elites, num_iterations, bounds, generator, noise
    )
    search = _Search(init_mean, std, num_samples, num_elites, num_iterations, bounds, generator, noise)
    return search.run(objective, keep_history)


def dcem(
    objective: Objective,
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int = 100,
    num_elites: int = 10,
    num_iterations: int = 10,
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    keep_history: bool = False,
    checkpoint: bool = False,
    keep_fraction: float = 1.0,
) -> Solution:
    """Minimise by the differentiable cross-entropy method (DCEM paper, algorithm 1 and Prop. 3).

    The LML projection weighs the candidates in place of a hard selection. The answer is differentiable in init_mean,
    init_std, a temperature tensor and whatever the objective depends on.

    A candidate of NaN or infinite cost has weight 0 and adds exactly 0 to every gradient. Where such a candidate turns
    up and a gradient is wanted, the search runs again with that candidate replaced before the objective sees it. Else 0
    times an infinite derivative inside the objective would be NaN. Under torch.compile and CUDA graph capture nothing
    can be read, and there is no second run.

    Args:
        objective: Maps candidates [B, N, n] to costs [B, N]. It must be deterministic where a second run or
            keep_fraction evaluates it again, and with keep_fraction take any number of candidates.
        init_mean: Mean of the first candidates, [B, n], float32 or float64.
        init_std: Standard deviation of the first candidates, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: k, the sum of the weights, in [1, N).
        num_iterations: T, at least 1.
        temperature: Divides the scores (eq. 4), 0 or more; a float or a tensor [] or [B, 1]. The float 0 is `cem`,
            number for number.
        normalize: Bring each problem's finite costs to mean 0 and population standard deviation 1, every iteration.
            The temperature then need not know the scale of the costs.
        bounds: (low, high), floats or tensors that broadcast to [n], low < high. Candidates are clamped to them.
        generator: Of the candidates' noise, on the device of init_mean.
        noise: Standard normal draws [T, B or 1, N, n], used in place of the generator's.
        keep_history: Return every iteration as well.
        checkpoint: Keep only each iteration's noise and distribution, and recompute the rest in backward.
        keep_fraction: In (0, 1]. Below 1 the gradient passes through this fraction of each problem's candidates, those
            whose costs move the answer most. The answer is the same. The gradient misses what the other costs depend
            on.

    Returns:
        The last sampling distribution. Its mean [B, n] is the answer.

    Raises:
        ValueError: As `cem`, and for a temperature or keep_fraction out of range.
    """
    std, bounds = check_arguments(
        init_mean, init_std, num_samples, num_elites, num_iterations, bounds, generator, noise
    )
    if isinstance(keep_fraction, bool) or not 0.0 < keep_fraction <= 1.0:
        raise ValueError(f"keep_fraction must lie in (0, 1], got {keep_fraction!r}; 1 keeps every candidate's gradient")
    search = _Search(init_mean, std, num_samples, num_elites, num_iterations, bounds, generator, noise)
    if not isinstance(temperature, Tensor):
        if not 0.0 <= temperature < math.inf:
            raise ValueError(f"temperature must be finite and 0 or more, got {temperature}; 0 is the hard selection")
        if temperature == 0.0:
            return search.run(objective, keep_history)
    search.temperature, search.normalize, search.checkpoint = temperature, normalize, checkpoint
    search.num_kept = math.ceil(keep_fraction * num_samples)
    return search.run(objective, keep_history)


@dataclass
class _Search:
    """The loop that both methods share. temperature None is the hard selection."""

    mean: Tensor
    std: Tensor
    num_samples: int
    num_elites: int
    num_iterations: int
    bounds: Bounds | None
    generator: torch.Generator | None
    noise: Tensor | None
    temperature: float | Tensor | None = None
    normalize: bool = False
    checkpoint: bool = False
    num_kept: int | None = None  # None: no gradient passes the objective

    def run(self, objective: Objective, keep_history: bool) -> Solution:
        if self.noise is None and self.temperature is not None and torch.is_grad_enabled():
            # Autograd and checkpointing keep these draws anyway, and a second run must see the same ones.
            self.noise = torch.stack([self._draw(t) for t in range(self.num_iterations)])
        solution, counts = self._loop(objective, keep_history, guarded=False)
        if torch.compiler.is_compiling() or (counts.is_cuda and torch.cuda.is_current_stream_capturing()):
            return solution
        finite = counts.tolist()  # the one synchronisation
        for t, count in enumerate(finite):
            if count < self.num_elites:
                raise ValueError(
                    f"in iteration {t} (of 0 to {self.num_iterations - 1}) a problem has a finite cost for only "
                    f"{count} of {self.num_samples} candidates, fewer than num_elites={self.num_elites}; look for NaN "
                    f"or infinity in the objective, tighten the bounds or lower num_elites"
                )
        prunes = self.num_kept is not None and self.num_kept < self.num_samples  # is guarded as it is
        soft = self.temperature is not None and not prunes
        if soft and solution.mean.requires_grad and min(finite) < self.num_samples:
            solution, _ = self._loop(objective, keep_history, guarded=True)
        return solution

    def _loop(self, objective: Objective, keep_history: bool, guarded: bool) -> tuple[Solution, Tensor]:
        """The solution and, per iteration, the smallest number of finite costs over the problems [T]."""
        mean, std = self.mean, self.std
        history: list[Iteration] | None = [] if keep_history else None
        counts = []
        soft: Tensor | None = None
        for t in range(self.num_iterations):
            eps = self._draw(t)
            if self.checkpoint and torch.is_grad_enabled():
                step, count, soft = recompute_in_backward(
                    self._step, objective, mean, std, eps, keep_history, guarded, use_reentrant=False
                )
            else:
                step, count, soft = self._step(objective, mean, std, eps, keep_history, guarded)
            mean, std = step[-2:]
            counts.append(count)
            if history is not None:
                history.append(Iteration(*step))
        if soft is None:
            entropy = mean.new_full(mean.shape[:1], math.log(self.num_elites))
        else:
            entropy = torch.special.entr(soft / self.num_elites).sum(-1)
        return Solution(mean, std, history, entropy), torch.stack(counts)

    def _draw(self, t: int) -> Tensor:
        """Standard normal noise of iteration t, [B or 1, N, n]."""
        if self.noise is not None:
            return self.noise[t]
        B, n = self.mean.shape
        return torch.randn(
            B, self.num_samples, n, generator=self.generator, dtype=self.mean.dtype, device=self.mean.device
        )

    def _step(
        self, objective: Objective, mean: Tensor, std: Tensor, eps: Tensor, keep_all: bool, guarded: bool
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
        """One iteration.

        Returns (samples, costs, weights, mean, std), or (mean, std) unless keep_all; the least count of finite costs;
        the soft weights [B, N] without gradient, None for a hard selection.
        """
        samples = (std.unsqueeze(1) * eps).add_(mean.unsqueeze(1))  # [B, N, n]
        if self.bounds is not None:
            clamp = torch.clamp if samples.requires_grad else torch.clamp_
            samples = clamp(samples, *self.bounds)  # type: ignore[arg-type]
        if self.temperature is None:
            with torch.no_grad():
                costs = self._evaluate(objective, samples)
            finite = costs.isfinite()
            mean, std, weights = self._refit_to_best(samples, costs, finite, keep_all)
        else:
            if self.num_kept is not None and self.num_kept < self.num_samples and torch.is_grad_enabled():
                costs, finite = self._evaluate_influential(objective, samples)
            elif guarded:
                costs, finite = self._evaluate_guarded(objective, samples)
            else:
                costs, finite = self._evaluate_once(objective, samples)
            scores = -(_normalize(costs, finite) if self.normalize else costs)
            weights = lml_projection(torch.where(finite, scores, -math.inf), self.num_elites, self.temperature)
            mean, std = self._refit_to_weights(samples, weights)
        count = finite.sum(-1).amin()
        soft = None if self.temperature is None else weights.detach()
        return ((samples, costs, weights, mean, std) if keep_all else (mean, std)), count, soft

    def _evaluate(self, objective: Objective, samples: Tensor) -> Tensor:
        costs = objective(samples)
        if not isinstance(costs, Tensor) or costs.shape != samples.shape[:2]:
            got = f"shape {tuple(costs.shape)}" if isinstance(costs, Tensor) else type(costs).__name__
            raise ValueError(
                f"the objective must map candidates {tuple(samples.shape)} to one cost each, a tensor of shape "
                f"{tuple(samples.shape[:2])}, got {got}; sum the cost over every axis but the first two"
            )
        return costs.to(samples.dtype)

    def _evaluate_once(self, objective: Objective, samples: Tensor) -> tuple[Tensor, Tensor]:
        costs = self._evaluate(objective, samples)
        return costs, costs.isfinite()

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
        assert self.num_kept is not None
        with torch.no_grad():
            raw = self._evaluate(objective, samples)
            finite = raw.isfinite()
            scores = torch.where(finite, -(_normalize(raw, finite) if self.normalize else raw), -math.inf)
            weights = lml_projection(scores, self.num_elites, self.temperature)  # type: ignore[arg-type]
            kept = most_influential(samples, scores, weights, self.num_kept, self.normalize)  # [B, K]
            kept_finite = finite.gather(1, kept)
            best = scores.argmax(1, keepdim=True)
        # In place of a candidate whose derivative may be infinite, the best one, whose second copy then counts 0.
        chosen = torch.where(kept_finite, kept, best).unsqueeze(-1).expand(-1, -1, samples.shape[-1])
        costs = self._evaluate(objective, samples.gather(1, chosen))
        change = torch.where(kept_finite, costs - costs.detach(), 0.0)  # 0, with the gradient of the cost
        return raw.scatter_add(1, kept, change), finite

    def _refit_to_best(
        self, samples: Tensor, costs: Tensor, finite: Tensor, keep_all: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prop. 1: mean and standard deviation of the elites; weights are 0 or 1 (empty unless kept)."""
        ranked = torch.where(finite, costs, math.inf)
        best = torch.topk(ranked, self.num_elites, dim=1, largest=False, sorted=False).indices  # [B, k]
        elites = samples.gather(1, best.unsqueeze(-1).expand(-1, -1, samples.shape[-1]))  # [B, k, n]
        mean = elites.mean(1)
        std = _root((elites - mean.unsqueeze(1)).square().mean(1))
        # Too few finite costs are an error; where it cannot be raised, it must not pass for an answer.
        enough = finite.sum(1, keepdim=True) >= self.num_elites
        mean = torch.where(enough, mean, math.nan)
        weights = torch.zeros_like(costs).scatter_(1, best, 1.0) if keep_all else costs
        return mean, std, weights

    def _refit_to_weights(self, samples: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Prop. 3: the weighted mean and standard deviation. Plain sums: a matrix product may round to TF32."""
        w = weights.unsqueeze(-1) / self.num_elites  # [B, N, 1], sum 1
        mean = (w * samples).sum(1)
        squares = samples - mean.unsqueeze(1)
        squares = squares.square() if squares.requires_grad else squares.square_()
        return mean, _root((w * squares).sum(1))


def _root(variance: Tensor) -> Tensor:
    """The square root, with a floor below which its slope is 0 rather than infinite."""
    return variance.clamp(min=torch.finfo(variance.dtype).eps ** 2).sqrt()


def _normalize(costs: Tensor, finite: Tensor) -> Tensor:
    """[B, N]: each row's finite costs at mean 0 and standard deviation 1; the others 0, without gradient."""
    count = finite.sum(-1, keepdim=True)
    mean = (torch.where(finite, costs, 0.0) / count).sum(-1, keepdim=True)
    centred = torch.where(finite, costs - mean, 0.0)
    largest = centred.detach().abs().amax(-1, keepdim=True)
    # Differences at the level of rounding are no signal: blown up to 1 they would steer the search, and their gradient.
    flat = largest <= 4 * torch.finfo(costs.dtype).eps * mean.detach().abs()
    scaled = centred / torch.where(flat, 1.0, largest)  # so that no square overflows or vanishes
    spread = (scaled.square().sum(-1, keepdim=True) / count).masked_fill(flat, 1.0).sqrt()
    return scaled / spread
