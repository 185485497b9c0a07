"""Trials of a known response; a spec names them as tests.platform.toy_search:TOY.

A trial gains `gain(settings)` with each step, so that its score is the sum of what its settings gave.
"""

import json
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from pydantic import Field
from ray.tune import Trainable

from parsecrl.algorithms.registry.algorithm import Algorithm, StopCondition
from parsecrl.algorithms.registry.settings import Group, StudySettings


class Inner(Group):
    rate: float = Field(0.5, ge=0.0, le=1.0, description="best at 0.8")
    width: int = Field(8, ge=1, le=64, description="more is a little better")


class ToySettings(StudySettings):
    kind: Literal["plain", "fancy"] = Field("plain", description="fancy gains one more")
    extra: float = Field(0.0, description="counts in fancy trials")
    inner: Inner = Field(Inner(), description="nested keys")
    labels: list[str] = Field([], description="without effect")
    pause_s: float = Field(0.0, description="of each step")
    diary: str = Field("", description="file to which each step adds a line")


def gain(settings: dict[str, Any]) -> float:
    inner = settings["inner"]
    fancy = settings["kind"] == "fancy"
    return 2.0 - 4.0 * (inner["rate"] - 0.8) ** 2 + 0.01 * inner["width"] + fancy * (1.0 + settings["extra"])


class ToyTrial(Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.value = 0.0

    def step(self) -> dict[str, Any]:
        time.sleep(self.config["pause_s"])
        self.value += gain(self.config)
        if self.config["diary"]:
            with open(self.config["diary"], "a") as diary:
                diary.write(f"{self.trial_id} {self.iteration + 1}\n")
        return {"env_steps": 10 * (self.iteration + 1), "score": self.value}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "value.json").write_text(json.dumps(self.value))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.value = json.loads((Path(checkpoint_dir) / "value.json").read_text())


class Toy(Algorithm):
    name = "toy"
    settings = ToySettings
    stop_conditions: ClassVar = {"env_steps": StopCondition("env_steps", "env steps")}

    def trainable(self) -> Any:
        return ToyTrial

    def analyse(self, trials: Any, parallel_map: Any) -> dict[str, pd.DataFrame]:
        return {"settings": pd.DataFrame([trial.parameters for trial in trials])}


TOY = Toy()
