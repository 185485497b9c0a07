"""What a trained energy regression shows (DCEM paper, figures 2, 6 and 7), as tables. Torch alone.

Every table has the columns method and seed, so that those of several trials can be put below each other.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from parsecrl.algorithms.energy_regression.checkpoint import load_regression
from parsecrl.algorithms.energy_regression.update import Energy, InnerSolver, held_out_inputs, target, training_inputs
from parsecrl.algorithms.reporting.study_report import Tables, tables_of_trials
from parsecrl.algorithms.training.seeding import derive_seed

MAX_STEPS = 50
SHOWN_STEPS = (1, 2, 5, 10, 15, 20, 50)
Y_RANGE = (-7.0, 5.0)  # the target lies in [-4.82, 1.82]
# Normalised energies below this, of 1, are drawn alike: the logarithm would show rounding.
FLOOR = 1e-3
CHUNK = 25


def analyse(checkpoint: Any, max_steps: int = MAX_STEPS) -> Tables:
    """The tables of one checkpoint.

    training: num_steps, the inner steps that it was trained with
    convergence: num_updates, loss, train_loss, test_loss (figure 6, left)
    steps: num_steps, test_loss with that many inner steps, from 1 to max_steps (figure 6, right)
    predictions: num_steps, x, y, target (figure 7)
    surface: x, y, energy, normalized, log (figure 2; see `energy_surface`)

    Args:
        checkpoint: Its folder.
        max_steps: Inner steps at test time, at least 1.

    Returns:
        The tables by name, each with method and seed as its first columns.
    """
    energy, solver, description = load_regression(checkpoint)
    seed = description["seed"]
    test, training = held_out_inputs(description["num_points"]), training_inputs(description["num_points"])
    errors = (predictions_by_steps(energy, solver, test, max_steps, seed) - target(test)).square()
    steps = pd.DataFrame({"num_steps": range(1, max_steps + 1), "test_loss": errors.mean((1, 2)).tolist()})
    predicted = predictions_by_steps(energy, solver, training, max_steps, seed)
    shown = [steps for steps in SHOWN_STEPS if steps <= max_steps]
    predictions = pd.concat(
        pd.DataFrame(
            {
                "num_steps": steps,
                "x": training.flatten().tolist(),
                "y": predicted[steps - 1].flatten().tolist(),
                "target": target(training).flatten().tolist(),
            }
        )
        for steps in shown
    )
    tables = {
        "training": pd.DataFrame({"num_steps": [solver.num_iterations]}),
        "convergence": pd.DataFrame(description["curve"]),
        "steps": steps,
        "predictions": predictions,
        "surface": surface_table(energy),
    }
    return {name: _named(table, solver.kind, seed) for name, table in tables.items()}


# The tables of several checkpoints, each below the other.
analyse_all = partial(tables_of_trials, analyse, ("solver.kind", "seed"), column="method")


@torch.no_grad()
def predictions_by_steps(energy: Energy, solver: InnerSolver, x: Tensor, max_steps: int, seed: int = 0) -> Tensor:
    """Predict with the minimiser stopped after 1, 2, ... max_steps steps.

    One search of max_steps serves all: its first steps are those of a shorter one.

    Args:
        energy: What is minimised.
        solver: What it is minimised by.
        x: Inputs [B, 1].
        max_steps: At least 1.
        seed: Of the solver's noise.

    Returns:
        [max_steps, B, 1].
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "energy_regression analysis"))
    paths = []
    for part in x.split(CHUNK):
        noise = solver.draw_noise(len(part), 1, generator, max_steps)
        paths.append(solver.iterates(energy, part, 1, noise, max_steps)[1:])
    return torch.cat(paths, dim=1)


@torch.no_grad()
def energy_surface(energy: Energy, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rate a grid of inputs and outputs (figure 2).

    Each x is normalised by itself. What is added to all energies of one x changes no prediction, and would hide where
    the minima lie.

    Args:
        energy: What rates.
        x: Inputs [B, 1].
        y: Outputs [N].

    Returns:
        Three arrays [B, N]: the energies; the normalised ones, each x's lowest at 0 and its highest at 1; and log10 of
        FLOOR + normalised.
    """
    energies = energy(x, y[None, :, None].expand(len(x), -1, -1)).double().numpy()
    low, high = energies.min(1, keepdims=True), energies.max(1, keepdims=True)
    normalized = (energies - low) / np.where(high > low, high - low, 1.0)
    return energies, normalized, np.log10(FLOOR + normalized)


def surface_table(energy: Energy, num_x: int = 80, num_y: int = 81) -> pd.DataFrame:
    """`energy_surface` over the range of the data, as a table.

    Args:
        energy: What rates.
        num_x: Points in x.
        num_y: Points in y.

    Returns:
        Columns x, y, energy, normalized, log.
    """
    x, y = training_inputs(num_x), torch.linspace(*Y_RANGE, num_y)
    energies, normalized, log = energy_surface(energy, x, y)
    return pd.DataFrame(
        {
            "x": np.repeat(x.flatten().numpy().astype(float), num_y).round(5),
            "y": np.tile(y.numpy().astype(float), num_x).round(5),
            "energy": energies.flatten().round(6),
            "normalized": normalized.flatten().round(6),
            "log": log.flatten().round(5),
        }
    )


def _named(table: pd.DataFrame, solver: str, seed: int) -> pd.DataFrame:
    table.insert(0, "method", solver)
    table.insert(1, "seed", seed)
    return table
