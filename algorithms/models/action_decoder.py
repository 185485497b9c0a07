"""The action-sequence decoder: latent point -> H actions (DCEM paper, section 4.2, eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.beliefs import Belief
from parsecrl.algorithms.models.layers import mlp
from parsecrl.algorithms.models.matrix_products import Linear

CONDITIONING = ("none", "belief")
OUTPUTS = ("tanh", "sigmoid")


class ActionDecoder(nn.Module):
    """u_{1:H} = f_dec(z), with ELU units and a squashed output that keeps the actions within [-1, 1].

    Axes: n latent, H horizon, A action. The latent box is [-1, 1]^n.
    init_scale multiplies the initial weights (earlier version of the paper, appendix on initialisation: too small a
    scale does not cover the action space, and learning to expand is hard). Biases start at zero.
    conditioning="belief" feeds the belief in beside z; the paper has none.
    output: "tanh", or "sigmoid", stretched to [-1, 1] (a tanh at half the slope; the cartpole's).
    Raises ValueError on an unknown conditioning or output, and on fewer than one hidden layer.
    """

    def __init__(
        self,
        latent_size: int,
        horizon: int,
        action_size: int,
        hidden_size: int = 200,
        num_layers: int = 2,
        init_scale: float = 1.0,
        conditioning: str = "none",
        belief_size: int = 0,
        output: str = "tanh",
    ):
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"decoder.output must be one of {', '.join(OUTPUTS)}, got {output!r}")
        if conditioning not in CONDITIONING:
            raise ValueError(f"decoder.conditioning must be one of {', '.join(CONDITIONING)}, got {conditioning!r}")
        if num_layers < 1:
            raise ValueError(
                f"decoder.num_layers must be at least 1, got {num_layers}; the paper's decoders have 2 or 3"
            )
        self.latent_size, self.horizon, self.action_size = latent_size, horizon, action_size
        self.conditioning, self.output = conditioning, output
        self.latent_in = Linear(latent_size, hidden_size)
        self.belief_in = Linear(belief_size, hidden_size, bias=False) if conditioning == "belief" else None
        self.body = mlp([hidden_size] * num_layers + [horizon * action_size], nn.ELU)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                module.weight.data.mul_(init_scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, z: Tensor, belief: Belief | None = None) -> Tensor:
        """z [B, N, n] latent points, belief [B] (needed when conditioned on it) -> [B, N, H, A] in [-1, 1]."""
        x = self.latent_in(z)
        if self.belief_in is not None:
            if belief is None:
                raise ValueError("a decoder conditioned on the belief needs one: pass belief to ActionDecoder.forward")
            # Once per belief, not once per candidate.
            x = x + self.belief_in(torch.cat([belief.h, belief.s], -1))[:, None]
        raw = self.body(nn.functional.elu(x))
        u = raw.tanh() if self.output == "tanh" else 2 * raw.sigmoid() - 1
        return u.unflatten(-1, (self.horizon, self.action_size))
