"""Baselines beside each other in one run: RLlib's SAC and PPO, and the planner in the true simulator."""

import json
import math

import pandas as pd
import pytest

from parsecrl.algorithms.checkpoints.agent import read_description
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.reports import format_table
from parsecrl.platform.running.pipeline import run_spec
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.runs.status import status_text
from parsecrl.platform.specs import load_spec

SPEC = """
name: baselines
env: {id: dm_control/cheetah-run-v0, action_repeat: 10, max_episode_steps: 100}
resources: {num_env_runners: 0, num_envs_per_env_runner: 2}
phases:
  - name: sac
    algorithm: rllib
    class: SAC
    config: {num_steps_sampled_before_learning_starts: 20, train_batch_size_per_learner: 8, tau: 0.01}
    model: {fcnet_hiddens: [8]}
    search: {config.tau: {grid: [0.01, 0.02]}}
    decisions_per_iteration: 20
    evaluation_every: 400
    evaluation_episodes: 2
    stop: {env_steps: 600}
    checkpoint_every: 1
  - name: ppo
    algorithm: rllib
    class: PPO
    config: {train_batch_size_per_learner: 20, minibatch_size: 10, num_epochs: 1}
    model: {fcnet_hiddens: [8]}
    decisions_per_iteration: 20
    stop: {env_steps: 400}
  - name: simulator
    algorithm: simulator_planner
    controller: {horizon: 2, num_samples: 4, num_elites: 2, num_iterations: 1}
evaluate: {episodes: 2, videos: false}
"""

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_baselines_train_are_continued_and_reported(ray_runtime, tmp_path):
    (tmp_path / "baselines.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "baselines.yaml")
    folder = run_spec(spec, tmp_path / "runs")

    rows = pd.read_csv(folder / "evaluation.csv")
    controllers = {"random": "random", "sac": "SAC", "ppo": "PPO", "simulator": "simulator"}
    assert rows.groupby("phase")["controller"].first().to_dict() == controllers
    assert (rows["env_steps"] == 100).all()
    assert rows.groupby("episode")["seed"].nunique().eq(1).all()  # the same initial states for all
    summary = json.loads((folder / "summary.json").read_text())["phases"]
    assert {name: phase["controller"] for name, phase in summary.items()} == controllers
    for name, steps in {"sac": 600, "ppo": 400, "simulator": 100}.items():
        assert steps <= summary[name]["env_steps"] < steps + 300
        assert summary[name]["env_steps"] % 10 == 0
        assert name in format_table(folder)
    assert {path.name for path in (folder / "sac").glob("trial_*")} == {"trial_00000_tau=0.01", "trial_00001_tau=0.02"}
    result = json.loads((folder / "sac/trial_00000_tau=0.01/result.json").read_text().splitlines()[-1])
    assert result["num_updates"] > 0
    assert any(name.endswith("loss") for name in result["metrics"]["loss"])
    evaluated = [row for row in lines(folder, "trial_00000_tau=0.01") if math.isfinite(row["evaluation_return_mean"])]
    assert [row["env_steps"] // 400 for row in evaluated] == [1]
    assert result["score"] == evaluated[0]["evaluation_return_mean"] >= 0.0
    assert "ended" in status_text(folder)
    assert (folder / "report" / "index.html").is_file()
    agent = load_agent(folder / "sac")
    action, _ = agent.act(agent.observation_space.sample(), agent.initial_state())
    assert agent.action_space.contains(action)

    # Moved and prolonged, the trials go on from their checkpoints: counters, replay, returns.
    (tmp_path / "moved").mkdir()
    folder = folder.rename(tmp_path / "moved" / "baselines")
    before = {trial: len(lines(folder, trial)) for trial in ("trial_00000_tau=0.01", "trial_00001_tau=0.02")}
    run_spec(load_spec(tmp_path / "baselines.yaml", ["phases.sac.stop.env_steps=1000"]), tmp_path / "moved")
    for trial, number in before.items():
        found = lines(folder, trial)
        steps = [row["env_steps"] for row in found]
        assert steps == sorted(steps)
        assert steps[number] - steps[number - 1] == steps[1] - steps[0]
        assert found[number]["replay_decisions"] == steps[number] // 10
        assert found[number]["num_updates"] > found[number - 1]["num_updates"]
        evaluated = [row["env_steps"] // 400 for row in found if math.isfinite(row["evaluation_return_mean"])]
        assert evaluated == [1, 2]  # neither again nor too early
    stored = RunFolder(folder, spec).state("sac")["checkpoint"]
    assert read_description(folder / stored)["env_steps"] in (400, 800)


def lines(folder, trial):
    return [json.loads(line) for line in (folder / "sac" / trial / "result.json").read_text().splitlines()]
