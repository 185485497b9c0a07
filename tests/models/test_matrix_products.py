from collections.abc import Iterator

import pytest
import torch
from torch import nn

from parsecrl.algorithms.models import RSSM, Belief, matrix_products
from parsecrl.algorithms.models.matrix_products import (
    PROBES,
    Linear,
    LinearOfVaryingRows,
    ProductChoice,
    choice,
    describe,
    linear,
    takes_onednn,
    use,
)

TORCH, ONEDNN = (False,) * len(PROBES), (True,) * len(PROBES)


@pytest.fixture(autouse=True)
def _choice() -> Iterator[None]:
    use(ONEDNN)
    yield
    use(None)


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


@pytest.mark.parametrize(("inputs", "outputs", "own"), [(300, 600, True), (300, 20, False), (20, 600, False)])
def test_where_rows_vary_training_narrow_layers_is_torchs_own(inputs: int, outputs: int, own: bool):
    layer, x = LinearOfVaryingRows(inputs, outputs), torch.randn(77, inputs, generator=seeded(0))
    onednn, torchs = linear(x, layer.weight, layer.bias), nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), onednn if own else torchs)
    with torch.no_grad():
        assert torch.equal(layer(x), onednn)


def test_frozen_parameters_get_no_gradient():
    layer = Linear(5, 16)
    layer.weight.requires_grad_(False)
    layer(torch.randn(3, 5)).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((16,), 3.0))


def test_torchs_own_where_the_choice_is_torch_and_for_other_types():
    layer, x = Linear(5, 16), torch.randn(3, 5)
    fast = layer(x)
    use(TORCH)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), fast)
    torch.testing.assert_close(layer.double()(x.double()).float(), fast)


@pytest.mark.parametrize("name", PROBES)
def test_each_class_of_shapes_has_its_own_choice(name: str):
    rows, n, m = PROBES[name]
    x, weight = torch.randn(rows, n, generator=seeded(0)), torch.randn(m, n, generator=seeded(1))
    for other in PROBES:
        use(tuple(other == each for each in PROBES))
        assert takes_onednn(x, weight) == (other == name)
        torch.testing.assert_close(linear(x, weight), x @ weight.t(), rtol=1e-4, atol=1e-4)


def test_choices_predict_the_same_rewards_to_rounding_with_gradients():
    torch.manual_seed(0)
    model = RSSM(17, 6)
    belief = Belief(torch.randn(2, 200, generator=seeded(1)).tanh(), torch.randn(2, 30, generator=seeded(2)))
    actions = (2 * torch.rand(2, 70, 12, 6, generator=seeded(3)) - 1).requires_grad_()
    found = []
    for chosen in (TORCH, ONEDNN):
        use(chosen)
        rewards = model.predict_rewards(belief, actions)
        found.append((rewards, *torch.autograd.grad(rewards.sum(), [actions, *model.transition_parameters()])))
        with torch.no_grad():
            torch.testing.assert_close(model.predict_rewards(belief, actions), rewards)
    for torchs, onednn in zip(*found, strict=True):
        torch.testing.assert_close(torchs, onednn, rtol=1e-4, atol=1e-5 * float(torchs.detach().abs().max()))


@pytest.mark.parametrize("gain", [1.29, 1.31])
def test_a_process_measures_once_and_takes_what_gains(gain: float, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def probe() -> tuple[float, ...]:
        calls.append(1)
        return (0.5, 1.0, 1.2, gain)

    monkeypatch.delenv("PARSEC_PRODUCTS", raising=False)
    monkeypatch.setattr(matrix_products, "probe", probe)
    use(None)
    layer = Linear(200, 200)
    for rows in (1, 300, 7):
        layer(torch.zeros(rows, 200))
    assert choice() == (False, False, False, gain > 1.3)
    assert len(calls) == 1
    assert ("oneDNN for many rows, wide (measured" if gain > 1.3 else "torch (measured") in describe()
    assert f"{gain} for many rows, wide" in describe()


def test_the_probe_measures_every_class_on_one_thread(monkeypatch: pytest.MonkeyPatch):
    threads, product = [], matrix_products.product

    def watched(*args: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return product(*args)

    monkeypatch.setattr(matrix_products, "product", watched)
    before = torch.get_num_threads()
    gains = matrix_products.probe()
    assert len(gains) == len(PROBES)
    assert all(gain > 0 for gain in gains)
    assert set(threads) == {1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("value", "expected"), [("torch", TORCH), ("onednn", ONEDNN)])
def test_the_environment_fixes_the_choice(
    value: str, expected: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch, no_probe: None
):
    monkeypatch.setenv("PARSEC_PRODUCTS", value)
    use(None)
    assert choice() == expected
    assert describe() == f"{'torch' if value == 'torch' else 'oneDNN'} (fixed by PARSEC_PRODUCTS)"


def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARSEC_PRODUCTS", "mkl")
    use(None)
    with pytest.raises(ValueError, match="PARSEC_PRODUCTS must be torch, onednn or measure, got 'mkl'; set one"):
        choice()


def test_where_torch_lacks_onednn_the_probe_says_torch_and_a_choice_of_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matrix_products, "ONEDNN", False)
    assert not any(matrix_products.probe())
    with pytest.raises(ValueError, match=r"products are to be oneDNN's \(test\), which torch .* lacks here; set"):
        use(ONEDNN, "test")


def test_the_choice_travels_with_the_weights_and_is_taken_before_the_variables(
    monkeypatch: pytest.MonkeyPatch, no_probe: None
):
    module = nn.ModuleDict({"layer": Linear(16, 16), "products": ProductChoice()})
    mixed = (False, True, False, True)
    use(mixed)
    state = module.state_dict()
    monkeypatch.setenv("PARSEC_PRODUCTS", "torch")
    use(None)  # another process
    assert choice() == TORCH
    module.load_state_dict(state)
    assert choice() == mixed
    assert "came with the weights" in describe()


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[float, ...]:
        raise AssertionError("measured")

    monkeypatch.setattr(matrix_products, "probe", refuse)
