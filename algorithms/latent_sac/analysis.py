"""What trials of latent_sac show, as tables: see `parsecrl.algorithms.latent_study.report_parts` for their columns."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from parsecrl.algorithms.latent_sac.checkpoint import load_trial
from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.tables import labelled, map_row, map_table, model_tables
from parsecrl.algorithms.reporting.study_report import Tables, tables_of_trials

OWN_COLUMNS = ("world.id", "model.kind", "seed")  # searched values that have a column; others are part of the model


def analyse(checkpoint: Any) -> Tables:
    """The tables of one trial, each with env, model and seed as its first columns.

    scores: episode, score. evaluations, with `evaluation_every`: episode (how many were played before it), score (its
    mean return), number (from 1). predictions: episodes (after which it was measured), unvisited (share of
    transitions), transformations, first, step, relative, hits, walks. maps: MAP_COLUMNS, by episodes. latents, edges,
    transformations: of the trained model.

    Args:
        checkpoint: Its folder.

    Returns:
        The tables by name; scores alone where the world is no grid world.

    Raises:
        ValueError: As `load_trial` does.
    """
    model, record, description = load_trial(checkpoint)
    scores = description["scores"]
    tables = {"scores": pd.DataFrame({"episode": np.arange(1, len(scores) + 1), "score": scores})}
    if "evaluations" in description:
        evaluations = pd.DataFrame(description["evaluations"], columns=["episode", "score"])
        tables["evaluations"] = evaluations.assign(number=np.arange(1, len(evaluations) + 1))
    if record is not None:
        tables |= model_tables(model, record.world, record.visited)
        columns = ["episodes", "unvisited", "transformations", "first", "step", "relative", "hits", "walks"]
        tables["predictions"] = pd.DataFrame(record.predictions, columns=columns)
        last = {"episodes": len(scores), **map_row(map_measures(model, record.world))}
        tables["maps"] = map_table([*(row for row in record.maps if row["episodes"] != len(scores)), last])
    kind = description["model"].get("kind", "parsimonious")
    return labelled(tables, env=description["world"]["id"], model=kind, seed=description["seed"])


# The tables of several checkpoints, each below the other.
analyse_all = partial(tables_of_trials, analyse, OWN_COLUMNS)
