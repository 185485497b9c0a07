"""An energy network: E(x, y; theta), low where y fits x (DCEM paper, sections 4.1 and 5.1)."""

from __future__ import annotations

from torch import Tensor, nn

from parsecrl.algorithms.models.layers import mlp


class EnergyNetwork(nn.Module):
    """E(x, y): one energy for each pair of an input and an output (DCEM paper, sections 4.1 and 5.1).

    The units are softplus: smooth, so that the energy has slopes in y. Axes: B inputs, N outputs for each of them, X
    and Y their sizes.

    Args:
        x_size: X, at least 1.
        y_size: Y, at least 1.
        hidden_size: Units of each hidden layer, at least 1; the paper has 128.
        num_layers: Hidden layers, at least 1; the paper has 3.

    Raises:
        ValueError: hidden_size or num_layers is no integer of 1 or more.
    """

    def __init__(self, x_size: int = 1, y_size: int = 1, hidden_size: int = 128, num_layers: int = 3):
        super().__init__()
        for name, value in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"energy.{name} must be an integer of 1 or more, got {value!r}; the paper has 128 and 3"
                )
        self.x_size, self.y_size = x_size, y_size
        self.first = nn.Linear(x_size + y_size, hidden_size)
        # torch's own products, since its compiler takes those too: the minimiser amplifies the rounding of others.
        self.rest = mlp([hidden_size] * num_layers + [1], nn.Softplus, nn.Linear)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Energies [B, N], dimensionless, low where y [B, N, Y] fits x [B, X], both in data units."""
        W_x, W_y = self.first.weight.split([self.x_size, self.y_size], dim=1)
        from_x = nn.functional.linear(x, W_x, self.first.bias)  # [B, hidden], once per input, not once per output
        h = from_x.unsqueeze(1) + nn.functional.linear(y, W_y)  # [B, N, hidden]
        return self.rest(nn.functional.softplus(h)).squeeze(-1)
