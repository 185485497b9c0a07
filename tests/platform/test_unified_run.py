"""A run of unified is killed with its updates under way; the same command brings it to its report."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.reports.loaded_run import load_run
from tests.platform.tiny import DRIVER

SPEC = """
name: tiny
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 1}
phases:
  - name: unified
    algorithm: unified
    controller: {kind: embedded, latent_size: 2, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}
    world_model: {deterministic_size: 16, stochastic_size: 4, hidden_size: 16}
    decoder: {hidden_size: 16}
    value: {hidden_size: 16, imagined_beliefs: 8, imagined_steps: 2}
    value_gradient: {beliefs: 4}
    train_ratio: 0.002
    seed_episodes: 1
    batch_size: 4
    batch_length: 10
    decoder_beliefs: 4
    evaluation_every: 4000
    evaluation_episodes: 1
    stop: {env_steps: 15000}
    checkpoint_every: 1
evaluate: {episodes: 2, videos: false}
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def results(run):
    files = list(run.glob("unified/*/result.json"))
    return [json.loads(line) for line in files[0].read_text().splitlines()] if files else []


def is_evaluated(row):
    return math.isfinite(row["evaluation_return_mean"])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    run = tmp_path / "runs/tiny"
    driver, deadline = start(tmp_path), time.monotonic() + 600
    # After the first evaluation, with a checkpoint behind it.
    while not (any(run.glob("unified/*/checkpoint_*/metrics.json")) and any(map(is_evaluated, results(run)[:-1]))):
        assert driver.poll() is None, driver.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    reached = results(run)[-1]["env_steps"]
    assert reached < 15_000

    last = start(tmp_path)
    printed, _ = last.communicate(timeout=900)
    assert last.returncode == 0, printed
    found = results(run)
    assert found[-1]["env_steps"] >= 15_000
    assert len({row["pid"] for row in found}) == 2
    assert min(row["env_steps"] for row in found if row["pid"] == found[-1]["pid"]) > 1_000  # the first result's
    assert {"model_loss", "critic_loss", "decoder_loss", "policy_loss"} <= found[-1]["losses"].keys()
    assert len(pd.read_csv(run / "evaluation.csv").query("phase == 'unified'")) == 2
    assert (run / "report/index.html").is_file()
    # Evaluations came where they would have come, none twice, and the best of them chose the checkpoint.
    kept = load_run(run).phases[0].best.rows
    evaluated = kept[np.isfinite(kept["evaluation_return_mean"])]
    assert (evaluated["env_steps"] // 4000).tolist() == [1, 2, 3]
    chosen = json.loads((run / "state.json").read_text())["unified"]["checkpoint_metrics"]
    assert chosen["score"] == chosen["evaluation_return_mean"] == evaluated["evaluation_return_mean"].max()
    assert chosen["evaluated_updates"] == chosen["num_updates"]
    agent = load_agent(str(run / "unified"))
    assert agent.initial_state()
