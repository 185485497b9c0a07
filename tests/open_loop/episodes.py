"""Made-up episodes whose pictures say where they come from."""

import numpy as np

from parsecrl.algorithms.offline_data import picture_files
from parsecrl.algorithms.offline_data.picture_files import Episode


def made_up(number, steps, terminated=False, size=16):
    """Every image's pixels are (number, t, noise); the action taken at t is (number + t) % 6."""
    rng = np.random.default_rng(number)
    images = rng.integers(256, size=(steps + 1, size, size, 3), dtype=np.uint8)
    images[..., 0], images[..., 1] = number, np.arange(steps + 1)[:, None, None]
    return Episode(images, (number + np.arange(steps)) % 6, rng.standard_normal(steps), terminated, 1000 + number)


def write_dataset(folder, lengths, size=16, split="train"):
    episodes = [made_up(number, steps, size=size) for number, steps in enumerate(lengths)]
    place = folder / split
    place.mkdir(parents=True)
    for number, episode in enumerate(episodes):
        picture_files.write_episode(place, number, episode)
    metadata = picture_files.dataset_metadata(f"parsecrl/{split}-v0", size, 6, None, {"seed": 0})
    counts = {"total_episodes": len(lengths), "total_steps": sum(lengths)}
    picture_files.write_metadata(place, metadata | counts)
    return episodes
