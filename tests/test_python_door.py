"""The RLlib configs as RLlib's own, and trained agents that act without Ray."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import parsecrl
from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.acting import describe_space, space_of
from parsecrl.envs import make_env
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import evaluate
from parsecrl.platform.evaluation.lockstep import episode_seed
from parsecrl.platform.runs.stored_checkpoints import mark_whole

ROOT = Path(parsecrl.__file__).parent
MODEL = {"deterministic_size": 12, "stochastic_size": 4, "hidden_size": 16}
FULL: dict[str, Any] = {"kind": "full", "horizon": 3, "num_samples": 8, "num_elites": 2, "num_iterations": 2}
EMBEDDED = {**FULL, "kind": "embedded", "latent_size": 2}
REACH = "parsecrl_tests/Reach-v0"


class Reach(gymnasium.Env):
    """Nested observations of every kind, and actions with bounds and a type of their own; five steps."""

    observation_space = spaces.Dict(
        {
            "velocity": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "angle": spaces.Box(-1.0, 1.0, (1, 1), np.float32),
            "mode": spaces.Discrete(3, start=1),
            "more": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
        }
    )
    action_space = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 5.0]), dtype=np.float64)
    played: ClassVar[list[np.ndarray]] = []

    def __init__(self, config=None):
        self.config = config

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 5
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.played.append(action)
        self.left -= 1
        return self.observation_space.sample(), float(action.sum()), False, self.left == 0, {}


gymnasium.register(REACH, entry_point=Reach)


def save(folder: Path, controller: dict[str, Any], env: str, action_repeat: int = 1) -> Path:
    """A tiny agent of this task, untrained."""
    task = gymnasium.make(env)
    own = {"observation": task.observation_space, "action": task.action_space}
    torch.manual_seed(0)
    agent = PlanningAgent(*(spaces.flatdim(space) for space in own.values()), MODEL, controller, {})
    folder.mkdir(parents=True)
    description = {
        "algorithm": "planet",
        "env": {"id": env, "action_repeat": action_repeat},
        "spaces": {kind: describe_space(space) for kind, space in own.items()},
        "world_model": MODEL,
        "controller": controller,
        "decoder": {},
        "env_steps": 0,
    }
    save_agent(folder, agent, description)
    return folder


@pytest.fixture
def reach(tmp_path):
    return save(tmp_path / "reach", {**FULL, "warm_start": True}, REACH)


# Acting.


@pytest.mark.parametrize("space", [Reach.observation_space, Reach.action_space, spaces.Box(0, 255, (2, 2), np.uint8)])
def test_a_space_comes_back_from_its_description(space):
    assert space_of(describe_space(space)) == space


def test_the_three_lines_of_the_readme_need_no_ray(tmp_path):
    folder = save(
        tmp_path / "runs" / "cheetah_run_quick" / "embed" / "trial" / "checkpoint_000000", EMBEDDED, "Pendulum-v1"
    )
    mark_whole(folder, {"env_steps": 0, "score": 1.0})
    (lines,) = re.findall(r"```python\n(agent = parsecrl\.load_agent.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert lines.count("\n") == 3
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import numpy as np, parsecrl\n"
        "obs = np.array([1, 0, 0], np.float32)\n"
        f"{lines}"
        "assert action.shape == (1,) and action.dtype == np.float32 and abs(action) <= 2, action\n"
        "assert all(isinstance(value, np.ndarray) for value in state.values())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def play(agent: Any, episode: int) -> list[np.ndarray]:
    """The actions of an episode of evaluation, in the bare task."""
    task, state, actions, over = Reach(), agent.initial_state(), [], False
    obs, _ = task.reset(seed=episode_seed(3, episode))
    while not over:
        action, state = agent.act(obs, state)
        actions.append(action)
        obs, _, _, over, _ = task.step(action)
    return actions


def test_actions_are_exactly_those_of_the_evaluation(reach):
    agent = parsecrl.load_agent(reach, seed=3)
    for episode in (0, 1):
        Reach.played.clear()
        evaluate(reach, episodes=[episode], seed=3, batch_size=1)
        evaluated = list(Reach.played)
        assert len(evaluated) == 5
        assert np.array_equal(play(agent, episode), evaluated)
        assert evaluated[0].dtype == np.float64


@pytest.mark.parametrize("box", [spaces.Box(0, 1, (2,), np.bool_), spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64)])
def test_actions_of_other_types_are_those_of_the_evaluation(tmp_path, box):
    class Typed(Reach):
        action_space = box

        def step(self, action):
            self.played.append(action)
            return self.observation_space.sample(), 0.0, False, False, {}

    name = f"parsecrl_tests/Typed{box.dtype}-v0"
    gymnasium.register(name, entry_point=Typed)
    agent = parsecrl.load_agent(save(tmp_path / "typed", FULL, name))
    obs, state, border = Reach().reset(seed=0)[0], agent.initial_state(), make_env(name)
    for bound in (-1.0, 0.3, 1.0):
        agent._policy.act = lambda state, obs, rng, bound=bound: (np.full((1, *box.shape), bound), state)
        border.reset(seed=0)
        Reach.played.clear()
        border.step(np.full(box.shape, bound))
        action, _ = agent.act(obs, state)
        assert np.array_equal(action, Reach.played[0])
        assert box.contains(action)


def test_a_batch_acts_as_its_rows(reach):
    agent = parsecrl.load_agent(str(reach))
    rows = [Reach().reset(seed=seed)[0] for seed in range(3)]
    batch = gymnasium.vector.utils.concatenate(
        Reach.observation_space, rows, gymnasium.vector.utils.create_empty_array(Reach.observation_space, 3)
    )
    together, state = agent.act(batch, agent.initial_state(3))
    assert together.shape == (3, 2)
    assert state["h"].shape == (3, 12)
    for row, action in zip(rows, together, strict=True):
        assert np.allclose(agent.act(row, agent.initial_state())[0], action, atol=1e-4)


def test_only_a_generator_makes_actions_random(reach):
    agent = parsecrl.load_agent(reach)
    obs, state = Reach().reset(seed=0)[0], agent.initial_state()

    def act(generator=None):
        return agent.act(obs, state, generator)[0]

    assert np.array_equal(act(), act())
    rng = np.random.default_rng(0)
    first, second = act(rng), act(rng)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, act(np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"velocity": np.zeros(3)},
            r"obs\['velocity'\] must have the shape \(2,\) of its space, got \(3,\); give it as the task returns it",
        ),
        ({"velocity": np.array([0.0, np.nan])}, r"obs\['velocity'\]\[1\] must be a finite number in float32, got nan"),
        ({"mode": 7}, r"obs\['mode'\] must be a whole number from 1 to 3, got 7"),
        ({"height": 1}, "obs must be a dict with the key 'angle', got a dict of height"),
    ],
)
def test_a_bad_observation_is_refused(reach, change, words):
    agent = parsecrl.load_agent(reach)
    obs = change if "height" in change else {**Reach().reset(seed=0)[0], **change}
    with pytest.raises(ValueError, match=words):
        agent.act(obs, agent.initial_state())


def test_other_bad_arguments_are_refused(reach, tmp_path):
    agent = parsecrl.load_agent(reach)
    obs = Reach().reset(seed=0)[0]
    with pytest.raises(ValueError, match=r"state must hold h, s, action, plan, got x; begin with agent\.initial"):
        agent.act(obs, {"x": np.zeros(1)})
    with pytest.raises(ValueError, match="obs must be those of 2 environments"):
        agent.act(obs, agent.initial_state(2))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        agent.initial_state(0)
    with pytest.raises(ValueError, match="no checkpoint at"):
        parsecrl.load_agent(tmp_path / "nowhere")


# Training.


def planet(env: Any = "Pendulum-v1", **env_config: Any) -> Any:
    config = parsecrl.PlanetConfig().environment(env, env_config={"action_repeat": 20, **env_config})
    config.world_model, config.controller, config.batch_size, config.batch_length = MODEL, FULL, 4, 6
    config.seed_episodes, config.train_ratio, config.decisions_per_iteration = 1, 0.01, 20
    return config


def dcem_ppo(start_from: Path) -> Any:
    config = parsecrl.DCEMPPOConfig().environment("Pendulum-v1", env_config={"action_repeat": 20})
    config.start_from, config.episodes_per_step = str(start_from), 1
    return config


def latent_sac() -> Any:
    world = {"size": 3, "start": (0, 0), "goal": (2, 2), "episode_steps": 30, "observation_size": 8}
    config = parsecrl.LatentSACConfig().environment("parsecrl/Gridworld-v0", env_config=world).debugging(seed=3)
    config.latent_model = {"kind": "parsimonious", "latent_size": 6, "code_size": 5, "hidden_size": 32}
    config.policy_network, config.batch_size = {"hidden_size": 32, "num_layers": 2}, 32
    config.policy_updates, config.dynamics_updates, config.episodes_per_step = 2, 2, 1
    return config


def test_a_registered_creator_and_a_class_are_wrapped():
    from ray import tune

    tune.register_env("parsecrl_tests_reach", Reach)
    for env in ("parsecrl_tests_reach", Reach):
        config = planet(env, color="red")
        config.validate()
        config.validate()  # once more changes nothing
        task = gymnasium.make(config.env, **config.env_config)
        assert task.observation_space.shape == (13,)
        assert task.observation_space.dtype == np.float32
        assert task.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
        assert task.get_wrapper_attr("task_action_space") == Reach.action_space
        assert task.unwrapped.config == {"color": "red"}
        assert config.action_repeat == 20
        described = config.task_description()
        assert described["id"] == ""
        assert described["made_by"].endswith(str(env) if isinstance(env, str) else ":Reach")


@pytest.mark.ray
@pytest.mark.parametrize("name", ["Planet", "DCEMPPO", "LatentSAC"])
def test_a_config_trains_restores_acts_and_is_tuned(name, ray_runtime, tmp_path):
    from ray import tune

    makers = {
        "Planet": planet,
        "DCEMPPO": lambda: dcem_ppo(save(tmp_path / "agent", EMBEDDED, "Pendulum-v1", 20)),
        "LatentSAC": latent_sac,
    }
    config = makers[name]()
    algorithm = config.build_algo()
    steps = algorithm.train()["env_steps"]
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    assert steps > 0
    # A checkpoint names no place: it needs no folder of the phase before.
    place = tmp_path.name.encode()
    assert not [file for file in Path(path).rglob("*") if file.is_file() and place in file.read_bytes()]
    began = tmp_path / "agent"
    away = began.rename(tmp_path / "away") if began.exists() else began
    restored = getattr(parsecrl, name).from_checkpoint(path)
    if away != began:
        away.rename(began)
    assert restored.train()["env_steps"] > steps
    restored.stop()

    results = tune.Tuner(
        name,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            name="tuned",
            stop={"training_iteration": 1},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    assert results[0].metrics["env_steps"] > 0

    for folder in (path, results[0].checkpoint.path):
        agent = parsecrl.load_agent(folder)
        state = agent.initial_state()
        if name == "LatentSAC":
            action, _ = agent.act(np.ones(12, np.float32), state)
            drawn = [int(agent.act(np.ones(12, np.float32), state, np.random.default_rng(i))[0]) for i in range(20)]
            assert action in range(5)
            assert len({*drawn}) > 1
        else:
            action, _ = agent.act(np.array([1, 0, 0], np.float32), state)
            assert action.shape == (1,)
            assert evaluate(folder, episodes=1).env_steps.tolist() == [200]


@pytest.mark.ray
def test_arguments_of_the_task_reach_the_evaluation(ray_runtime, tmp_path):
    algorithm = planet(g=2.5).build_algo()
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    agent = parsecrl.load_agent(path)
    assert agent.description["env"] == {"id": "Pendulum-v1", "action_repeat": 20, "kwargs": {"g": 2.5}}
    own = evaluate(path, episodes=1)
    given = evaluate(path, {"id": "Pendulum-v1", "action_repeat": 20}, episodes=1)
    assert own.episode_return[0] != given.episode_return[0]


@pytest.mark.ray
def test_a_task_without_an_id_is_trained_and_refused_elsewhere(ray_runtime, tmp_path):
    algorithm = planet(Reach, action_repeat=1).build_algo()
    assert algorithm.train()["env_steps"] > 0
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    assert len(play(parsecrl.load_agent(path), 0)) == 5
    with pytest.raises(UserError, match=r"was trained on .*:Reach, which no id names; register it with gymnasium"):
        evaluate(path, episodes=1)
    assert len(evaluate(path, {"id": REACH}, episodes=1)) == 1


class Halved(parsecrl.RSSM):
    """Its rewards are half of what its parent predicts."""

    def predict_rewards(self, *arguments: Any, **options: Any) -> Any:
        return super().predict_rewards(*arguments, **options) / 2


@pytest.mark.ray
def test_a_subclass_of_the_model_in_a_users_module_is_saved_loaded_and_evaluated(ray_runtime, tmp_path):
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from parsecrl.algorithms.planet.planet_rl_module import PlanetRLModule

    class HalvedModule(PlanetRLModule):
        def setup(self):
            super().setup()
            self.agent.model = Halved(3, 1, **MODEL)

    algorithm = planet().rl_module(rl_module_spec=RLModuleSpec(module_class=HalvedModule)).build_algo()
    algorithm.train()
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    steps = algorithm.phase_results()["env_steps"]
    algorithm.restore_from_path(path)
    assert algorithm.train()["env_steps"] > steps
    algorithm.stop()
    with pytest.raises(ValueError, match=r"made by the code tests\.test_python_door:Halved, .* --trust"):
        parsecrl.load_agent(path)
    agent = parsecrl.load_agent(path, trust=True)
    described = agent.description["world_model"]
    assert described["kind"] == "tests.test_python_door:Halved"
    assert described["options"].items() >= MODEL.items()
    assert agent.act(np.array([1, 0, 0], np.float32), agent.initial_state())[0].shape == (1,)
    assert evaluate(path, episodes=1, trust=True).env_steps.tolist() == [200]


@pytest.mark.ray
def test_a_model_that_the_settings_do_not_describe_is_refused_at_build(ray_runtime):
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from parsecrl.algorithms.planet.planet_rl_module import PlanetRLModule

    class Wider(parsecrl.RSSM):
        pass

    class WiderModule(PlanetRLModule):
        def setup(self):
            super().setup()
            self.agent.model = Wider(3, 1, **MODEL)

    config = planet().rl_module(rl_module_spec=RLModuleSpec(module_class=WiderModule))
    with pytest.raises(
        ValueError, match=r"WiderModule could be loaded: its agent.model is .*Wider.*kind.*module:Class"
    ):
        config.build_algo()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (lambda: parsecrl.PlanetConfig().environment("parsecrl/Control-v0"), "needs a task; give .environment"),
        (lambda: parsecrl.PlanetConfig().environment(7), "an environment must be an id, a class or a registered name"),
        (lambda: latent_sac().env_runners(num_env_runners=2), "plays and learns in one process, got num_env_runners=2"),
    ],
)
def test_a_config_that_cannot_work_is_refused(config, words):
    with pytest.raises(ValueError, match=words):
        config().validate()
