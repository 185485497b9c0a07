"""What trained planners show (Saanum and Schulz 2022, figures 2 and 4, and beyond), as tables.

Every table has the columns env, model and seed, so that those of several trials can be put below each other.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from parsecrl.algorithms.latent_planning.checkpoint import read_experiment
from parsecrl.algorithms.latent_planning.experience import Experience
from parsecrl.algorithms.latent_study.tables import labelled, map_table, model_tables
from parsecrl.algorithms.reporting.study_report import Tables, tables_of_trials

NAMING = ("world.id", "model.kind", "seed")  # searched keys that have columns of their own


def analyse(checkpoint: Any) -> Tables:
    """The tables of one checkpoint.

    scores: episode (the task's number), score
    tasks: the fields of `Task` but its losses and map, episode in place of number
    budgets: budget and its numbers
    and, of a model that was trained in a grid world, those of `latent_study.model_tables`, and maps: MAP_COLUMNS

    Args:
        checkpoint: Its folder.

    Returns:
        The tables by name, each with env, model and seed as its first columns.

    Raises:
        ValueError: A file is missing or damaged.
    """
    experiment, _ = read_experiment(checkpoint)
    settings = experiment.settings
    rows = [{"episode": task.number, **asdict(task)} for task in experiment.tasks]
    tasks = pd.DataFrame(rows).drop(columns=["number", "losses", "map"])
    budget = {"budget": settings.budget, **settings.chosen_budget.plain()}
    tables = {"scores": tasks[["episode", "score"]], "tasks": tasks, "budgets": pd.DataFrame([budget])}
    if experiment.world is not None and experiment.model.trains:
        visited = visits(experiment.experience, *experiment.world.transitions.shape)
        tables |= model_tables(experiment.model.eval(), experiment.world, visited, experiment.seed)
        tables["maps"] = map_table([{"episodes": task.number, **task.map} for task in experiment.tasks])
    return labelled(tables, env=settings.world.id, model=settings.model.kind, seed=settings.seed)


# The tables of several checkpoints, each below the other.
analyse_all = partial(tables_of_trials, analyse, NAMING)


def visits(experience: Experience, num_states: int, num_actions: int) -> np.ndarray:
    """How often each action was taken in each state of the world.

    Args:
        experience: What was seen.
        num_states: S.
        num_actions: A.

    Returns:
        [S, A] int64.
    """
    taken = (experience.action >= 0).numpy()
    found = np.zeros((num_states, num_actions), dtype=np.int64)
    np.add.at(found, (experience.state.numpy()[taken], experience.action.numpy()[taken]), 1)
    return found
