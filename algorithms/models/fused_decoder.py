"""The action decoder in few calls, for small decoders on the CPU, where calls cost as much as arithmetic.

Axes: R rows (problems times candidates), n latent, H horizon, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parsecrl.algorithms.models.action_decoder import ActionDecoder
from parsecrl.algorithms.models.records import Belief


class FusedDecoder(ActionDecoder):
    """ActionDecoder, numbers and parameters alike, as one autograd function with oneDNN's products.

    torch takes its products from MKL, which leaves half of the vector width of AMD processors unused: measured on one
    core, [100, 256] x [256, 256] runs at 100 GFLOP/s there and at 190 in oneDNN. torch has no public call for that,
    so that where its version lacks the private one, and for other devices, types and options, it is ActionDecoder's
    own forward. Differentiable once.
    """

    def forward(self, z: Tensor, belief: Belief | None = None) -> Tensor:
        plain = z.device.type != "cpu" or z.dtype != torch.float32 or self.belief_in is not None
        if plain or self.output != "sigmoid" or not _ONEDNN or torch.compiler.is_compiling():
            return super().forward(z, belief)
        layers = [self.latent_in, *(m for m in self.body if isinstance(m, nn.Linear))]
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        u: Tensor = _Decode.apply(z.reshape(-1, self.latent_size), *parameters)
        return u.view(*z.shape[:-1], self.horizon, self.action_size)


class _Decode(torch.autograd.Function):
    """z [R, n], then a weight and a bias for each layer -> 2 sigmoid(...) - 1, [R, H * A]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        inputs, x = [], z
        for weight, bias in zip(weights, biases, strict=True):
            inputs.append(x)
            x = _product(x, weight, bias)
            if weight is not weights[-1]:
                x = nn.functional.elu_(x)
        u = x.sigmoid_().mul_(2.0).sub_(1.0)
        ctx.save_for_backward(u, *inputs, *weights)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, *saved = ctx.saved_tensors
        inputs, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        grad = torch.addcmul(grads[0], grads[0] * u, u, value=-1.0).mul_(0.5)  # of 2 sigmoid(x) - 1: (1 - u^2) / 2
        found: list[Tensor | None] = []
        for i in reversed(range(len(weights))):
            # needs_input_grad: z, then weight and bias of each layer
            found.append(grad.sum(0) if ctx.needs_input_grad[2 * i + 2] else None)
            found.append(_product(grad.t(), inputs[i].t()) if ctx.needs_input_grad[2 * i + 1] else None)
            if i or ctx.needs_input_grad[0]:
                grad = _product(grad, weights[i].t())
            if i:  # of ELU, from its result
                grad = torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, inputs[i])
        return (grad if ctx.needs_input_grad[0] else None, *reversed(found))


def _product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, n] times the transpose of w [m, n], plus bias [m]."""
    return torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")


def _has_onednn() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x = torch.arange(6.0).view(2, 3)
        return bool(torch.equal(_product(x, x), x @ x.t()))
    except (AttributeError, RuntimeError, TypeError):
        return False


_ONEDNN = _has_onednn()
