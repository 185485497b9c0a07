"""A trial of the search study: in each step one search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ray.tune import Trainable
from torch import Tensor

from parsecrl.algorithms.solvers import cem

FILE = "searches.json"
FUNCTIONS = {
    "sphere": lambda x: x.square().sum(-1),
    "rosenbrock": lambda x: (100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2).sum(-1),
}
MINIMUM = {"sphere": 0.0, "rosenbrock": 1.0}  # the coordinate of the best point, where the function is 0


class SearchTrial(Trainable):
    """Results: searches; cost, the lowest of the search; score, minus the mean cost of all searches."""

    def setup(self, config: dict[str, Any]) -> None:
        self.searches: list[list[float]] = []  # the lowest cost after each iteration

    def step(self) -> dict[str, Any]:
        c, number = self.config, len(self.searches)
        generator = torch.Generator().manual_seed((c["run_seed"] * 1009 + c["seed"]) * 100_003 + number)
        self.searches.append(search(c, generator))
        costs = [curve[-1] for curve in self.searches]
        return {"searches": len(costs), "cost": costs[-1], "score": -sum(costs) / len(costs)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {key: self.config[key] for key in ("method", "seed", "population")} | {"searches": self.searches}
        (Path(checkpoint_dir) / FILE).write_text(json.dumps(state))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.searches = json.loads((Path(checkpoint) / FILE).read_text())["searches"]


def search(config: dict[str, Any], generator: torch.Generator) -> list[float]:
    """The lowest cost after each iteration of one search; the minimum lies anywhere in [-0.5, 0.5]^n."""
    n, samples = config["dimensions"], (config["num_iterations"], config["population"])
    place = torch.rand(n, generator=generator) - 0.5

    def cost(x: Tensor) -> Tensor:
        return FUNCTIONS[config["function"]](x - place + MINIMUM[config["function"]])

    if config["method"] == "random":
        costs = cost(2 * torch.rand(*samples, n, generator=generator) - 1)  # [T, N]
    else:
        solution = cem(
            cost,
            torch.zeros(1, n),
            config["init_std"],
            num_samples=config["population"],
            num_elites=config["num_elites"],
            num_iterations=config["num_iterations"],
            bounds=(-1.0, 1.0),
            generator=generator,
            keep_history=True,
        )
        costs = torch.cat([iteration.costs for iteration in solution.history or []])
    return costs.amin(1).cummin(0).values.tolist()


def read_searches(checkpoint: Any) -> pd.DataFrame:
    """The rows of one trial's checkpoint, a path on disk or in an object store."""
    state = json.loads((checkpoint / FILE).read_text())
    return pd.DataFrame(
        {
            "method": state["method"],
            "seed": state["seed"],
            "search": number,
            "evaluations": state["population"] * iteration,
            "best": best,
        }
        for number, curve in enumerate(state["searches"])
        for iteration, best in enumerate(curve, 1)
    )
