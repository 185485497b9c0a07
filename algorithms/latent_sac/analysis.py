"""What trials of latent_sac show, as tables: see `parsecrl.algorithms.latent_study.report_parts` for their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from parsecrl.algorithms.latent_sac.checkpoint import load_trial
from parsecrl.algorithms.latent_study.tables import labelled, model_tables, stacked

ParallelMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
Tables = dict[str, pd.DataFrame]
OWN_COLUMNS = ("world.id", "model.kind", "seed")  # searched values that have a column; others are part of the model


def analyse(checkpoint: Any) -> Tables:
    """The tables of one trial, each with env, model and seed as its first columns.

    scores: episode, score. predictions: episodes (after which it was measured), unvisited (share of transitions),
    transformations, first, step, relative, hits, walks. latents, edges, transformations: of the trained model.
    """
    model, world, visited, description = load_trial(checkpoint)
    scores = description["scores"]
    tables = {"scores": pd.DataFrame({"episode": np.arange(1, len(scores) + 1), "score": scores})}
    if world is not None:
        tables |= model_tables(model, world, visited)
        columns = ["episodes", "unvisited", "transformations", "first", "step", "relative", "hits", "walks"]
        tables["predictions"] = pd.DataFrame(description["curve"], columns=columns)
    kind = description["model"].get("kind", "parsimonious")
    return labelled(tables, env=description["world"]["id"], model=kind, seed=description["seed"])


def analyse_all(
    checkpoints: Sequence[Any], parameters: Sequence[dict[str, Any]], parallel_map: ParallelMap = map
) -> Tables:
    """Those of several trials, below each other.

    parameters: what each was searched over, by dotted key; those beyond OWN_COLUMNS become part of its model's name.
    parallel_map: as the built-in map.
    """
    parts = []
    for tables, searched in zip(parallel_map(analyse, checkpoints), parameters, strict=True):
        others = "".join(f", {key.rpartition('.')[2]}={searched[key]}" for key in searched if key not in OWN_COLUMNS)
        parts.append({name: table.assign(model=table["model"] + others) for name, table in tables.items()})
    return stacked(parts)
