"""What a task gets wrong while a trial runs arrives as itself, in every algorithm: the trials in this process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPOConfig
from parsecrl.algorithms.dcem_ppo.settings import DCEMPPOSettings
from parsecrl.algorithms.offline_data.picture_collector import Collector, Task
from parsecrl.algorithms.training.user_errors import Failed, causes_kept
from parsecrl.platform.running.trainables import trainable_of
from tests.planet.small import EMBEDDED, SMALL_MODEL
from tests.planet.small import small_config as planet_config
from tests.unified.small import small_config as unified_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

FAULTY = "tests.envs.faulty_worlds:Faulty-v0"
POINT, CHAIN = (f"tests.envs.case_worlds:{name}-v0" for name in ("Point", "Chain"))
PICTURES = "tests.envs.faulty_worlds:Pictures-v0"
MODEL = {"kind": "parsimonious", "latent_size": 4, "code_size": 3, "hidden_size": 8}
SAC = {"model": MODEL, "policy": {"hidden_size": 8, "num_layers": 1}, "batch_size": 8}
BUDGET = {"horizon": 3, "num_samples": 8, "num_elites": 2, "num_iterations": 1, "gradient_steps": 2}
SEARCH = {"horizon": 2, "num_samples": 2, "num_elites": 1, "num_iterations": 1, "init_std": 0.5}
AT_STEP = r"^EnvironmentFault: environment '.*Faulty-v0' at step 3 of an episode: "
WORDS = {
    "raises": r"^RuntimeError: simulator lost its licence \(.*faulty_worlds\.py:\d+\)$",
    "nan_observation": AT_STEP + r"the observation\[0\] must be a finite number in float32, got nan",
    "nan_reward": AT_STEP + "the reward must be a finite number in float32, got nan",
    "exits": AT_STEP + r"its code ended the process, sys\.exit\(3\); raise an error in its place",
}


def agent_on_disk(folder: Any) -> str:
    with torch.random.fork_rng():
        agent = PlanningAgent(2, 1, SMALL_MODEL, EMBEDDED, {"hidden_size": 8}, None)
    parts = {"world_model": SMALL_MODEL, "controller": EMBEDDED, "decoder": {"hidden_size": 8}, "value": None}
    save_agent(folder, agent, {"algorithm": "planet", "env": {"id": POINT}, "env_steps": 1, **parts})
    return str(folder)


def planet(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return planet_config(env={**task(POINT), "action_repeat": 1})


def unified(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return unified_config(env={**task(POINT), "action_repeat": 1})


def dcem_ppo(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    start = agent_on_disk(folder)
    settings = DCEMPPOSettings.checked({"episodes_per_step": 2, "noise_bank_size": 2, "start_from": start})
    return DCEMPPOConfig.from_phase(settings, {**task(POINT), "action_repeat": 1}, {}, 0, start)


def rllib(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    sizes = {"train_batch_size_per_learner": 60, "minibatch_size": 30, "num_epochs": 1}
    return {
        "class": "PPO",
        "config": sizes,
        "env": task(POINT),
        "resources": {},
        "run_seed": 0,
        "evaluation_episodes": 5,
    }


def simulator_planner(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return {"controller": SEARCH, "env": task("Reacher-v5"), "run_seed": 0}


def latent_sac(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return {**SAC, "world": task(CHAIN)}


def latent_sac_of_vectors(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return {**SAC, "world": task(POINT)}


def latent_planning(task: Callable[[str], dict[str, Any]], folder: Any) -> Any:
    return {"world": task(CHAIN), "num_tasks": 9, "model": MODEL, "budget": "tiny", "budgets": {"tiny": BUDGET}}


TRIALS = (planet, unified, dcem_ppo, rllib, simulator_planner, latent_sac, latent_sac_of_vectors, latent_planning)


def run(trial: Any) -> None:
    try:
        for _ in range(20):
            trial.step()
    finally:
        trial.stop()


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.__name__)
@pytest.mark.parametrize("fault", WORDS)
def test_a_trial_ends_with_what_its_task_got_wrong(trial, fault, tmp_path):
    def task(base: str) -> dict[str, Any]:
        # The world of latent_planning is reset once before its first task.
        return {"id": FAULTY, "kwargs": {"base": base, "fault": fault, "episode": 3}}

    running = trainable_of(trial.__name__.removesuffix("_of_vectors"))(trial(task, tmp_path))
    with pytest.raises(Failed, match=WORDS[fault]):
        run(running)


@pytest.mark.parametrize("fault", ["raises", "nan_reward", "exits"])
def test_a_collection_ends_with_what_its_world_got_wrong(fault):
    collector = Collector({"id": FAULTY, "kwargs": {"base": PICTURES, "fault": fault, "episode": 2}}, seed=0)
    collector.collect(Task("train", 0, 20, False))
    with pytest.raises(Failed, match=WORDS[fault]), causes_kept():
        collector.collect(Task("train", 1, 20, False))
    collector.close()
