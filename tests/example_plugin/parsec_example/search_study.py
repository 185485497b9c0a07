"""An algorithm of another package: how far CEM and random search come with the same number of evaluations.

Neither Ray, torch nor matplotlib is imported here: `parsec specs` reads the settings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from parsecrl.algorithms.registry.algorithm import Algorithm, ParallelMap, StopCondition
from parsecrl.algorithms.registry.settings import Count, Positive, StudySettings

if TYPE_CHECKING:
    import pandas as pd


class SearchStudySettings(StudySettings):
    """Searches for the minimum of a function whose place is drawn anew for every search."""

    method: Literal["cem", "random"] = Field("cem", description="search it for both")
    function: Literal["sphere", "rosenbrock"] = Field("rosenbrock", description="to be minimised, 0 at its best")
    dimensions: int = Field(5, ge=2, description="variables, each in [-1, 1]")
    population: Count = Field(50, description="evaluations of an iteration")
    num_elites: Count = Field(5, description="of cem: samples that the next distribution is fitted to")
    num_iterations: Count = Field(10, description="iterations of a search")
    init_std: Positive = Field(0.5, description="of cem's first distribution")

    @model_validator(mode="after")
    def _fewer_elites(self) -> SearchStudySettings:
        if self.num_elites >= self.population:
            raise ValueError(f"num_elites must be below population={self.population}, got {self.num_elites}")
        return self


class SearchStudy(Algorithm):
    """Searches on a function with a known minimum."""

    name = "search_study"
    settings = SearchStudySettings
    stop_conditions: ClassVar = {"searches": StopCondition("searches", "searches", "searches of a trial")}

    def trainable(self) -> Any:
        from parsec_example.search_trial import SearchTrial

        return SearchTrial

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
        """searches: method, seed, search, evaluations, best (the lowest cost until then)."""
        import pandas as pd

        from parsec_example.search_trial import read_searches

        found = parallel_map(read_searches, [trial.checkpoint for trial in trials])
        return {"searches": pd.concat(found, ignore_index=True)}

    def report(self) -> Any:
        from parsec_example.search_report import REPORT

        return REPORT


SEARCH_STUDY = SearchStudy()
