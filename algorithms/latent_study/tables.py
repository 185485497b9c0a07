"""Measures of one trained model as tables, which those of other trials are put below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from parsecrl.algorithms.latent_study.map_measures import MapMeasures
from parsecrl.algorithms.latent_study.measures import latent_map, prediction_errors, transformations_used
from parsecrl.algorithms.latent_study.worlds import World
from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.reporting.study_report import Tables

MAP_COLUMNS = ("episodes", "neighbour_ratio", "correlation", "mode_rows", "mode_columns", "mode_share")
ACTIONS = ("LEFT", "RIGHT", "UP", "DOWN", "STAY")


def model_tables(model: LatentDynamics, world: World, visited: np.ndarray, seed: int = 0) -> Tables:
    """Measure a trained model.

    Args:
        model: What was trained.
        world: Where.
        visited: How often each action was taken in each cell, [S, A].
        seed: Of the walks.

    Returns:
        Tables by name; what a model lacks has no rows. "latents": state, row, column, pc_1 and explained_1 (the same in
        every row), and so on for all components of `latent_map`. "edges": state, neighbour (numbers of cells one move
        apart). "transformations": action, count, cells (how many transformations it could be). "predictions": first
        ("new" or "visited"), step, relative, hits, walks (see `PredictionErrors`).
    """
    found = latent_map(model, world)
    latents = pd.DataFrame(
        {"state": np.arange(len(world.cells)), "row": world.cells[:, 0], "column": world.cells[:, 1]}
    )
    for i, share in enumerate(found.explained):
        latents[[f"pc_{i + 1}", f"explained_{i + 1}"]] = np.column_stack(
            np.broadcast_arrays(found.positions[:, i], share)
        )
    counts = transformations_used(model, world)
    transformations = pd.DataFrame({"action": ACTIONS[: len(counts)], "count": counts, "cells": len(world.cells)})
    return {
        "latents": latents,
        "edges": pd.DataFrame(world.neighbours, columns=["state", "neighbour"]),
        "transformations": transformations.dropna(),
        "predictions": prediction_table(model, world, visited, seed),
    }


def prediction_table(
    model: LatentDynamics, world: World, visited: np.ndarray, seed: int = 0, steps: int = 5
) -> pd.DataFrame:
    """The predictions table of `model_tables`, without rows for what cannot be predicted or was not found.

    Args:
        model: What was trained.
        world: Where, with S cells.
        visited: How often each action was taken in each cell, [S, A].
        seed: Of the walks.
        steps: Of a walk, at least 1.

    Returns:
        Columns first, step, relative, hits, walks.
    """
    rows = []
    for first in ("new", "visited") if model.predicts else ():
        found = prediction_errors(model, world, visited, first == "new", steps, seed=seed)
        for k in range(steps):
            if found.walks[k]:
                rows.append((first, k + 1, found.relative[k], found.hits[k], int(found.walks[k])))
    return pd.DataFrame(rows, columns=["first", "step", "relative", "hits", "walks"])


def map_row(found: MapMeasures) -> dict[str, Any]:
    """Measures of a map as a row that JSON takes: what is missing is left out.

    Args:
        found: The measures.

    Returns:
        Values by the names of MAP_COLUMNS, episodes aside.
    """
    row: dict[str, Any] = {"neighbour_ratio": found.neighbour_ratio, "correlation": found.correlation}
    row = {name: value for name, value in row.items() if not np.isnan(value)}
    if found.mode is not None:
        row |= {f"mode_{name}": value for name, value in found.mode._asdict().items()}
    return row


def map_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of `map_row`, each with its number of episodes, as a table.

    Args:
        rows: In any number.

    Returns:
        Columns MAP_COLUMNS; NaN for what is missing.
    """
    return pd.DataFrame(rows, columns=list(MAP_COLUMNS)).astype(float)


def labelled(tables: Tables, **labels: Any) -> Tables:
    """Name what tables are of.

    Args:
        tables: By name.
        **labels: First columns of each, and their value in every row.

    Returns:
        The tables with these columns.
    """
    return {name: table.assign(**labels)[[*labels, *table.columns]] for name, table in tables.items()}
