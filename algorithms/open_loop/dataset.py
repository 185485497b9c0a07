"""Reading collected episodes, and drawing batches of sequences from them while the learner learns.

Axes: B sequences, T images of a sequence, S side of an image. Images stay uint8, in files that are mapped into memory:
the operating system keeps them once for all processes of a machine.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parsecrl.algorithms.models.pixels import ImageSequence
from parsecrl.algorithms.offline_data.picture_files import DamagedEpisode, Episode, numbers, read_episode, read_metadata
from parsecrl.algorithms.training.seeding import derive_seed

SPLITS = ("train", "held_out")


class EpisodeDataset:
    """Episodes of a split, by their numbers. Iterating gives an ImageSequence of B = 1 for each episode.

    Args:
        episodes: One or more, with images of one size.
        num_actions: A.
    """

    def __init__(self, episodes: list[Episode], num_actions: int):
        self.episodes, self.num_actions = episodes, num_actions

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[ImageSequence]:
        for index, episode in enumerate(self.episodes):
            yield self.gather([index], [0], usable_images(episode))

    @property
    def image_size(self) -> int:
        """S."""
        return self.episodes[0].images.shape[1]

    def stack(self, length: int) -> ImageSequence:
        """The first images of every episode: for held-out ones, the test sequences.

        Args:
            length: T, images of a sequence, at least 1.

        Returns:
            [B, T], B the number of episodes.

        Raises:
            ValueError: An episode is shorter.
        """
        shortest = min(map(usable_images, self.episodes))
        if not 1 <= length <= shortest:
            raise ValueError(
                f"the length of test sequences must lie in [1, images of the shortest episode], got {length} with "
                f"{shortest}; collect longer ones (held_out_steps is one less than their images)"
            )
        return self.gather(list(range(len(self))), [0] * len(self), length)

    def gather(self, episodes: list[int], starts: list[int], length: int, *, pin_memory: bool = False) -> ImageSequence:
        """Cut sequences out of episodes. The images' memory is channels-last, as they lie in the files.

        Args:
            episodes: Of which episode each sequence is, B numbers.
            starts: The image at which each begins, B numbers.
            length: T, images of a sequence.
            pin_memory: For a copy to a GPU.

        Returns:
            [B, T].
        """
        S = self.image_size
        images = torch.empty(len(episodes), length, S, S, 3, dtype=torch.uint8, pin_memory=pin_memory)
        actions = torch.empty(len(episodes), length - 1, dtype=torch.int64, pin_memory=pin_memory)
        to_images, to_actions = images.numpy(), actions.numpy()
        for row, (index, start) in enumerate(zip(episodes, starts, strict=True)):
            episode = self.episodes[index]
            to_images[row] = episode.images[start : start + length]
            to_actions[row] = episode.actions[start : start + length - 1]
        return ImageSequence(images.permute(0, 1, 4, 2, 3), actions)


def usable_images(episode: Episode) -> int:
    """Count the images of an episode, without the last one of an episode that the world ended.

    A world may have no picture of its end.

    Args:
        episode: The episode.

    Returns:
        How many can be used.
    """
    return len(episode.images) - episode.terminated


def open_dataset(folder: str | Path, split: str, *, verify: bool = True) -> EpisodeDataset:
    """Open the episodes of a split of a folder that `collect` of the platform filled.

    Episodes whose files are damaged are named in a warning each and left out.

    Args:
        folder: Has a folder for each split.
        split: "train" or "held_out".
        verify: Read all of it once, against the checksums.

    Returns:
        The episodes, in the order of their numbers.

    Raises:
        ValueError: There is no dataset, it is not of discrete actions, or nothing of it can be read.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    place = Path(folder, split)
    metadata = read_metadata(place) if place.is_dir() else {}
    if not metadata:
        raise ValueError(f"{place} holds no dataset; collect it first (or run the same command again to finish it)")
    episodes = []
    for number in numbers(place):
        try:
            episodes.append(read_episode(place, number, verify=verify))
        except DamagedEpisode as error:
            warnings.warn(f"{error}; left out: collecting again replaces it alone", stacklevel=2)
    if not episodes:
        raise ValueError(f"{place} holds no episode that can be read; delete it and collect again")
    return EpisodeDataset(episodes, _num_actions(metadata, place))


def _num_actions(metadata: dict[str, Any], place: Path) -> int:
    try:
        return int(json.loads(metadata["action_space"])["n"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place} is not of a world with discrete actions; collect it again") from error


class SequenceBatches:
    """Batches without end, prepared ahead by a thread.

    A sequence is drawn uniformly, with replacement, from all that lie within one episode. Batch n depends on (seed, n)
    alone. The state is how many were taken: what had been prepared ahead of a checkpoint is drawn again.

    Args:
        dataset: The episodes.
        batch_size: B, at least 1.
        length: T, images of a sequence, at least 2.
        seed: Of the draws.
        ahead: Batches that are prepared before they are asked for, at least 1.
        pin_memory: For copies to a GPU.

    Raises:
        ValueError: A number is out of range, or no episode is that long.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        batch_size: int,
        length: int,
        seed: int,
        *,
        ahead: int = 2,
        pin_memory: bool = False,
    ):
        if batch_size < 1 or length < 2:
            raise ValueError(
                f"batches need batch_size of 1 or more and length of 2 or more, got {batch_size} and {length}"
            )
        choices = np.array([max(0, usable_images(episode) - length + 1) for episode in dataset.episodes])
        if not choices.sum():
            longest = max(map(usable_images, dataset.episodes))
            raise ValueError(
                f"sequences of {length} images need an episode as long, the longest of {len(dataset)} has {longest}; "
                f"lower the length, or collect longer episodes"
            )
        self.dataset, self.batch_size, self.length, self.seed = dataset, batch_size, length, seed
        self.ahead, self.pin_memory = max(1, ahead), pin_memory
        self._ends = choices.cumsum()  # sequences of the episodes up to each
        self._executor: ThreadPoolExecutor | None = None
        self._pending: deque[Future[ImageSequence]] = deque()
        self._taken = 0

    def draw(self, number: int) -> ImageSequence:
        """Draw a batch, here and now.

        Args:
            number: Of the batch, from 0.

        Returns:
            [B, T].
        """
        rng = np.random.default_rng(derive_seed(self.seed, "batch", number))
        drawn = rng.integers(self._ends[-1], size=self.batch_size)
        episodes = np.searchsorted(self._ends, drawn, side="right")
        starts = drawn - np.concatenate([[0], self._ends])[episodes]
        return self.dataset.gather(episodes.tolist(), starts.tolist(), self.length, pin_memory=self.pin_memory)

    def __iter__(self) -> SequenceBatches:
        return self

    def __next__(self) -> ImageSequence:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "parsec-batches")
        while len(self._pending) < 1 + self.ahead:
            self._pending.append(self._executor.submit(self.draw, self._taken + len(self._pending)))
        batch = self._pending.popleft().result()
        self._taken += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """How many batches were taken."""
        return {"batches": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were taken.

        Args:
            state: What `state_dict` returned.
        """
        self.close()
        self._taken = int(state["batches"])

    def close(self) -> None:
        """End the thread; the next batch starts another one."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
        self._pending.clear()
