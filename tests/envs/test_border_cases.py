"""The worlds of others through the algorithms and the keys of a spec: no Ray runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import parsecrl
from parsecrl.algorithms.latent_planning.trainable import LatentPlanning
from parsecrl.algorithms.latent_sac.latent_sac import LatentSACConfig
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.latent_sac.runner import WholeEpisodeRunner
from parsecrl.algorithms.latent_study.worlds import make_pixel_world, make_vector_world
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.lockstep import resolve, run_batch
from parsecrl.platform.running.configs import env_of
from parsecrl.platform.specs import load_spec
from tests.envs.case_worlds import Chain

CASES = "tests.envs.case_worlds:"
MODEL = {"kind": "parsimonious", "latent_size": 4, "code_size": 3, "hidden_size": 8}
TWINS = ("Chain-v0", "ChainReused-v0", "ChainFromOne-v0")


def played_by_sac(world: Any, env_config: dict[str, Any] | None = None) -> TransitionReplay:
    """What the replay holds after 40 episodes of the untrained policy."""
    config = LatentSACConfig().environment(world, env_config=env_config or {})
    config.training(model=MODEL, policy={"hidden_size": 8, "num_layers": 2})
    config.validate()
    runner, replay = WholeEpisodeRunner(config=config, worker_index=0), TransitionReplay(10_000, 5)
    for number in range(40):
        (episode,) = runner.play(runner.module.get_state(), number)
        obs, actions = np.asarray(episode.get_observations()), np.asarray(episode.get_actions(), np.int64)
        replay.add(obs, actions, np.asarray(episode.get_rewards(), np.float32), episode.is_terminated)
    runner.stop()
    return replay


def stays(replay: TransitionReplay) -> float:
    batch = replay.sample(2000, np.random.default_rng(0))
    return float((batch.obs == batch.next_obs).all(1).mean())


@pytest.mark.parametrize("twin", [f"{CASES}ChainReused-v0", f"{CASES}ChainFromOne-v0", lambda config: Chain(**config)])
def test_latent_sac_sees_the_twins_as_the_chain(twin):
    arguments = {} if isinstance(twin, str) else {"reuse": True, "start": 1}
    own, other = played_by_sac(f"{CASES}Chain-v0"), played_by_sac(twin, arguments)
    a, b = (replay.sample(500, np.random.default_rng(0)) for replay in (own, other))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert 0.1 < stays(other) < 0.5
    assert a.action.min() == 0
    assert a.action.max() == 2
    assert a.terminated.any()


def test_latent_planning_sees_the_twins_as_the_chain():
    budget = {"horizon": 3, "num_samples": 8, "num_elites": 2, "num_iterations": 1, "gradient_steps": 2}
    seen = []
    for twin in TWINS:
        settings = {"model": MODEL, "num_tasks": 3, "budgets": {"paper": budget}, "batch_size": 8}
        trainable = LatentPlanning({"world": {"id": CASES + twin}, **settings})
        scores = [trainable.step()["score"] for _ in range(3)]
        seen.append((scores, trainable.experiment.experience.tensors()))
    for scores, tensors in seen[1:]:
        assert scores == seen[0][0]
        assert tensors.keys() == seen[0][1].keys()
        assert all(torch.equal(tensors[name], seen[0][1][name]) for name in tensors)


def test_keys_of_a_world_reach_it():
    env = make_vector_world({"id": f"{CASES}Chain-v0", "kwargs": {"start": 4}, "max_episode_steps": 3}, 0)
    env.reset(seed=0)
    assert env.unwrapped.start == 4
    assert [env.step(np.int64(1))[3] for _ in range(3)] == [False, False, True]
    grid = make_vector_world({"id": "parsecrl/Gridworld-v0", "size": 4, "kwargs": {"goal": [3, 3]}}, 7)
    assert grid.unwrapped.topology.walls.shape == (4, 4)
    assert grid.unwrapped.goal == 15
    assert (
        make_pixel_world({"id": "parsecrl/HealthGathering-v0", "kwargs": {"frame_skip": 5}}).unwrapped.frame_skip == 5
    )
    for group, words in (
        ({"id": f"{CASES}Chain-v0", "kwargs": {"stat": 1}}, r"takes no argument 'stat', .*did you mean 'start'"),
        ({"id": f"{CASES}Point-v0"}, "the actions of a world must be Discrete"),
    ):
        with pytest.raises(ValueError, match=words):
            make_vector_world(group, 0)


SPEC = f"""
name: case
env: {{id: "{CASES}Point-v0"}}
phases:
  - {{name: planet, algorithm: planet, stop: {{env_steps: 100}}}}
  - {{name: sac, algorithm: latent_sac, stop: {{episodes: 4}}}}
"""


def spec_with(tmp_path: Path, *overrides: str) -> Any:
    (tmp_path / "case.yaml").write_text(SPEC)
    return load_spec(tmp_path / "case.yaml", overrides)


def test_keys_of_a_spec_reach_runners_checkpoints_and_evaluation(tmp_path):
    spec = spec_with(
        tmp_path,
        *("env.kwargs.steps=null", "env.kwargs.reward_unit=2.0", "env.max_episode_steps=7", "env.action_repeat=3"),
        *(f"phases.sac.world.id={CASES}Chain-v0", "phases.sac.world.kwargs.start=2"),
    )
    env = {"id": f"{CASES}Point-v0", "action_repeat": 3, "kwargs": {"steps": None, "reward_unit": 2.0}}
    env["max_episode_steps"] = 7
    assert env_of(spec) == env
    config = parsecrl.PlanetConfig.from_phase(spec.phase("planet"), env_of(spec), spec.resources.model_dump(), 0, None)
    for _ in range(2):
        config.validate()
        assert config.task_description() == json.loads(json.dumps(env))
    direct = parsecrl.PlanetConfig().environment(
        f"{CASES}Point-v0", env_config={"steps": None, "reward_unit": 2.0, "action_repeat": 3, "max_episode_steps": 7}
    )
    direct.validate()
    assert direct.env_config == config.env_config
    (result,) = run_batch(None, resolve("random", env)[1], [0], 0)
    assert result.env_steps == 7
    assert spec.phase("sac").world.plain() == {"id": f"{CASES}Chain-v0", "kwargs": {"start": 2}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("env.kwargs=[1]", r"env\.kwargs must be a group of keys"),
        ("env.kwargs.date=2020-01-01", r"env\.kwargs.* must hold numbers, text, lists and groups alone.*'date'"),
        ("env.max_episode_steps=0", r"env\.max_episode_steps must be greater than or equal to 1, got 0"),
        ("phases.sac.world.max_episode_steps=1.5", r"world\.max_episode_steps must be a valid integer"),
    ],
)
def test_keys_of_a_spec_are_checked(tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        spec_with(tmp_path, override)
