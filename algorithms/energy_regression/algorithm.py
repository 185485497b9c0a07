"""energy_regression as specs name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from parsecrl.algorithms.energy_regression.settings import EnergyRegressionSettings
from parsecrl.algorithms.registry.algorithm import NUM_UPDATES, Algorithm, ParallelMap
from parsecrl.algorithms.registry.settings import blamed_on


class EnergyRegressionAlgorithm(Algorithm):
    """An energy network trained through its own minimiser."""

    name = "energy_regression"
    settings = EnergyRegressionSettings
    stop_conditions: ClassVar = {"num_updates": NUM_UPDATES}
    checked = frozenset({"energy"})

    def trainable(self) -> Any:
        """The plain trainable, imported now."""
        from parsecrl.algorithms.energy_regression.trainable import EnergyRegression

        return EnergyRegression

    def check(self, phase: Any) -> None:
        """Make the energy that the phase names."""
        from parsecrl.algorithms.energy_regression.checkpoint import make_energy

        with blamed_on("energy.kind"):
            make_energy(phase.energy.plain())

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> Any:
        """The tables of all trials' checkpoints."""
        from parsecrl.algorithms.energy_regression.analysis import analyse_all

        parameters = [trial.parameters for trial in trials]
        return analyse_all([trial.checkpoint for trial in trials], parameters, parallel_map)

    def report(self) -> Any:
        """Result table and sections of the page."""
        from parsecrl.algorithms.energy_regression.report import REPORT

        return REPORT


ENERGY_REGRESSION = EnergyRegressionAlgorithm()
