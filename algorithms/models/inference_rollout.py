"""The RSSM's rollout for planning on a CPU: the plain form up to rounding, without gradient or new memory in a step.

A plan's rewards take 0.65 to 0.92 times as long as by the plain form (docs/results/avx2.md). A bias is a row of its
weight, which multiplies a column of ones, so that a product writes its result once. tanh(x) is 2 sigmoid(2 x) - 1,
whose factor is in the weights.

Axes: B beliefs, N candidates, M = B N rows, H horizon, A action, D deterministic, S stochastic, K hidden.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.beliefs import Belief

BLOCK_ROWS = 512  # whose intermediate results stay in a core's cache


@torch.no_grad()
def roll_out_in_place(gru: nn.GRUCell, prior_net: nn.Sequential, belief: Belief, actions: Tensor) -> Tensor:
    """The states that action sequences lead to, each state at its prior mean.

    Args:
        gru: From state and action [S + A] to h [D].
        prior_net: Three linear layers with ReLUs between, from h [D] to means and raw deviations [2 S].
        belief: [B].
        actions: [B, N, H, A].

    Returns:
        h and s, [H * M, D + S].
    """
    B, N, H, A = actions.shape
    M, D, S = B * N, belief.h.shape[-1], belief.s.shape[-1]
    w_ih, w_hh, b_ih, b_hh = gru.weight_ih.t(), gru.weight_hh.t(), gru.bias_ih, gru.bias_hh
    of_h, of_x = torch.cat([b_hh[None], w_hh]), torch.cat([w_ih, b_ih[None]])  # of 1, h and of s, a, 1
    gates = torch.cat([of_h, of_x])[:, : 2 * D].contiguous()  # reset and update
    new_of_h, new_of_x = 2 * of_h[:, 2 * D :], 2 * of_x[:, 2 * D :]
    layers = [torch.cat([layer.bias[None], layer.weight.t()]) for layer in prior_net if isinstance(layer, nn.Linear)]
    layers[-1] = layers[-1][:, :S].contiguous()

    x = actions.new_ones(H + 1, M, 1 + D + S + A + 1)  # of each step: 1, h, s, a, 1
    x[0, :, 1 : 1 + D], x[0, :, 1 + D : 1 + D + S] = (part.repeat_interleave(N, 0) for part in belief)
    x[:-1, :, 1 + D + S : -1] = actions.reshape(M, H, A).transpose(0, 1)
    both, from_h, new = x.new_empty(M, 2 * D), x.new_empty(M, D), x.new_empty(M, D)
    hidden = [x.new_ones(M, 1 + layer.shape[1]) for layer in layers[:-1]]
    minus_one = x.new_tensor(-1.0)
    for step, (now, after) in enumerate(pairwise(x)):
        h = now[:, 1 : 1 + D]
        if step == 0:  # what comes from the belief is multiplied once a belief, not once a candidate
            of_belief, a = now[::N].clone(), slice(1 + D + S, -1)
            of_belief[:, a] = 0
            torch.mm(now[:, a], gates[a], out=both).view(B, N, -1).add_((of_belief @ gates)[:, None])
            from_h.view(B, N, D).copy_((of_belief[:, : 1 + D] @ new_of_h)[:, None])
            torch.mm(now[:, a], new_of_x[S:-1], out=new).view(B, N, -1).add_(
                (of_belief[:, 1 + D :] @ new_of_x)[:, None]
            )
        else:
            torch.mm(now, gates, out=both)
            torch.mm(now[:, : 1 + D], new_of_h, out=from_h)
            torch.mm(now[:, 1 + D :], new_of_x, out=new)
        r, z = both.sigmoid_().chunk(2, -1)
        new.addcmul_(r, from_h).sigmoid_()
        torch.lerp(torch.add(minus_one, new, alpha=2, out=new), h, z, out=after[:, 1 : 1 + D])
        y = after[:, : 1 + D]
        for layer, held in zip(layers, hidden, strict=False):
            torch.mm(y, layer, out=held[:, 1:]).clamp_min_(0.0)
            y = held
        torch.mm(y, layers[-1], out=after[:, 1 + D : 1 + D + S])
    return x[1:, :, 1 : 1 + D + S].flatten(0, 1)
