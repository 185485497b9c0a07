"""Which candidates' costs a DCEM iteration's gradient passes through most (DCEM paper, section 4.2, future work).

Axes: B problems, N candidates, n variables, K kept.
"""

import torch
from torch import Tensor


def most_influential(samples: Tensor, scores: Tensor, weights: Tensor, num_kept: int, normalize: bool) -> Tensor:
    """Indices [B, K] of the candidates whose costs move the iteration's mean most, in standard deviations.

    samples [B, N, n]; scores [B, N] (minus the costs, normalised or not; -inf where there is no finite cost);
    weights [B, N], their LML projection. normalize: whether the scores were normalised, which passes some of every
    score's effect on to the scale of all.

    With q = w (1 - w), the mean's derivative in score i is q_i (x_i - the q-weighted mean of x), up to a constant; the
    length of that vector, taken in units of the samples' spread, is the influence. It needs no gradient of the
    objective and knows nothing of the loss.
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
