import pytest
import torch
from torch import nn

from parsecrl.algorithms.models import matrix_products
from parsecrl.algorithms.models.matrix_products import Linear, LinearOfVaryingRows, linear


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (1, 5), (0, 5)])
@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torchs_own_with_first_and_second_derivatives(shape, width, bias):
    x = torch.randn(shape, generator=seeded(0)).requires_grad_()
    weight = torch.randn(width, 5, generator=seeded(1)).requires_grad_()
    b = torch.randn(width, generator=seeded(2)).requires_grad_() if bias else None
    found = []
    for f in (linear, nn.functional.linear):
        out = f(x, weight, b)
        inputs = [t for t in (x, weight, b) if t is not None]
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, weight])
        found.append((out, *first, *second))
    for ours, theirs in zip(*found, strict=True):
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("expanded", [True, False])
def test_equals_torchs_own_on_the_way_back_alone(transposed: bool, expanded: bool):
    shape = (16, 7) if transposed else (7, 16)
    whole = torch.randn(shape, generator=seeded(0)).requires_grad_()
    weight = torch.randn(24, 16, generator=seeded(1)).requires_grad_()
    bias = torch.randn(24, generator=seeded(2)).requires_grad_()
    grad = torch.tensor(2.0).expand(7, 24) if expanded else torch.randn(7, 24, generator=seeded(3))
    x = whole.t() if transposed else whole
    ours, theirs = (
        torch.autograd.grad(f(x, weight, bias), (whole, weight, bias), grad) for f in (linear, nn.functional.linear)
    )
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_the_other_rows_nor_on_whether_a_gradient_is_asked_for():
    x, weight = torch.randn(500, 236, generator=seeded(0))[:, :200], torch.randn(200, 200, generator=seeded(1))
    whole = linear(x, weight.requires_grad_())
    with torch.no_grad():
        assert torch.equal(linear(x, weight), whole)
        assert torch.equal(linear(x[100:137], weight), whole[100:137])


@pytest.mark.parametrize(
    ("vectors", "inputs", "outputs", "own"),
    [(True, 300, 600, True), (True, 300, 20, False), (True, 20, 600, False), (False, 300, 600, False)],
)
def test_where_rows_vary_training_narrow_layers_or_on_narrow_vectors_is_torchs_own(
    vectors: bool, inputs: int, outputs: int, own: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(matrix_products, "WIDE", vectors)
    layer, x = LinearOfVaryingRows(inputs, outputs), torch.randn(77, inputs, generator=seeded(0))
    ours, theirs = linear(x, layer.weight, layer.bias), nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), ours if own else theirs)
    with torch.no_grad():
        assert torch.equal(layer(x), ours)


def test_frozen_parameters_get_no_gradient():
    layer = Linear(5, 16)
    layer.weight.requires_grad_(False)
    layer(torch.randn(3, 5)).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((16,), 3.0))


def test_torchs_own_where_the_product_is_missing(monkeypatch: pytest.MonkeyPatch):
    layer, x = Linear(5, 16), torch.randn(3, 5)
    fast = layer(x)
    monkeypatch.setattr(matrix_products, "ONEDNN", False)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), fast)
    torch.testing.assert_close(layer.double()(x.double()).float(), fast)
