"""RLlib's own algorithms as phases: what is refused, and a policy that is read without pickles."""

import contextlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray import cloudpickle
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from parsecrl.algorithms.checkpoints.agent import FILES
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.rllib.acting import RLModulePolicy
from parsecrl.algorithms.rllib.config import baseline_config, module_of, trial_config
from parsecrl.algorithms.rllib.episode_counts import DECISIONS, ENTRIES, HIGH, LOW, RETURNS, STEPS
from parsecrl.algorithms.training.user_errors import Failed
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import evaluate
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.running.preflight import check_agents, check_worlds
from parsecrl.platform.running.trainables import trainable_of
from parsecrl.platform.specs import dump, load_spec, parse_spec

ENV = {"id": "Pendulum-v1", "max_episode_steps": 20}


def spec_with(**keys):
    phase = {"name": "base", "algorithm": "rllib", "class": "SAC", "stop": {"env_steps": 100}, **keys}
    return parse_spec({"name": "rllib", "env": ENV, "phases": [phase]}, "a test")


def test_a_spec_is_printed_and_read_back(tmp_path):
    spec = spec_with(config={"tau": 0.01}, model={"fcnet_hiddens": [8]}, search={"config.tau": {"grid": [0.01, 0.1]}})
    (tmp_path / "again.yaml").write_text(dump(spec))
    assert load_spec(tmp_path / "again.yaml") == spec
    assert pickle.loads(pickle.dumps(spec.phases[0])).plain() == spec.phases[0].plain()
    check_worlds(spec)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class": "SCA"}, r"phases\.base\.class: must be one of APPO, .*, or module:name, got 'SCA'; did you .*'SAC'"),
        ({"class": "Planet"}, r"phases\.base\.class: must be one of APPO"),
        ({"class": "math:hypot"}, r"phases\.base\.class: must name a subclass of ray\.rllib"),
        ({"class": "no_such_module:SAC"}, r"phases\.base\.class: .*cannot be imported"),
        ({"config": {"actor_lrr": 0.1}}, r"phases\.base\.config\.actor_lrr: is not a known key; did you .*'actor_lr'"),
        ({"config": {"lr": 0.1}}, r"phases\.base\.config: .*actor_lr"),
        ({"model": {"fcnet_hidden": [3]}}, r"phases\.base\.model\.fcnet_hidden: is not .*; did you .*'fcnet_hiddens'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(keys, message):
    with pytest.raises(UserError, match=message):
        check_worlds(spec_with(**keys))


@pytest.mark.parametrize(
    ("keys", "fits"),
    [
        *(({"class": name}, name != "DQN") for name, load in ALGORITHMS.items() if not hasattr(load, "func")),
        ({"search": {"class": {"grid": ["PPO", "DQN"]}}}, False),
    ],
)
def test_a_class_without_continuous_actions_is_refused(keys, fits):
    refused = pytest.raises(UserError, match=r"phases\.base\.class: 'DQN' makes no policy for 1 continuous actions")
    with contextlib.nullcontext() if fits else refused:
        check_agents(spec_with(**keys), 3, 1)


@pytest.mark.parametrize("command", ["specs", "run"])
def test_the_command_refuses_it_in_one_sentence_and_writes_nothing(command, tmp_path):
    """In a process of its own: RLlib warns once a process."""
    (tmp_path / "spec.yaml").write_text(dump(spec_with(**{"class": "DQN"})))
    done = subprocess.run(
        [sys.executable, "-m", "parsecrl", command, "spec.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[-1].startswith("parsec: phases.base.class: 'DQN' makes no policy for 1 continuous actions")
    assert "rl_module.py" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["spec.yaml"]


def test_settings_reach_rllib():
    config = trial_config(
        {"class": "PPO", "config": {"gamma": 0.9}, "model": {"fcnet_hiddens": [8]}, "decisions_per_iteration": 7},
        {**ENV, "action_repeat": 2},
        {"num_env_runners": 3, "num_envs_per_env_runner": 2, "sample_timeout_s": 5.0},
        seed=4,
    )
    assert (config.gamma, config.seed, config.num_env_runners, config.num_envs_per_env_runner) == (0.9, 4, 3, 2)
    assert config.min_sample_timesteps_per_iteration == 7
    assert config.env_config == {"env_id": "Pendulum-v1", "action_repeat": 2, "env_max_episode_steps": 20}
    assert config.model_config["fcnet_hiddens"] == [8]
    assert baseline_config({"class": "PPO"}).gamma == 0.99


@pytest.fixture
def checkpoint(tmp_path):
    """A PPO agent of random weights, as a trial writes it."""
    settings = {"model": {"fcnet_hiddens": [8]}}
    seen, action = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
    torch.manual_seed(0)
    module = module_of({"class": "PPO", **settings}, seen, action)
    task = {
        "observation": spaces.Box(np.array([-1.0, -1.0, -8.0], np.float32), np.array([1.0, 1.0, 8.0], np.float32)),
        "action": spaces.Box(-2.0, 2.0, (1,), np.float32),
    }
    description = {
        "algorithm": "rllib",
        "env": ENV,
        "spaces": {kind: describe_space(space) for kind, space in task.items()},
        "controller": {"kind": "PPO"},
        "rllib": settings,
    }
    FILES.write(tmp_path, description, module.state_dict())
    return tmp_path, module


def test_a_policy_acts_and_is_evaluated(checkpoint):
    folder, module = checkpoint
    agent = load_agent(folder)
    obs = np.random.default_rng(0).uniform(-1.0, 1.0, (4, 3)).astype(np.float32)
    actions, _ = agent.act(obs, agent.initial_state(4))
    with torch.no_grad():
        mean = module.forward_inference({"obs": torch.from_numpy(obs)})["action_dist_inputs"][:, :1]
    np.testing.assert_allclose(actions, 2.0 * mean.clamp(-1.0, 1.0).numpy(), rtol=1e-5)  # the task's own bounds
    drawn, _ = agent.act(obs, agent.initial_state(4), np.random.default_rng(1))
    assert (drawn != actions).any()
    rows = evaluate(folder, episodes=4, batch_size=2)
    assert set(rows["controller"]) == {"PPO"}
    assert (rows["env_steps"] == 20).all()
    assert evaluate(folder, episodes=[3], batch_size=2)["episode_return"].item() == rows["episode_return"][3]


@pytest.mark.parametrize(
    ("name", "config"), [("SAC", {}), ("PPO", {}), ("APPO", {}), ("DreamerV3", {"model_size": "nano"})]
)
def test_every_modules_policy_travels_and_decides_the_same(name, config):
    """To the workers of an evaluation; DreamerV3 has a state, and draws its latents."""
    seen, action = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32)
    torch.manual_seed(0)
    policy = RLModulePolicy(module_of({"class": name, "config": config}, seen, action), name, 3, 2)
    again = cloudpickle.loads(cloudpickle.dumps(policy))
    decided = []
    for each in (policy, again):
        state, actions = each.initial_state(2), []
        for step in range(3):
            chosen, state = each.act(state, torch.full((2, 3), 0.1 * step))
            assert chosen.shape == (2, 2)
            assert (np.abs(chosen) <= 1.0).all()
            actions.append(chosen)
        decided.append(np.stack(actions))
    np.testing.assert_array_equal(*decided)
    # Environments that have nothing in common but the policy, as a service has them: each as if it were alone.
    obs, seeds = torch.tensor([[0.1, 0.2, 0.3], [-0.3, 0.2, 0.1]]), (5, 7)
    together, after = policy.act_seeded(policy.initial_state(2), obs, seeds)
    for row, seed in enumerate(seeds):
        alone = RLModulePolicy(policy.module, name, 3, 2, seed)
        action, state = alone.act(alone.initial_state(1), obs[row : row + 1])
        np.testing.assert_array_equal(together[row : row + 1], action)
        assert all(torch.equal(after[key][row : row + 1], state[key]) for key in state)


def test_a_class_of_other_code_needs_trust(checkpoint):
    folder, _ = checkpoint
    description = json.loads((folder / "agent.json").read_text())
    description["controller"]["kind"] = "ray.rllib.algorithms.ppo:PPO"
    (folder / "agent.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"made by the code ray\.rllib\.algorithms\.ppo:PPO, .*give --trust"):
        load_agent(folder)
    assert load_agent(folder, trust=True).description["algorithm"] == "rllib"


def test_a_damaged_agent_is_named(checkpoint):
    folder, _ = checkpoint
    description = json.loads((folder / "agent.json").read_text())
    description["rllib"]["model"] = {"fcnet_hiddens": [9]}
    (folder / "agent.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="holds no whole agent of RLlib"):
        load_agent(folder)


def test_runners_count_simulator_steps_and_whole_returns():
    """By hand from the episodes: an episode of 25 steps is 13 decisions of two, of which the last is one step."""
    env = {"id": "Pendulum-v1", "action_repeat": 2, "max_episode_steps": 25}
    config = trial_config({"class": "SAC"}, env, {"num_envs_per_env_runner": 2}, seed=0)
    total, counted, returns = {}, [], []
    root = MetricsLogger(root=True)
    runners = [SingleAgentEnvRunner(config=config, worker_index=index) for index in (0, 1)]
    for iteration in range(2):
        for _ in range(2):  # rounds of an iteration
            for runner in runners:
                for piece in runner.sample(num_timesteps=20):
                    total[piece.id_] = total.get(piece.id_, 0.0) + float(np.sum(piece.get_rewards()))
                    steps = [info["env_steps"] for info in piece.get_infos()[1:]]
                    counted.append((len(piece), sum(steps)))
                    if piece.is_done:
                        assert steps[-1] == 1
                        returns.append(total.pop(piece.id_))
            root.aggregate([runner.get_metrics() for runner in runners], key="env_runners")
        found = root.reduce(compile=True)["env_runners"]
        assert returns, iteration
        assert found[DECISIONS] == sum(decisions for decisions, _ in counted) >= 40
        assert found[STEPS] == sum(steps for _, steps in counted) <= 2 * found[DECISIONS]
        assert found[LOW] < found[HIGH] <= 0.0
        assert found[ENTRIES] == found[DECISIONS]  # a single joint
        counted.clear()  # each result counts its own iteration
        np.testing.assert_allclose(sorted(np.ravel(found.get(RETURNS, []))), sorted(returns), rtol=1e-5)
        returns.clear()
    for runner in runners:
        runner.stop()


RAISED = r"^RuntimeError: simulator lost its licence \(.*case_worlds\.py:\d+\)$"
FAULTS = [
    ("PPO", 0, "PointRaises", RAISED),
    ("PPO", 1, "PointRaises", RAISED),
    ("SAC", 1, "PointRaises", RAISED),
    ("APPO", 1, "PointRaises", RAISED),
    ("PPO", 1, "PointNaNReward", r"PointNaNReward-v0' at step 7 of an episode: the reward must be a finite number"),
    (
        "PPO",
        1,
        "FileMissing",
        r"^ValueError: environment .* cannot be made: FileNotFoundError: .*robot\.urdf.*worlds\.py",
    ),
]


def train(config):
    trial = trainable_of("rllib")(config)
    try:
        for _ in range(3):
            trial.step()
    finally:
        trial.stop()


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "runners", "world", "words"),
    FAULTS,
    ids=[f"{name}-{runners}-{world}" for name, runners, world, _ in FAULTS],
)
def test_what_a_world_raises_ends_the_trial_with_its_cause(ray_runtime, name, runners, world, words):
    """In a runner of another process too, which RLlib would ask again without a word."""
    config = {
        "class": name,
        "config": {} if name == "SAC" else {"train_batch_size_per_learner": 200, "num_epochs": 1},
        "env": {"id": f"tests.envs.case_worlds:{world}-v0"},
        "resources": {"num_env_runners": runners, "num_cpus_per_env_runner": 0.5, "num_cpus_for_main_process": 0.5},
        "run_seed": 0,
        "evaluation_episodes": 5,
    }
    with pytest.raises(Failed, match=words):
        train(config)


def test_nothing_of_rllibs_is_said_beside_a_spec():
    said = subprocess.run(
        [sys.executable, "-m", "parsecrl", "specs", "cheetah_run_compare_quick"], capture_output=True, text=True
    )
    assert said.returncode == 0
    assert "class: SAC" in said.stdout
    assert not [line for line in said.stderr.splitlines() if "API stack" in line]
