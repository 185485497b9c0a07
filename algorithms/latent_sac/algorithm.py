"""latent_sac as specs name it: a study of policies, whose agents are not handed on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from parsecrl.algorithms.latent_sac.settings import LatentSACSettings
from parsecrl.algorithms.registry.algorithm import VECTORS, Algorithm, OwnWorld, ParallelMap, PlayedTask, StopCondition
from parsecrl.algorithms.registry.settings import blamed_on


class LatentSACAlgorithm(Algorithm):
    """Soft actor-critic over the latents of a dynamics model."""

    name = "latent_sac"
    settings = LatentSACSettings
    stop_conditions: ClassVar = {"episodes": StopCondition("episodes", "episodes", "episodes played")}
    agent_file = "latent_sac.json"
    tune_name = "LatentSAC"
    plays = VECTORS
    checked = frozenset({"world", "model", "target_entropy", "exploration"})

    def trainable(self) -> Any:
        """RLlib's algorithm, imported now."""
        from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC

        return LatentSAC

    def check(self, phase: Any) -> None:
        """Make the world, and check the model and the target entropy against it."""
        from parsecrl.algorithms.latent_sac.latent_sac_rl_module import check_bonus, check_target_entropy
        from parsecrl.algorithms.latent_study.model_factory import check_model
        from parsecrl.algorithms.latent_study.worlds import check_slices, make_vector_world

        with blamed_on("world"):
            env = make_vector_world(phase.world.plain(), layout_seed=0, continuous=True)
        try:
            check_model(phase.model.plain(), env)
            check_slices(env, phase.model.rollout_steps, "model.rollout_steps")
            check_target_entropy(phase.target_entropy, env.action_space)
            check_bonus(phase.exploration.plain(), env.action_space)
        finally:
            env.close()

    def world(self, phase: Any) -> OwnWorld:
        """The world of the phase's `world`, and what makes it with the layout of seed 0."""
        from parsecrl.algorithms.latent_study.worlds import make_vector_world

        group = phase.world.plain()
        return OwnWorld(group, lambda: make_vector_world(group, layout_seed=0, continuous=True))

    def task_warnings(self, phase: Any, task: PlayedTask) -> list[str]:
        """A sentence where the unit of the observations does not suit."""
        from parsecrl.algorithms.latent_study.units import told_of_units

        return told_of_units(task)

    def load_policy(self, folder: Any, seed: int, trust: bool | Collection[str]) -> Any:
        """The policy of a checkpoint, which names no code: neither seed nor trust is needed."""
        from parsecrl.algorithms.latent_sac.checkpoint import load_policy

        return load_policy(folder)

    def gathered(self, folder: Any) -> Any:
        """The replay, and the world."""
        from parsecrl.algorithms.latent_sac.checkpoint import read_dataset_of

        return read_dataset_of(folder)

    def played(self, folder: Any, seeds: Sequence[int], trust: bool) -> Any:
        """Episodes of the policy, and the world."""
        from parsecrl.algorithms.latent_sac.playing import play_trial

        return play_trial(folder, seeds, trust)

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> Any:
        """The tables of all trials' checkpoints."""
        from parsecrl.algorithms.latent_sac.analysis import analyse_all

        parameters = [trial.parameters for trial in trials]
        return analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)

    def report(self) -> Any:
        """Result table and sections of the page."""
        from parsecrl.algorithms.latent_sac.report import REPORT

        return REPORT


LATENT_SAC = LatentSACAlgorithm()
