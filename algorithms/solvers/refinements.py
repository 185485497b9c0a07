"""What a search by a refitted Gaussian can do beyond plain CEM (iCEM, Pinneri et al. 2020).

Axes: B independent problems, N candidates, n variables of a problem, T iterations, k elites, M candidates from outside,
H horizon, A action.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from parsecrl.algorithms.registry.search_sizes import num_drawn


@dataclass(frozen=True)
class Refinements:
    """What a search does beyond plain CEM; the defaults are plain CEM.

    Source: iCEM (Pinneri et al. 2020, section 3 and algorithm 1). A kept elite keeps its cost: it is not evaluated
    again.

    Args:
        decay: Iteration t draws num_samples / decay^t candidates, at least 2 num_elites, >= 1.
        kept_elites: How many of the best are candidates of the next iteration as well, in [0, num_elites].
        candidates: Of the first iteration beside those drawn, [B, M, n]; None for none.
        mixing: What a standard normal draw is multiplied by, [n, n], rows of length 1: correlates a candidate's
            variables. None: they are independent.
        min_std: Floor of the standard deviations after the first iteration, >= 0.
        best: Also find the best of all candidates. The last iteration then tries the mean as well.
    """

    decay: float = 1.0
    kept_elites: int = 0
    candidates: Tensor | None = None
    mixing: Tensor | None = None
    min_std: float = 0.0
    best: bool = False

    def __post_init__(self) -> None:
        if not 1.0 <= self.decay < math.inf:
            raise ValueError(f"decay must be 1 or more, got {self.decay}; 1 draws as many in each iteration")
        if not 0.0 <= self.min_std < math.inf:
            raise ValueError(f"min_std must be finite and 0 or more, got {self.min_std}; 0 is no floor")

    def check(self, num_elites: int, init_mean: Tensor) -> None:
        """Raise ValueError where what is refined does not fit.

        Args:
            num_elites: k.
            init_mean: [B, n].
        """
        if not 0 <= self.kept_elites <= num_elites:
            raise ValueError(
                f"kept_elites must lie in [0, num_elites], got {self.kept_elites} with num_elites={num_elites}; "
                f"lower it"
            )
        B, n = init_mean.shape
        for name, value, fits in (
            ("candidates", self.candidates, lambda shape: len(shape) == 3 and shape[0] == B and shape[2] == n),
            ("mixing", self.mixing, lambda shape: shape == (n, n)),
        ):
            if value is not None and not fits(value.shape):
                wanted = f"[{B}, M, {n}]" if name == "candidates" else f"[{n}, {n}]"
                raise ValueError(f"{name} must have the shape {wanted}, got {tuple(value.shape)}; reshape it")

    def num_evaluated(self, num_samples: int, num_elites: int, num_iterations: int) -> int:
        """How many candidates a whole search evaluates.

        Args:
            num_samples: N, of the first iteration.
            num_elites: k.
            num_iterations: T.

        Returns:
            Those drawn, those from outside and the mean.
        """
        drawn = sum(num_drawn(num_samples, num_elites, self.decay, t) for t in range(num_iterations))
        return drawn + (0 if self.candidates is None else self.candidates.shape[1]) + self.best


PLAIN = Refinements()


def colored_noise(horizon: int, action_size: int, exponent: float) -> Tensor:
    """The mixing that makes white noise over action sequences coloured along the horizon.

    A draw's power at frequency f is proportional to f^-exponent (Timmer and Koenig 1995; iCEM, section 3.1). Its
    lowest frequency, a constant, has the power of the next one. Every action has variance 1.

    Args:
        horizon: H.
        action_size: A; the actions of a decision are independent.
        exponent: beta, 0 or more: 0 is white, 1 pink, 2 red. The larger, the smoother.

    Returns:
        [H A, H A], for variables in the order [H, A].

    Raises:
        ValueError: The exponent is negative or not finite.
    """
    if not 0.0 <= exponent < math.inf:
        raise ValueError(f"noise_exponent must be finite and 0 or more, got {exponent}; 0 is white noise")
    H = horizon
    frequency = torch.fft.rfftfreq(H, dtype=torch.float64)
    frequency[0] = 1 / H
    spectrum = torch.fft.rfft(torch.eye(H, dtype=torch.float64), dim=0) * frequency[:, None] ** (-exponent / 2)
    mixing = torch.fft.irfft(spectrum, n=H, dim=0)  # symmetric, circulant: rows have one length
    mixing = (mixing / mixing.norm(dim=1, keepdim=True)).float().contiguous()
    return torch.kron(mixing, torch.eye(action_size))
