"""What trained models of image sequences predict in open loop, as tables.

Every table has the columns env, model and seed, so that those of several trials can be put below each other.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from parsecrl.algorithms.models.pixel_dynamics import ParsimoniousPixels
from parsecrl.algorithms.models.pixels import ImageSequence
from parsecrl.algorithms.open_loop.checkpoint import read_experiment
from parsecrl.algorithms.open_loop.dataset import EpisodeDataset, open_dataset, usable_images
from parsecrl.algorithms.open_loop.evaluation import codes_used, floors, measure, split
from parsecrl.algorithms.registry.algorithm import ParallelMap
from parsecrl.algorithms.reporting.study_report import Tables, stacked, variation

NAMING = ("model.kind", "seed")  # searched keys that have columns of their own
FILMED = 2  # held-out sequences whose images are kept
EVERY = 10  # of the images that the mean image is made of


def analyse(checkpoint_and_data: tuple[Any, str]) -> Tables:
    """The tables of one checkpoint, by the dataset in a folder.

    horizon: step (from 1), kl, kl_inferred, error, error_closed: means over the held-out sequences, see `Measured`;
        of the models last_frame and mean_frame the error alone
    films: sequence, context, frames: all images side by side as a PNG, base64; of the model truth, those seen
    codes: action, codes, on: see `codes_used`; of the parsimonious model alone
    training: the experiment's curve

    Args:
        checkpoint_and_data: Folder of the checkpoint, and folder of the dataset.

    Returns:
        The tables by name, each with the columns model, env and seed too.

    Raises:
        ValueError: A file is missing or damaged, or there is no dataset.
    """
    checkpoint, folder = checkpoint_and_data
    experiment, _ = read_experiment(checkpoint)
    settings, model = experiment.settings, experiment.model.eval()
    sequences = open_dataset(folder, "held_out").stack(settings.data.held_out_steps + 1)
    context, kind = settings.context, settings.model.kind
    measured = measure(model, sequences, context)
    tables = [_by_step(kind, **{name: value.mean(0) for name, value in measured._asdict().items()})]
    mean_image = mean_of(open_dataset(folder, "train", verify=False))
    for name, error in floors(sequences, context, mean_image).items():
        tables.append(_by_step(name, error=error.mean(0)))
    few = ImageSequence(*(x[:FILMED] for x in sequences))
    ahead = (model.open_loop(*split(few, context)).images * 255.0).round().to(torch.uint8)
    shown = {"truth": few.images, kind: torch.cat([few.images[:, :context], ahead], 1)}
    films = [
        {"model": name, "sequence": i, "context": context, "frames": encode(images[i])}
        for name, images in shown.items()
        for i in range(len(images))
    ]
    curve = pd.DataFrame(experiment.curve).assign(model=kind)
    found = {"horizon": pd.concat(tables), "films": pd.DataFrame(films), "training": curve}
    if isinstance(model, ParsimoniousPixels):
        codes, on = codes_used(model, sequences)
        found["codes"] = pd.DataFrame({"model": kind, "action": range(len(codes)), "codes": codes, "on": on})
    return {name: table.assign(env=settings.world.id, seed=settings.seed) for name, table in found.items()}


def analyse_all(
    checkpoints: Sequence[tuple[Any, str]], parameters: Sequence[dict[str, Any]], parallel_map: ParallelMap = map
) -> Tables:
    """The tables of several checkpoints, each below the other; truth and floors once.

    Args:
        checkpoints: Each with the folder of its dataset.
        parameters: What each was searched over, by dotted key; what is not in NAMING becomes part of its model's name.
        parallel_map: As the built-in map, in order.

    Returns:
        The tables of `analyse` by name.
    """
    parts = []
    for tables, searched in zip(parallel_map(analyse, checkpoints), parameters, strict=True):
        for table in tables.values():
            unvaried = table["model"].isin(["truth", "last_frame", "mean_frame"])
            table["model"] = table["model"].where(unvaried, table["model"] + variation(searched, NAMING))
        parts.append(tables)
    found = stacked(parts)
    for name, keys in (("horizon", ["model", "seed", "step"]), ("films", ["model", "seed", "sequence"])):
        if name in found:
            found[name] = found[name].drop_duplicates(keys, ignore_index=True)
    return found


def mean_of(dataset: EpisodeDataset) -> Tensor:
    """The mean of every EVERY-th image of the episodes.

    Args:
        dataset: The episodes.

    Returns:
        [3, S, S] in [0, 1].
    """
    total, count = np.zeros((dataset.image_size, dataset.image_size, 3)), 0
    for episode in dataset.episodes:
        images = episode.images[: usable_images(episode) : EVERY]
        total += images.sum(0, dtype=np.float64)
        count += len(images)
    return torch.from_numpy(total / (255.0 * count)).to(torch.float32).permute(2, 0, 1)


def encode(images: Tensor) -> str:
    """Encode images as one PNG, side by side.

    Args:
        images: uint8 [T, 3, S, S].

    Returns:
        A PNG of S x T S pixels, base64.
    """
    import imageio.v3 as imageio

    wide = images.permute(2, 0, 3, 1).flatten(1, 2).numpy()  # [S, T S, 3]
    file = io.BytesIO()
    imageio.imwrite(file, np.ascontiguousarray(wide), extension=".png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def decode(frames: str) -> np.ndarray:
    """Decode what `encode` made.

    Args:
        frames: A PNG, base64.

    Returns:
        uint8 [T, S, S, 3].
    """
    import imageio.v3 as imageio

    wide = imageio.imread(base64.b64decode(frames), extension=".png")
    S = wide.shape[0]
    return wide.reshape(S, -1, S, 3).swapaxes(0, 1)


def _by_step(model: str, **columns: Tensor) -> pd.DataFrame:
    values = {name: value.cpu().numpy() for name, value in columns.items()}
    steps = len(next(iter(values.values())))
    return pd.DataFrame({"model": model, "step": range(1, steps + 1), **values})
