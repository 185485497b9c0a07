"""Candidate pruning: an iteration of DCEM whose gradient passes through few candidates.

The DCEM paper (section 4.2) names this as future work. Axes: B problems, N candidates, n variables, K kept.
"""

import torch
from torch import Tensor


def most_influential(samples: Tensor, scores: Tensor, weights: Tensor, num_kept: int, normalize: bool) -> Tensor:
    """Find the candidates whose costs move an iteration's mean most, in standard deviations.

    With q = w (1 - w), the derivative of the mean in score i is q_i (x_i - m) up to a constant. Here m is the mean of
    x weighted by q. The influence is the length of that vector, in units of the samples' spread. It needs no gradient
    of the objective and knows nothing of the loss.

    Args:
        samples: x, candidates [B, N, n].
        scores: Minus the costs [B, N], normalised or not; -inf where a cost is not finite.
        weights: w, the LML projection of the scores [B, N], in [0, 1].
        num_kept: K, 1 <= K <= N.
        normalize: Whether the scores were normalised. Each score then also acts on the scale of all.

    Returns:
        Indices [B, K] of the kept candidates, in no particular order.
    """
    finite = scores.isfinite()
    q = (weights * (1.0 - weights)).unsqueeze(-1)  # [B, N, 1]
    total = q.sum(1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    centred = samples - (q * samples).sum(1, keepdim=True) / total
    spread = samples.std(1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    jacobian = q * centred / spread  # [B, N, n]
    if normalize:
        z = torch.where(finite, scores, 0.0).unsqueeze(-1)
        jacobian = jacobian - z * (z * jacobian).sum(1, keepdim=True) / finite.sum(1)[:, None, None]
    influence = jacobian.square().sum(-1).masked_fill(~finite, -1.0)
    return influence.topk(num_kept, dim=1, sorted=False).indices
