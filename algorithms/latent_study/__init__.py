"""What experiments on latent dynamics in grid worlds share: worlds as tables, models by name, measures."""

from parsecrl.algorithms.latent_study.measures import (
    LatentMap,
    PredictionErrors,
    latent_map,
    prediction_errors,
    transformations_used,
)
from parsecrl.algorithms.latent_study.model_factory import MODELS, check_model, make_model
from parsecrl.algorithms.latent_study.tables import labelled, model_tables, prediction_table, stacked
from parsecrl.algorithms.latent_study.worlds import (
    World,
    check_slices,
    env_arguments,
    make_env,
    space_sizes,
    world_of,
)

__all__ = [
    "MODELS",
    "LatentMap",
    "PredictionErrors",
    "World",
    "check_model",
    "check_slices",
    "env_arguments",
    "labelled",
    "latent_map",
    "make_env",
    "make_model",
    "model_tables",
    "prediction_errors",
    "prediction_table",
    "space_sizes",
    "stacked",
    "transformations_used",
    "world_of",
]
