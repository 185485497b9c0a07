"""The action decoder in few calls, for small decoders on the CPU, where calls cost as much as arithmetic.

Axes: R rows (problems times candidates), n latent, H horizon, A action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parsecrl.algorithms.models.action_decoder import ActionDecoder
from parsecrl.algorithms.models.beliefs import Belief
from parsecrl.algorithms.models.matrix_products import has_fast_product, product


class FusedDecoder(ActionDecoder):
    """`ActionDecoder`, numbers and parameters alike, as one autograd function; differentiable once.

    Where there are no fast products, and for other options, it is ActionDecoder's own forward.
    """

    def forward(self, z: Tensor, belief: Belief | None = None) -> Tensor:
        """Decode latent points to action sequences, as `ActionDecoder.forward` does.

        Args:
            z: Latent points [B, N, n] in [-1, 1].
            belief: Beliefs [B]; read only by a decoder that is conditioned on them.

        Returns:
            Actions [B, N, H, A] in [-1, 1].
        """
        if self.belief_in is not None or self.output != "sigmoid" or not has_fast_product(z, self.latent_in.weight):
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
            x = product(x, weight, bias)
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
            found.append(product(grad.t(), inputs[i].t()) if ctx.needs_input_grad[2 * i + 1] else None)
            if i or ctx.needs_input_grad[0]:
                grad = product(grad, weights[i].t())
            if i:  # of ELU, from its result
                grad = torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, inputs[i])
        return (grad if ctx.needs_input_grad[0] else None, *reversed(found))
