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
    """u_{1:H} = f_dec(z): ELU units, and a squashed output that keeps the actions within [-1, 1] (DCEM paper, eq. 8).

    Axes: B beliefs, N candidates, n latent, H horizon, A action. The latent box is [-1, 1]^n.

    Args:
        latent_size: n, at least 1.
        horizon: H, at least 1.
        action_size: A, at least 1.
        hidden_size: Units of each hidden layer.
        num_layers: Hidden layers, at least 1; the paper has 2 or 3.
        init_scale: Multiplies the initial weights; biases start at 0. Too small a scale does not cover the action
            space, and learning to expand is hard (earlier version of the paper, appendix on initialisation).
        conditioning: "none", as in the paper, or "belief" to feed the belief in beside z.
        belief_size: D + S of the belief; needed when conditioned on it.
        output: "tanh", or "sigmoid" stretched to [-1, 1]: a tanh at half the slope, as the paper's cartpole has it.

    Raises:
        ValueError: The conditioning or output is unknown, or there is no hidden layer.
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
        """Decode latent points to action sequences.

        Args:
            z: Latent points [B, N, n] in [-1, 1].
            belief: Beliefs [B]; read only by a decoder that is conditioned on them.

        Returns:
            Actions [B, N, H, A] in [-1, 1].

        Raises:
            ValueError: The decoder is conditioned on the belief, and there is none.
        """
        x = self.latent_in(z)
        if self.belief_in is not None:
            if belief is None:
                raise ValueError("a decoder conditioned on the belief needs one: pass belief to ActionDecoder.forward")
            # Once per belief, not once per candidate.
            x = x + self.belief_in(torch.cat([belief.h, belief.s], -1))[:, None]
        raw = self.body(nn.functional.elu(x))
        u = raw.tanh() if self.output == "tanh" else 2 * raw.sigmoid() - 1
        return u.unflatten(-1, (self.horizon, self.action_size))
