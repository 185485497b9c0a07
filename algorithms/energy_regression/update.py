"""Regression with an energy: predict by minimising it, train it through the minimiser. Torch alone.

Axes: B inputs, N candidate outputs, X and Y the sizes of an input and an output, T iterations of the minimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.energy_regression.settings import InnerSolverSpec
from parsecrl.algorithms.solvers.cem import dcem
from parsecrl.algorithms.solvers.gaussian_search import Objective
from parsecrl.algorithms.solvers.unrolled_gd import unrolled_gd

Energy = Callable[[Tensor, Tensor], Tensor]  # x [B, X], y [B, N, Y] -> one energy each [B, N]


def target(x: Tensor) -> Tensor:
    """The function to learn, x sin x (DCEM paper, section 5.1).

    Args:
        x: [..., 1].

    Returns:
        [..., 1].
    """
    return x * x.sin()


def training_inputs(num_points: int = 100) -> Tensor:
    """Inputs equally spaced in [0, 2 pi], both ends among them.

    Args:
        num_points: At least 2.

    Returns:
        [num_points, 1].
    """
    return torch.linspace(0.0, 2 * math.pi, num_points).unsqueeze(-1)


def held_out_inputs(num_points: int = 100) -> Tensor:
    """Inputs in the middle between the training inputs: none of them is ever trained on.

    Args:
        num_points: Of the training inputs, at least 2.

    Returns:
        [num_points - 1, 1].
    """
    x = training_inputs(num_points)
    return (x[1:] + x[:-1]) / 2


class InnerSolver:
    """The minimiser of an energy in y, from y_0 = 0.

    Args:
        settings: Those of `InnerSolverSpec`, by name.

    Raises:
        ValueError: A setting is unknown or out of range.
    """

    kind: str
    num_iterations: int
    learning_rate: float
    num_samples: int
    num_elites: int
    temperature: float
    init_std: float
    normalize: bool

    def __init__(self, **settings: Any):
        vars(self).update(InnerSolverSpec.checked(settings).plain())

    @property
    def is_random(self) -> bool:
        """Whether a search draws noise."""
        return self.kind == "dcem"

    def draw_noise(
        self, B: int, y_size: int = 1, generator: torch.Generator | None = None, num_iterations: int | None = None
    ) -> Tensor:
        """Draw what `iterates` takes as noise.

        Args:
            B: Inputs.
            y_size: Y.
            generator: Of the draws.
            num_iterations: T, in place of the solver's own.

        Returns:
            Standard normal [T, B, N, Y] on the generator's device; none (T = 0) for a descent.
        """
        steps = (num_iterations or self.num_iterations) if self.is_random else 0
        device = generator.device if generator is not None else None
        return torch.randn(steps, B, self.num_samples, y_size, generator=generator, device=device)

    def iterates(
        self, energy: Energy, x: Tensor, y_size: int, noise: Tensor, num_iterations: int | None = None
    ) -> Tensor:
        """Every step of the search for the minimiser of each input's energy.

        The steps are differentiable where gradients are enabled.

        Args:
            energy: What is minimised.
            x: Inputs [B, X].
            y_size: Y.
            noise: From `draw_noise`, for as many iterations.
            num_iterations: T, in place of the solver's own.

        Returns:
            [T + 1, B, Y], y_0 = 0 first and the prediction last; for dcem the means of its distributions. The first
            steps of a longer search are those of a shorter one.

        Raises:
            ValueError: As the solver does, and as `objective_of` says.
        """
        objective, init, T = objective_of(energy, x), x.new_zeros(len(x), y_size), num_iterations or self.num_iterations
        if self.kind == "unrolled_gd":
            path = unrolled_gd(objective, init, self.learning_rate, T, keep_history=True).history
            assert path is not None
            return path
        history = dcem(
            objective, init, self.init_std, num_iterations=T, noise=noise, keep_history=True, **self._dcem
        ).history
        assert history is not None
        return torch.stack([init, *(iteration.mean for iteration in history)])

    def predict(
        self, energy: Energy, x: Tensor, y_size: int, noise: Tensor, num_iterations: int | None = None
    ) -> Tensor:
        """The minimisers [B, Y] of all inputs' energies, found together: the last of `iterates`, with its arguments."""
        objective, init, T = objective_of(energy, x), x.new_zeros(len(x), y_size), num_iterations or self.num_iterations
        if self.kind == "unrolled_gd":
            return unrolled_gd(objective, init, self.learning_rate, T).mean
        return dcem(objective, init, self.init_std, num_iterations=T, noise=noise, **self._dcem).mean

    def iteration(self, energy: Energy, x: Tensor, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One iteration of dcem; a chain of T is `predict`.

        Args:
            energy: What is minimised.
            x: Inputs [B, X].
            mean: [B, Y].
            std: [B, Y].
            noise: Standard normal [1, B, N, Y].

        Returns:
            The next mean and standard deviation, [B, Y].
        """
        solution = dcem(objective_of(energy, x), mean, std, num_iterations=1, noise=noise, **self._dcem)
        return solution.mean, solution.std

    @property
    def _dcem(self) -> dict[str, Any]:
        names = ("num_samples", "num_elites", "temperature", "normalize")
        return {name: getattr(self, name) for name in names}


def objective_of(energy: Energy, x: Tensor) -> Objective:
    """The energies of inputs as a solver's objective.

    The objective raises ValueError, with the energy's name, where energies have the wrong shape or are NaN. Values are
    read on the CPU only, where none waits. Elsewhere and under torch.compile the solver's own checks remain.

    Args:
        energy: Maps x [B, X] and y [B, N, Y] to [B, N].
        x: Inputs [B, X].

    Returns:
        Maps y [B, N, Y] to costs [B, N].
    """
    name = type(energy).__name__ if isinstance(energy, nn.Module) else getattr(energy, "__name__", repr(energy))

    def objective(y: Tensor) -> Tensor:
        energies = energy(x, y)
        wanted = tuple(y.shape[:2])
        given = f"the energy {name} must map x {tuple(x.shape)} and y {tuple(y.shape)} to a tensor of shape {wanted}"
        if not isinstance(energies, Tensor) or energies.shape != wanted:
            got = f"shape {tuple(energies.shape)}" if isinstance(energies, Tensor) else type(energies).__name__
            raise ValueError(f"{given}, one energy for each y, got {got}; sum over every axis but the first two")
        if energies.device.type == "cpu" and not torch.compiler.is_compiling() and bool(energies.isnan().any()):
            count = int(energies.isnan().sum())
            raise ValueError(
                f"{given} without NaN, got {count} NaN of {energies.numel()}; look for 0/0 or a log of 0 in it"
            )
        return energies

    return objective


class Learner:
    """Shapes an energy by the squared error of its minimiser (DCEM paper, section 5.1).

    Args:
        energy: Maps x [B, X] and y [B, N, Y] to [B, N].
        solver: The minimiser.
        lr: Of Adam, > 0.
        max_grad_norm: Gradients are clipped to it, > 0.
        compile: Have torch.compile build dcem's iteration. That takes tens of seconds once and then halves an update's
            time on a CPU. The numbers stay the same up to rounding.
    """

    def __init__(
        self,
        energy: nn.Module,
        solver: InnerSolver,
        lr: float = 1e-3,
        max_grad_norm: float = 1.0,
        compile: bool = False,
    ):
        self.energy, self.solver, self.max_grad_norm = energy, solver, max_grad_norm
        self.optimizer = torch.optim.Adam(energy.parameters(), lr)
        self.iteration = None
        if compile and solver.is_random:
            # One iteration, not all: the same speed for a tenth of the time to build. A descent gains too little.
            self.iteration = torch.compile(lambda *tensors: solver.iteration(energy, *tensors), fullgraph=True)

    def loss(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The mean over B of |prediction - y|^2.

        Args:
            x: Inputs [B, X].
            y: Targets [B, Y].
            noise: From the solver's `draw_noise`.

        Returns:
            [].
        """
        return (self.predict(x, y.shape[-1], noise) - y).square().sum(-1).mean()

    def predict(self, x: Tensor, y_size: int, noise: Tensor) -> Tensor:
        """Predict as the solver does, by the compiled iteration where there is one.

        Args:
            x: Inputs [B, X].
            y_size: Y.
            noise: From the solver's `draw_noise`.

        Returns:
            [B, Y].
        """
        if self.iteration is None:
            return self.solver.predict(self.energy, x, y_size, noise)
        mean = x.new_zeros(len(x), y_size)
        std = torch.full_like(mean, self.solver.init_std)
        for eps in noise.split(1):
            mean, std = self.iteration(x, mean, std, eps)
        return mean

    def update(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """Take one step of Adam on `loss`.

        Args:
            x: Inputs [B, X].
            y: Targets [B, Y].
            noise: From the solver's `draw_noise`.

        Returns:
            The loss before the step, [].
        """
        loss = self.loss(x, y, noise)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.energy.parameters(), self.max_grad_norm)
        self.optimizer.step()
        return loss.detach()
