"""The trainable by its own methods, as Tune calls them; no Ray runtime."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parsecrl.algorithms.energy_regression import analysis
from parsecrl.algorithms.energy_regression.checkpoint import load_regression
from parsecrl.algorithms.energy_regression.trainable import EnergyRegression
from parsecrl.algorithms.energy_regression.update import target, training_inputs

KINDS = ("unrolled_gd", "dcem")


def make(kind: str = "dcem", **config: Any) -> EnergyRegression:
    small = {
        "solver": {"kind": kind, "num_iterations": 4, "num_samples": 20, "num_elites": 4},
        "energy": {"hidden_size": 16, "num_layers": 2},
        "num_points": 12,
        "updates_per_step": 10,  # ends between two points: three updates each
    }
    return EnergyRegression(small | config)


def state(trainable: EnergyRegression) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainable.energy.state_dict().items()}


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("update_ms",)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_trial_goes_on_as_if_nothing_had_happened(kind: str, tmp_path: Path):
    through = make(kind)
    through.step()
    through.save_checkpoint(str(tmp_path))
    after = [without_time(through.step()) for _ in range(2)]
    resumed = make(kind)
    resumed.load_checkpoint(str(tmp_path))
    assert [without_time(resumed.step()) for _ in range(2)] == after
    assert resumed.curve == through.curve
    for name, value in state(resumed).items():
        assert torch.equal(value, state(through)[name]), name


def test_a_checkpoint_before_the_first_update_is_one_too(tmp_path: Path):
    first = make()
    first.save_checkpoint(str(tmp_path))
    other = make(run_seed=5)
    other.load_checkpoint(str(tmp_path))
    assert other.num_updates == 0
    assert all(torch.equal(v, state(first)[n]) for n, v in state(other).items())


def test_results_are_what_they_say():
    trainable = make("unrolled_gd")
    result = trainable.step()
    assert result["num_updates"] == 10
    assert result["score"] == -result["test_loss"]
    x = training_inputs(12)
    y = trainable.solver.predict(trainable.energy, x, 1, trainable.solver.draw_noise(12))
    assert result["train_loss"] == pytest.approx((y - target(x)).square().mean().item(), rel=1e-5)
    assert trainable.evaluate() == (result["train_loss"], result["test_loss"])


def test_seeds_are_different_trials_and_the_same_seed_the_same_trial():
    results = [without_time(make(**seeds).step()) for seeds in ({"seed": 0}, {"seed": 0}, {"seed": 1}, {"run_seed": 1})]
    assert results[0] == results[1]
    assert len({r["test_loss"] for r in results}) == 3


def test_a_new_point_is_drawn_after_every_third_update():
    trainable = make("unrolled_gd", updates_per_step=1)
    drawn = []
    for _ in range(60):
        trainable.step()
        drawn.append(int(trainable.points))
    assert all(len(set(drawn[i : i + 3])) == 1 for i in range(0, 60, 3))
    assert len(set(drawn)) > 5


def test_a_loss_that_is_not_finite_ends_the_trial():
    trainable = make("unrolled_gd")
    trainable.learner.update = lambda *tensors: torch.tensor(math.nan)
    with pytest.raises(FloatingPointError, match="training loss is nan within the 10 updates up to 10"):
        trainable.step()


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"num_points": 1}, "num_points must be greater than or equal to 2, got 1"),
        ({"updates_per_point": 0}, "updates_per_point must be greater than or equal to 1, got 0"),
        ({"lr": 0.0}, "lr must be greater than 0, got 0.0"),
        ({"solver": {"kind": "adam"}}, "solver.kind must be 'unrolled_gd' or 'dcem', got 'adam'"),
        ({"energy": {"hidden_size": 0}}, "energy.hidden_size must be greater than or equal to 1, got 0"),
    ],
)
def test_bad_settings_are_named(config: dict[str, Any], rule: str):
    with pytest.raises(ValueError, match=rule):
        make(**config)


def test_an_energy_of_ones_own_that_is_wrong_is_named_at_once():
    with pytest.raises(ValueError, match=r"the energy Flat must map .* shape \(25, 100\), .* got shape \(25, 100, 1\)"):
        EnergyRegression({"energy": {"kind": f"{__name__}:Flat"}})
    with pytest.raises(ValueError, match=r"energy\.kind must be one of mlp, or module:function, got 'deep'"):
        EnergyRegression({"energy": {"kind": "deep"}})
    with pytest.raises(ValueError, match=r"energy\.kind 'math:tau2' cannot be imported .*PYTHONPATH"):
        EnergyRegression({"energy": {"kind": "math:tau2"}})
    with pytest.raises(ValueError, match=r"'math:pi' is of type float"):
        EnergyRegression({"energy": {"kind": "math:pi"}})


class Flat(torch.nn.Module):
    def __init__(self, **sizes: int):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.w * y


class Parabola(Flat):
    """(y - w x)^2."""

    def __init__(self, hidden_size: int, **sizes: int):
        super().__init__()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y - self.w * x.unsqueeze(1)).square().squeeze(-1)


def test_an_energy_of_ones_own_is_trained_kept_and_analysed(tmp_path: Path):
    trainable = make("unrolled_gd", energy={"kind": f"{__name__}:Parabola", "hidden_size": 3})
    before = trainable.energy.w.item()
    trainable.step()
    assert trainable.energy.w.item() != before
    trainable.save_checkpoint(str(tmp_path))
    energy, _, _ = load_regression(tmp_path)
    assert isinstance(energy, Parabola)
    assert energy.w.item() == trainable.energy.w.item()
    assert set(analysis.analyse(tmp_path, max_steps=3))


def test_damaged_checkpoints_are_named(tmp_path: Path):
    trainable = make()
    with pytest.raises(ValueError, match=r"holds no readable regression\.json"):
        trainable.load_checkpoint(str(tmp_path))
    trainable.save_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="another size"):
        make(energy={"hidden_size": 8}).load_checkpoint(str(tmp_path))
    tensors = tmp_path / "regression.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(ValueError, match="missing or damaged"):
        trainable.load_checkpoint(str(tmp_path))
    description = json.loads((tmp_path / "regression.json").read_text())
    (tmp_path / "regression.json").write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(ValueError, match="has format 9"):
        load_regression(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_of_a_checkpoint(kind: str, tmp_path: Path):
    trainable = make(kind, seed=3)
    for _ in range(2):
        trainable.step()
    trainable.save_checkpoint(str(tmp_path))
    tables = analysis.analyse(tmp_path, max_steps=7)
    assert all((t["method"] == kind).all() and (t["seed"] == 3).all() for t in tables.values())
    assert tables["convergence"]["num_updates"].tolist() == [10, 20]
    assert tables["convergence"]["test_loss"].tolist() == [p["test_loss"] for p in trainable.curve]
    assert tables["steps"]["num_steps"].tolist() == list(range(1, 8))
    if kind == "unrolled_gd":  # dcem draws other noise here than in training
        at_four = tables["steps"]["test_loss"][3]
        assert at_four == pytest.approx(trainable.curve[-1]["test_loss"], rel=1e-4)
    shown = tables["predictions"]
    assert sorted(shown["num_steps"].unique()) == [1, 2, 5]
    np.testing.assert_allclose(shown["target"], shown["x"] * np.sin(shown["x"]), atol=1e-5)
    surface = tables["surface"].pivot(index="x", columns="y", values="normalized").to_numpy()
    assert (surface.min(1) == 0).all()
    assert (surface.max(1) == 1).all()
    assert tables["surface"]["log"].between(-3.001, 0.001).all()


def test_a_surface_is_normalised_over_y_for_each_x():
    def energy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 100 * x + (1 + x) * (y.squeeze(-1) - x).square()

    x, y = torch.tensor([[0.0], [1.0]]), torch.linspace(-1, 3, 5)
    _, normalized, log = analysis.energy_surface(energy, x, y)
    np.testing.assert_allclose(normalized[0], [1 / 9, 0, 1 / 9, 4 / 9, 1], atol=1e-6)
    np.testing.assert_allclose(normalized[1], [1, 0.25, 0, 0.25, 1], atol=1e-6)
    np.testing.assert_allclose(log, np.log10(1e-3 + normalized))


@pytest.mark.learn
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind: str):
    """A small energy, a few hundred batched updates: the error falls well below that of the best constant."""
    settings = {"kind": kind, "num_samples": 30, "num_elites": 5}
    trainable = make(
        kind, solver=settings, energy={"hidden_size": 32}, points_per_update=12, updates_per_step=150, lr=5e-3
    )
    before = trainable.evaluate()[0]
    losses = [trainable.step()["train_loss"] for _ in range(2)]
    y = target(training_inputs(12))
    constant = (y - y.mean()).square().mean().item()
    assert losses[-1] < 0.5 * constant < before
