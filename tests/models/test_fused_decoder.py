import pytest
import torch

from parsecrl.algorithms.models import ActionDecoder, matrix_products
from parsecrl.algorithms.models.fused_decoder import FusedDecoder


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(**options) -> FusedDecoder:
    torch.manual_seed(0)
    return FusedDecoder(3, 6, 2, hidden_size=32, num_layers=3, output="sigmoid", **options)


def test_same_numbers_and_gradients_as_the_decoder_that_it_fuses():
    net, z = make(), (2 * torch.rand(4, 50, 3, generator=seeded(0)) - 1).requires_grad_()
    for bias in (layer.bias for layer in net.modules() if isinstance(layer, torch.nn.Linear)):
        torch.nn.init.normal_(bias)
    weight = torch.randn(4, 50, 6, 2, generator=seeded(1))
    both = []
    for forward in (net, lambda z: ActionDecoder.forward(net, z)):
        u = forward(z)
        both.append((u.detach(), *torch.autograd.grad(u, [z, *net.parameters()], weight)))
    if matrix_products.ONEDNN:
        assert type(net(z).grad_fn.next_functions[0][0]).__name__ == "_DecodeBackward"
    for a, b in zip(*both, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_frozen_layers_get_no_gradient():
    net, z = make(), torch.rand(1, 5, 3)
    net.latent_in.requires_grad_(False)
    net(z).sum().backward()
    assert net.latent_in.weight.grad is None
    assert all((p.grad != 0).any() for p in net.body.parameters())


def test_plain_where_the_product_is_missing(monkeypatch: pytest.MonkeyPatch):
    net, z = make(), torch.rand(2, 5, 3)
    fused = net(z)
    monkeypatch.setattr(matrix_products, "ONEDNN", False)
    torch.testing.assert_close(net(z), fused)
    torch.testing.assert_close(net.double()(z.double()).float(), fused)
