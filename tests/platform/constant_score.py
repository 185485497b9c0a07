"""Trials whose score is the setting `quality`; a spec names them as tests.platform.constant_score:CONSTANT_SCORE."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from pydantic import Field
from ray.tune import Trainable

from parsecrl.algorithms.registry.algorithm import Algorithm, StopCondition
from parsecrl.algorithms.registry.settings import StudySettings


class ConstantScoreSettings(StudySettings):
    quality: float = Field(0.0, description="the score of each result")


class ConstantScoreTrial(Trainable):
    def step(self) -> dict[str, Any]:
        return {"tasks": self.iteration + 1, "score": self.config["quality"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "quality.txt").write_text(str(self.config["quality"]))


class ConstantScore(Algorithm):
    name = "constant_score"
    settings = ConstantScoreSettings
    stop_conditions: ClassVar = {"tasks": StopCondition("tasks", "tasks")}

    def trainable(self) -> Any:
        return ConstantScoreTrial

    def analyse(self, trials: Any, parallel_map: Any) -> dict[str, pd.DataFrame]:
        return {"qualities": pd.DataFrame([trial.parameters for trial in trials])}


CONSTANT_SCORE = ConstantScore()
