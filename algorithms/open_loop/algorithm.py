"""open_loop as specs name it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from parsecrl.algorithms.open_loop.settings import OpenLoopSettings
from parsecrl.algorithms.registry.algorithm import NUM_UPDATES, PICTURES, Algorithm, Episodes, OwnWorld, ParallelMap
from parsecrl.algorithms.registry.settings import blamed_on


class OpenLoopAlgorithm(Algorithm):
    """Models of image sequences on collected episodes, compared in open loop."""

    name = "open_loop"
    settings = OpenLoopSettings
    plays = PICTURES
    stop_conditions: ClassVar = {
        "num_updates": NUM_UPDATES._replace(
            meaning="gradient updates; without any condition, updates_per_episode for each of data.episodes"
        )
    }
    checked = frozenset({"world"})

    def trainable(self) -> Any:
        """The plain trainable, imported now."""
        from parsecrl.algorithms.open_loop.trainable import OpenLoop

        return OpenLoop

    def default_stop(self, settings: Any) -> dict[str, float]:
        """So many updates for each training episode."""
        return {"num_updates": settings.data.episodes * settings.updates_per_episode}

    def check(self, phase: Any) -> None:
        """Make the world."""
        from parsecrl.algorithms.latent_study.worlds import make_pixel_world

        with blamed_on("world"):
            make_pixel_world(phase.world.plain()).close()

    def world(self, phase: Any) -> OwnWorld:
        """The world of the phase's `world`."""
        from parsecrl.algorithms.latent_study.worlds import make_pixel_world

        group = phase.world.plain()
        return OwnWorld(group, lambda: make_pixel_world(group), bounded=True)

    def resolve(self, phase: Any, data_folder: str) -> Any:
        """With an absolute data.folder: trials run in folders of their own."""
        stated = phase.data.folder
        folder = data_folder if stated is None else str(Path(stated).expanduser().absolute())
        return phase.model_copy(update={"data": phase.data.model_copy(update={"folder": folder})})

    def episodes(self, phase: Any) -> Episodes:
        """The episodes of a random policy that the settings ask for."""
        data = phase.data
        return Episodes(
            folder=data.folder,
            env_config=phase.world.plain(),
            num_episodes=data.episodes,
            max_steps=data.max_steps,
            num_held_out=data.held_out,
            held_out_steps=data.held_out_steps,
            seed=data.seed,
            num_workers=data.num_workers,
        )

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> Any:
        """The tables of all trials' checkpoints, by the datasets that they were trained on."""
        from parsecrl.algorithms.open_loop.analysis import analyse_all

        parameters = [trial.parameters for trial in trials]
        checkpoints = [(trial.checkpoint, trial.config["data"]["folder"]) for trial in trials]
        return analyse_all(checkpoints, parameters, parallel_map)

    def report(self) -> Any:
        """Result table and sections of the page."""
        from parsecrl.algorithms.open_loop.report import REPORT

        return REPORT


OPEN_LOOP = OpenLoopAlgorithm()
