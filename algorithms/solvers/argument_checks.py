"""Checks of what users give to the solvers.

Values in tensors are read on the CPU only: elsewhere reading would wait for the device. Axes: B problems, N
candidates, n variables, T iterations.
"""

import math

import torch
from torch import Tensor

Bounds = tuple[float | Tensor, float | Tensor]


def check_arguments(
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int,
    num_elites: int,
    num_iterations: int,
    bounds: Bounds | None,
    generator: torch.Generator | None,
    noise: Tensor | None,
) -> tuple[Tensor, Bounds | None]:
    """Check what `cem`, `dcem` and `categorical_cem` have in common.

    Args:
        init_mean: Where the search starts, [B, n], float32 or float64.
        init_std: Standard deviation at the start, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: In [1, N).
        num_iterations: T, at least 1.
        bounds: (low, high), floats or tensors that broadcast to [n]; low < high. None for no bounds.
        generator: On the device of init_mean.
        noise: Standard normal draws [T, B or 1, N, n], with the type and device of init_mean.

    Returns:
        The standard deviation as a tensor [B, n], and the bounds.

    Raises:
        ValueError: An argument has the wrong shape or type, or is out of range.
    """
    if not isinstance(init_mean, Tensor) or init_mean.dim() != 2 or 0 in init_mean.shape:
        got = f"shape {tuple(init_mean.shape)}" if isinstance(init_mean, Tensor) else type(init_mean).__name__
        raise ValueError(f"init_mean must be a tensor [B, n], got {got}; add an axis for the batch of problems")
    if init_mean.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"init_mean must be float32 or float64, got {init_mean.dtype}; convert it first")
    for name, value, least in (("num_samples", num_samples, 2), ("num_iterations", num_iterations, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of {least} or more, got {value!r}; set controller.{name}")
    if isinstance(num_elites, bool) or not isinstance(num_elites, int) or not 1 <= num_elites < num_samples:
        raise ValueError(
            f"num_elites must lie in [1, num_samples), got {num_elites!r} with num_samples={num_samples}; "
            f"set controller.num_elites in the spec"
        )
    B, n = init_mean.shape
    std = torch.as_tensor(init_std, dtype=init_mean.dtype, device=init_mean.device)
    if not _broadcasts(std, (B, n)):
        raise ValueError(
            f"init_std must broadcast to init_mean's shape {(B, n)}, got shape {tuple(std.shape)}; reshape it"
        )
    if _readable(std) and not bool(((std >= 0) & (std < math.inf)).all()):
        raise ValueError(f"init_std must be finite and 0 or more, got a minimum of {std.min().item()}; raise it")
    if noise is not None:
        allowed = [(num_iterations, rows, num_samples, n) for rows in (B, 1)]
        if tuple(noise.shape) not in allowed or noise.dtype != init_mean.dtype or noise.device != init_mean.device:
            raise ValueError(
                f"noise must be {init_mean.dtype} on {init_mean.device} of shape {allowed[0]} or {allowed[1]}, "
                f"got {noise.dtype} on {noise.device} of shape {tuple(noise.shape)}; draw it for these settings"
            )
    elif generator is not None and generator.device.type != init_mean.device.type:
        raise ValueError(
            f"the generator must live where init_mean does, on {init_mean.device}, got {generator.device}; "
            f"make it with torch.Generator(device=...)"
        )
    return std.expand(B, n), _check_bounds(bounds, init_mean)


def _check_bounds(bounds: Bounds | None, init_mean: Tensor) -> Bounds | None:
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds must be a pair (low, high), got {bounds!r}; use None for no bounds")
    low, high = bounds
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        if not low < high:
            raise ValueError(f"the lower bound must be below the upper one, got ({low}, {high}); swap them")
        return low, high
    low, high = (torch.as_tensor(b, dtype=init_mean.dtype, device=init_mean.device) for b in (low, high))
    n = init_mean.shape[1]
    for b in (low, high):
        if not _broadcasts(b, (n,)):
            raise ValueError(
                f"a bound must broadcast to the {n} variables, shape ({n},), got shape {tuple(b.shape)}; reshape it"
            )
    if _readable(low) and not bool((low < high).all()):
        raise ValueError(
            f"each lower bound must be below its upper one, got ({low.tolist()}, {high.tolist()}); swap them"
        )
    return low, high


def _broadcasts(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(tensor.shape, shape) == shape
    except RuntimeError:
        return False


def _readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
