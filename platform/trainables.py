"""The algorithms that a spec can name, as Tune trains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from ray.tune import Trainable

from parsecrl.algorithms import dcem_ppo, planet
from parsecrl.algorithms.cartpole_embedding import analysis as embedding_analysis
from parsecrl.algorithms.cartpole_embedding import trainable as embedding
from parsecrl.algorithms.energy_regression import analysis as regression_analysis
from parsecrl.algorithms.energy_regression import trainable as regression
from parsecrl.algorithms.latent_planning import analysis as planning_analysis
from parsecrl.algorithms.latent_planning import trainable as planning
from parsecrl.algorithms.latent_sac import analysis as sac_analysis
from parsecrl.algorithms.latent_sac import latent_sac as sac
from parsecrl.algorithms.open_loop import analysis as open_loop_analysis
from parsecrl.algorithms.open_loop import trainable as open_loop
from parsecrl.platform.metrics.table import CountsNothing, ReportsMetrics
from parsecrl.platform.runs.stored_checkpoints import FAILURE
from parsecrl.platform.runs.trained_trials import ParallelMap, TrainedTrial
from parsecrl.platform.spec_groups import PhaseBase


class _StopOnBadLoss:
    """Put before an algorithm: a loss that is not finite ends the trial.

    As an exception it would be tried again from the last checkpoint, like the death of a process, and end the same way.
    """

    latest: dict[str, Any] | None = None

    def step(self) -> dict[str, Any]:
        try:
            result = super().step()  # type: ignore[misc]
        except FloatingPointError as error:
            message = str(error).strip().splitlines()[-1].removeprefix("FloatingPointError: ")
            return {**(self.latest or {}), FAILURE: message, "done": True}
        self.latest = result
        return result


# The names stay those of the algorithms: they are written into checkpoints.
class Planet(_StopOnBadLoss, ReportsMetrics, planet.Planet):
    pass


class DCEMPPO(_StopOnBadLoss, ReportsMetrics, dcem_ppo.DCEMPPO):
    pass


class EnergyRegression(_StopOnBadLoss, ReportsMetrics, regression.EnergyRegression, CountsNothing):
    pass


class CartpoleEmbedding(_StopOnBadLoss, ReportsMetrics, embedding.CartpoleEmbedding, CountsNothing):
    pass


class LatentPlanning(_StopOnBadLoss, ReportsMetrics, planning.LatentPlanning):
    pass


class OpenLoop(_StopOnBadLoss, ReportsMetrics, open_loop.OpenLoop, CountsNothing):
    pass


class LatentSAC(_StopOnBadLoss, ReportsMetrics, sac.LatentSAC):
    pass


@dataclass(frozen=True)
class Algorithm:
    """How Tune trains a phase of this algorithm, and what is made of its trials afterwards.

    trainable: the class of a trial. make_config: (phase, env, resources, seed, start_from) -> its param space.
    analyse: for a phase whose checkpoints hold no agent to evaluate, (trials, parallel_map) -> tables by name.
    """

    trainable: type[Trainable]
    make_config: Callable[..., Any]
    analyse: Callable[[Sequence[TrainedTrial], ParallelMap], dict[str, pd.DataFrame]] | None = None

    def resources_of_processes(self, config: Any) -> list[dict[str, float]]:
        """What each process of one trial needs, all of it on one node."""
        if isinstance(config, dict):
            return [{"CPU": config["num_cpus_per_trial"], "GPU": config["num_gpus_per_trial"]}]
        request: Any = self.trainable.default_resource_request(config)  # None of plain trainables, which are above
        return request.bundles


def plain_config(
    phase: dict[str, Any], env: dict[str, Any] | None, resources: dict[str, Any], seed: int, start_from: str | None
) -> dict[str, Any]:
    """The config of a plain trainable: the phase's own keys, `run_seed` (mix it with the phase's `seed`), and `env`."""
    own = {key: value for key, value in phase.items() if key not in PhaseBase.unsearchable}
    return {**own, "run_seed": seed, "env": env}


def _analyse_regressions(trials: Sequence[TrainedTrial], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
    parameters = [trial.parameters for trial in trials]
    return regression_analysis.analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)


def _analyse_embeddings(trials: Sequence[TrainedTrial], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
    return embedding_analysis.analyse_all([trial.checkpoint for trial in trials], parallel_map)


def _analyse_plannings(trials: Sequence[TrainedTrial], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
    parameters = [trial.parameters for trial in trials]
    return planning_analysis.analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)


def _analyse_policies(trials: Sequence[TrainedTrial], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
    parameters = [trial.parameters for trial in trials]
    return sac_analysis.analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)


def _analyse_open_loops(trials: Sequence[TrainedTrial], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
    parameters = [trial.parameters for trial in trials]
    return open_loop_analysis.analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)


ALGORITHMS: dict[str, Algorithm] = {
    "planet": Algorithm(Planet, planet.PlanetConfig.from_phase),
    "dcem_ppo": Algorithm(DCEMPPO, dcem_ppo.DCEMPPOConfig.from_phase),
    "energy_regression": Algorithm(EnergyRegression, plain_config, _analyse_regressions),
    "cartpole_embedding": Algorithm(CartpoleEmbedding, plain_config, _analyse_embeddings),
    "latent_planning": Algorithm(LatentPlanning, plain_config, _analyse_plannings),
    "open_loop": Algorithm(OpenLoop, plain_config, _analyse_open_loops),
    "latent_sac": Algorithm(LatentSAC, plain_config, _analyse_policies),
}
