import functools
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.energy_regression.update import InnerSolver, Learner, held_out_inputs, target, training_inputs
from parsecrl.algorithms.models import EnergyNetwork

KINDS = ("unrolled_gd", "dcem")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_energy(dtype: torch.dtype = torch.float64) -> EnergyNetwork:
    torch.manual_seed(0)
    return EnergyNetwork(hidden_size=8, num_layers=2).to(dtype)


class Bowl(torch.nn.Module):
    """(y - a x - b)^2: its minimiser is a x + b."""

    def __init__(self, a: float = 0.5, b: float = -0.2):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (a, b))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (y - self.a * x.unsqueeze(1) - self.b).square().sum(-1)


def test_the_data():
    x = training_inputs(100)
    assert x.shape == (100, 1)
    assert x[0] == 0
    assert x[-1].item() == pytest.approx(2 * math.pi)
    assert torch.allclose(x.diff(dim=0), x[1:2])
    assert target(torch.tensor([[math.pi / 2]])).item() == pytest.approx(math.pi / 2)
    between = held_out_inputs(100)
    assert between.shape == (99, 1)
    assert (between > x[:-1]).all()
    assert (between < x[1:]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_quadratic_energys_minimiser_is_the_prediction(kind: str):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(-1)
    solver = InnerSolver(kind=kind, num_iterations=40, learning_rate=0.2)
    noise = solver.draw_noise(len(x), 1, seeded(0)).double()
    assert (solver.predict(Bowl(), x, 1, noise) - (0.5 * x - 0.2)).abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_unrolled_solution_against_finite_differences(kind: str):
    """With respect to the energy's parameters, the noise held fixed."""
    energy = make_energy()
    solver = InnerSolver(kind=kind, num_iterations=4, num_samples=20, num_elites=4)
    x = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    noise = solver.draw_noise(2, 1, seeded(0)).double()
    names, values = zip(*energy.named_parameters(), strict=True)

    def solution(*parameters: Tensor) -> Tensor:
        weights = dict(zip(names, parameters, strict=True))
        return solver.predict(lambda x, y: torch.func.functional_call(energy, weights, (x, y)), x, 1, noise)

    assert torch.autograd.gradcheck(solution, values, eps=1e-6, atol=1e-6, rtol=1e-4)
    grads = torch.autograd.grad(solution(*values).sum(), values[:-1])  # a constant, the last bias, moves no minimiser
    assert all((g != 0).any() for g in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_inputs_never_influence_each_other(kind: str):
    energy, solver = make_energy(), InnerSolver(kind=kind, num_samples=20, num_elites=4)
    x = torch.linspace(0, 6, 5, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    noise = solver.draw_noise(5, 1, seeded(0)).double()
    together = solver.predict(energy, x, 1, noise)
    for b in range(5):
        own = noise[:, b : b + 1]
        torch.testing.assert_close(solver.predict(energy, x[b : b + 1], 1, own), together[b : b + 1])
    (g,) = torch.autograd.grad(together[2].sum(), x)
    assert (g[[0, 1, 3, 4]] == 0).all()
    assert g[2] != 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_search_begins_as_a_shorter_one(kind: str):
    energy, solver = make_energy(), InnerSolver(kind=kind, num_samples=20, num_elites=4)
    x = training_inputs(6).double()
    noise = solver.draw_noise(6, 1, seeded(0), 12).double()
    path = solver.iterates(energy, x, 1, noise, 12)
    assert path.shape == (13, 6, 1)
    assert (path[0] == 0).all()
    for steps in (1, 5, 12):
        torch.testing.assert_close(path[steps], solver.predict(energy, x, 1, noise[:steps], steps))


def test_the_compiled_update_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch):
    """Captured as one graph, forward and backward; the benchmarks hold the code that is made from it to the same."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    x, y = training_inputs(3), target(training_inputs(3))
    learners = [
        Learner(make_energy(torch.float32), InnerSolver(num_samples=20, num_elites=4), compile=c) for c in (False, True)
    ]
    assert learners[1].iteration is not None
    for step in range(3):
        noise = learners[0].solver.draw_noise(3, 1, seeded(step))
        eager, compiled = (learner.update(x, y, noise) for learner in learners)
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(learner.energy.parameters() for learner in learners), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_adams_step_on_the_clipped_gradient(kind: str):
    learner = Learner(make_energy(), InnerSolver(kind=kind, num_samples=20, num_elites=4), lr=1e-2)
    x = training_inputs(3).double()
    noise = learner.solver.draw_noise(3, 1, seeded(0)).double()
    before = [p.detach().clone() for p in learner.energy.parameters()]
    grads = torch.autograd.grad(learner.loss(x, target(x), noise), list(learner.energy.parameters()), allow_unused=True)
    norm = torch.stack([g.square().sum() for g in grads if g is not None]).sum().sqrt()
    learner.max_grad_norm = norm.item() / 2
    loss = learner.update(x, target(x), noise)
    prediction = learner.solver.predict(make_energy(), x, 1, noise)
    torch.testing.assert_close(loss, (prediction - target(x)).square().mean())
    for p, old, g in zip(learner.energy.parameters(), before, grads, strict=True):
        if g is not None:
            g = g / 2
            torch.testing.assert_close(p.detach(), old - 1e-2 * g / (g.abs() + 1e-8), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("energy", "rule"),
    [
        (lambda x, y: y.square(), r"shape \(3, {N}\), one energy for each y, got shape \(3, {N}, 1\)"),
        (lambda x, y: None, r"shape \(3, {N}\), one energy for each y, got NoneType"),
        (lambda x, y: (y.sum(-1) - 100).sqrt(), r"shape \(3, {N}\) without NaN, got {M} NaN of {M}"),
    ],
)
def test_a_wrong_energy_is_named_with_the_shape_it_should_have(kind: str, energy, rule: str):
    solver = InnerSolver(kind=kind, num_samples=20)
    energy.__name__ = "my_energy"
    N = 20 if kind == "dcem" else 1
    rule = rule.replace("{N}", str(N)).replace("{M}", str(3 * N))
    with pytest.raises(ValueError, match=r"the energy my_energy must map x \(3, 1\) and y .* " + rule):
        solver.predict(energy, training_inputs(3), 1, solver.draw_noise(3, 1, seeded(0)))


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="kind must be 'unrolled_gd' or 'dcem', got 'newton'"):
        InnerSolver(kind="newton")
    with pytest.raises(ValueError, match=r"temperature must be greater than 0, got 0\.0"):
        InnerSolver(temperature=0.0)
    with pytest.raises(ValueError, match="steps is not a known key"):
        InnerSolver(steps=3)


@pytest.mark.parametrize("module", ["update", "checkpoint", "analysis"])
def test_the_math_needs_no_ray(module: str):
    code = f"import sys; sys.modules['ray'] = None; import parsecrl.algorithms.energy_regression.{module}"
    subprocess.run([sys.executable, "-c", code], check=True)
