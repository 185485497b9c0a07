"""summary.json of a run."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd

from parsecrl.algorithms.reporting.diagnostics import Returns
from parsecrl.platform.doctor import machine
from parsecrl.platform.running.configs import env_of
from parsecrl.platform.runs.random_policy import random_policy
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import Phase
from parsecrl.platform.storage import read_json, write_atomically


def evaluated_episodes(folder: RunFolder) -> pd.DataFrame:
    """What evaluation.csv holds by now.

    Args:
        folder: Of the run.

    Returns:
        The columns of `evaluate`; no rows before the first evaluation.
    """
    from parsecrl.platform.evaluation.episodes import COLUMNS

    file = folder.path / "evaluation.csv"
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(io.StringIO(file.read_text(encoding="utf-8")))


def random_policy_of(folder: RunFolder, phase: Phase) -> Returns | None:
    """What is known by now of the random policy's returns in a phase's task.

    Args:
        folder: Of the run.
        phase: Of its spec.

    Returns:
        Mean and spread; None where fewer than two episodes are known.
    """
    table = evaluated_episodes(folder)
    evaluated = table.loc[table["phase"] == "random", "episode_return"].to_numpy(float)
    acting = [other.name for other in folder.spec.phases if other.acts]
    return random_policy(folder.states(), phase.name, acting, evaluated)


def write_summary(folder: RunFolder) -> None:
    """Write summary.json: the spec, the machine, what each finished phase reached, and warnings.

    Args:
        folder: Of the run.
    """
    spec = folder.spec
    table = evaluated_episodes(folder)
    phases: dict[str, Any] = {}
    if (table["phase"] == "random").any():
        phases["random"] = {"algorithm": None, "controller": "random", **_statistics(table, "random")}
    for phase in spec.phases:
        state = folder.state(phase.name)
        if state.get("status") != "finished":
            continue
        agent = read_json(folder.path / state["checkpoint"] / "agent.json") if phase.acts else {}
        phases[phase.name] = {
            "algorithm": phase.algorithm,
            "controller": agent.get("controller", {}).get("kind"),
            "best_trial": state["trial"],
            "checkpoint": state["checkpoint"],  # in the run folder
            "checkpoint_metrics": state["checkpoint_metrics"],
            "env_steps": state["env_steps"],
            "wall_time_s": state["wall_time_s"],
            "failed_trials": state["failed_trials"],
            **_statistics(table, phase.name),
        }
    summary = {
        "name": folder.path.name,
        "spec": json.loads(spec.model_dump_json(exclude_none=True)),
        "env": env_of(spec),
        "machine": machine(),
        "phases": phases,
        "warnings": folder.state("report").get("warnings", []),
    }
    write_atomically(folder.path / "summary.json", json.dumps(summary, indent=1))


def _statistics(table: pd.DataFrame, name: str) -> dict[str, Any]:
    from parsecrl.algorithms.reporting.statistics import summarize

    rows = table[table["phase"] == name]
    if rows.empty:
        return {}
    measured = summarize(rows["episode_return"].to_numpy())._asdict()
    return {**measured, "planning_ms": float(rows["planning_ms"].median())}
