from pathlib import Path

import pytest
import torch
from torch import nn

from parsecrl.algorithms.models import matrix_products
from parsecrl.algorithms.models.matrix_products import (
    Linear,
    LinearOfVaryingRows,
    in_bfloat16,
    linear,
    multiplies_bfloat16,
)


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


def test_in_bfloat16_the_factors_of_wide_products_are_rounded_forwards_and_backwards():
    layer, x = Linear(300, 256), torch.randn(2, 5, 300, generator=seeded(0)).requires_grad_()
    nn.init.normal_(layer.bias)
    grad = torch.randn(2, 5, 256, generator=seeded(1))
    with in_bfloat16():
        out = layer(x)
    out.backward(grad)  # outside, as a learner's
    rounded_x, rounded_w, rounded_grad = (t.detach().bfloat16().double() for t in (x, layer.weight, grad))
    for found, exact in (
        (out, rounded_x @ rounded_w.t() + layer.bias.double()),
        (x.grad, rounded_grad @ rounded_w),
        (layer.weight.grad, rounded_grad.flatten(0, 1).t() @ rounded_x.flatten(0, 1)),
        (layer.bias.grad, grad.double().sum((0, 1))),
    ):
        assert found.dtype == torch.float32
        rounding = 2**-8 * float(exact.detach().abs().max())  # sums are rounded, too
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=rounding)
    assert not torch.allclose(out, layer(x), rtol=1e-4, atol=1e-4)
    with torch.no_grad(), in_bfloat16():
        assert torch.equal(layer(x), out)


@pytest.mark.parametrize("onednn", [True, False])
def test_of_gradients_alone_values_are_not_rounded(onednn: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matrix_products, "ONEDNN", onednn and matrix_products.ONEDNN)
    layer, narrow, x = Linear(300, 256), Linear(300, 20), torch.randn(5, 300, generator=seeded(0)).requires_grad_()

    def found(layer: Linear, enabled: bool) -> tuple[torch.Tensor, ...]:
        with in_bfloat16(enabled, gradients_only=True):
            out = layer(x)
        return out, *torch.autograd.grad(out.square().sum(), [x, layer.weight, layer.bias])  # outside, as a learner's

    out, of_x, of_weight, of_bias = found(layer, True)
    exact_out, exact_of_x, exact_of_weight, exact_of_bias = found(layer, False)
    assert torch.equal(out, exact_out)
    assert torch.equal(of_bias, exact_of_bias)
    for rounded, exact in ((of_x, exact_of_x), (of_weight, exact_of_weight)):
        assert not torch.allclose(rounded, exact, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rounded, exact, rtol=0, atol=2**-7 * float(exact.abs().max()))
    for rounded, exact in zip(found(narrow, True), found(narrow, False), strict=True):
        assert torch.equal(rounded, exact)

    def second(enabled: bool) -> torch.Tensor:
        with in_bfloat16(enabled, gradients_only=True):
            (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), layer.weight)[0]

    torch.testing.assert_close(second(True), second(False), rtol=0, atol=2**-6 * float(second(False).abs().max()))


def test_narrow_products_and_those_outside_are_not_rounded():
    x, narrow, wide = torch.randn(5, 300, generator=seeded(0)), Linear(300, 20), Linear(300, 256)
    exact = narrow(x), wide(x)
    with in_bfloat16():
        assert torch.equal(narrow(x), exact[0])
        with in_bfloat16(False):
            assert torch.equal(wide(x), exact[1])
        assert not torch.equal(wide(x), exact[1])
    assert torch.equal(wide(x), exact[1])


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="not Linux")
def test_what_multiplies_bfloat16_is_what_the_processor_says():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert multiplies_bfloat16(torch.device("cpu")) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    assert not multiplies_bfloat16(torch.device("meta"))
