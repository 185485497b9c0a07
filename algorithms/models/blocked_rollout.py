"""The rollout of a plan on the CPU when no gradient is wanted: RSSM's own, in blocks that stay in the cache.

A thousand candidates at once leave the cache with every layer, and the processor waits for memory. A few hundred rows
at a time, written in place into buffers that are used again, keep it near the speed of its matrix products.

Axes: B beliefs, N candidates, R = B * N rows of a block, H horizon, A action, D deterministic, S stochastic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.records import Belief

if TYPE_CHECKING:
    from parsecrl.algorithms.models.rssm import RSSM

ROWS = 500  # measured: 250 to 500 rows are equally fast, 100 and 1000 slower


@torch.no_grad()
def predict_rewards_in_blocks(model: RSSM, belief: Belief, actions: Tensor, rows: int = ROWS) -> Tensor:
    """As RSSM.predict_rewards, without gradient: belief [B], actions [B, N, H, A] -> [B, N, H].

    A block is a part of one belief's candidates or all candidates of several beliefs, about `rows` of them.
    """
    B, N, H, _ = actions.shape
    beliefs, parts = max(1, rows // N), -(-N // rows)
    candidates = -(-N // parts)  # of equal size, rather than a small last one
    rewards = actions.new_empty(B, N, H)
    for b in range(0, B, beliefs):
        some = Belief(belief.h[b : b + beliefs], belief.s[b : b + beliefs])
        for n in range(0, N, candidates):
            block = (slice(b, b + beliefs), slice(n, n + candidates))
            _roll_out(model, some, actions[block], rewards[block])
    return rewards


def _roll_out(model: RSSM, belief: Belief, actions: Tensor, rewards: Tensor) -> None:
    """Write the rewards [B, N, H] of one block."""
    B, N, H, A = actions.shape
    R, D, S = B * N, model.deterministic_size, model.stochastic_size
    steps = actions.reshape(R, H, A)
    p1, p2, p3 = (layer for layer in model.prior_net if isinstance(layer, nn.Linear))
    r1, r2, r3 = (layer for layer in model.reward_net if isinstance(layer, nn.Linear))
    w_i, w_h = model.gru.weight_ih.t(), model.gru.weight_hh.t()  # [S + A, 3D], [D, 3D]: reset, update, new
    b_i, b_h = model.gru.bias_ih, model.gru.bias_hh
    w_i_rz, w_i_n, w_h_rz, w_h_n = w_i[:, : 2 * D], w_i[:, 2 * D :], w_h[:, : 2 * D], w_h[:, 2 * D :]
    b_rz, b_i_n, b_h_n = (b_i + b_h)[: 2 * D], b_i[2 * D :], b_h[2 * D :]

    # The first step takes the belief's part once per belief.
    from_belief = torch.addmm(torch.addmm(b_rz, belief.s, w_i_rz[:S]), belief.h, w_h_rz)[:, None]  # [B, 1, 2D]
    gates = torch.mm(steps[:, 0], w_i_rz[S:]).view(B, N, 2 * D).add_(from_belief).sigmoid_()
    r, z = gates.chunk(2, -1)
    n = torch.mm(steps[:, 0], w_i_n[S:]).view(B, N, D).add_(torch.addmm(b_i_n, belief.s, w_i_n[:S])[:, None])
    n.addcmul_(r, torch.addmm(b_h_n, belief.h, w_h_n)[:, None]).tanh_()
    h = torch.lerp(n, belief.h[:, None], z).view(R, D)

    x = actions.new_empty(R, S + A)  # what goes into the GRU: state and action
    s, gates = x[:, :S], gates.view(R, 2 * D)
    r, z = gates.chunk(2, -1)
    n, from_h = n.view(R, D), torch.empty_like(h)
    prior_1, prior_2 = actions.new_empty(R, p1.out_features), actions.new_empty(R, p2.out_features)
    reward_1, reward_2 = actions.new_empty(R, r1.out_features), actions.new_empty(R, r2.out_features)
    reward = actions.new_empty(R)
    for t in range(H):
        if t > 0:
            x[:, S:] = steps[:, t]
            torch.addmm(b_rz, h, w_h_rz, out=gates).addmm_(x, w_i_rz).sigmoid_()
            torch.addmm(b_h_n, h, w_h_n, out=from_h)
            torch.addmm(b_i_n, x, w_i_n, out=n).addcmul_(r, from_h).tanh_()
            torch.lerp(n, h, z, out=h)
        torch.addmm(p1.bias, h, p1.weight.t(), out=prior_1).relu_()
        torch.addmm(p2.bias, prior_1, p2.weight.t(), out=prior_2).relu_()
        torch.addmm(p3.bias[:S], prior_2, p3.weight[:S].t(), out=s)
        torch.addmm(r1.bias, h, r1.weight[:, :D].t(), out=reward_1).addmm_(s, r1.weight[:, D:].t()).relu_()
        torch.addmm(r2.bias, reward_1, r2.weight.t(), out=reward_2).relu_()
        torch.addmv(r3.bias, reward_2, r3.weight[0], out=reward)
        rewards[..., t] = reward.view(B, N)
