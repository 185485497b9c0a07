import pytest
import torch

from parsecrl.algorithms.models import EnergyNetwork


def test_an_energy_is_that_of_its_pair_alone():
    torch.manual_seed(0)
    network = EnergyNetwork(2, 3, hidden_size=16).double()
    x, y = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 5, 3, dtype=torch.float64)
    energies = network(x, y)
    assert energies.shape == (4, 5)
    layers = [network.first, *network.rest]
    for b in range(4):
        for n in range(5):
            h = torch.cat([x[b], y[b, n]])  # as one layer reads the pair
            h = torch.nn.functional.softplus(layers[0](h))
            for layer in layers[1:]:
                h = layer(h)
            torch.testing.assert_close(energies[b, n], h.squeeze(), rtol=1e-12, atol=1e-12)


def test_the_papers_sizes():
    network = EnergyNetwork()
    sizes = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(128, 2), (128, 128), (128, 128), (1, 128)]


@pytest.mark.parametrize("name", ["hidden_size", "num_layers"])
def test_sizes_below_one_are_refused(name: str):
    with pytest.raises(ValueError, match=rf"energy.{name} must be an integer of 1 or more, got 0"):
        EnergyNetwork(**{name: 0})
