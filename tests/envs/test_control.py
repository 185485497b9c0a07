"""The environments against dm_control and Gymnasium themselves."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from parsecrl.envs import make_env

CHEETAH = "dm_control/cheetah-run-v0"
WALKER = "dm_control/walker-walk-v0"


class Counter(gymnasium.Env):
    """Rewards 1, 2, 3, ...; ends after `length` steps, by time or by failure."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int, fails: bool):
        self.length, self.fails, self.t = length, fails, 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.t < self.length, "stepped past the end"
        self.t += 1
        end = self.t == self.length
        return np.full(1, self.t, np.float32), float(self.t), end and self.fails, end and not self.fails, {}


@pytest.mark.parametrize("fails", [False, True])
def test_action_repeat_sums_rewards_and_stops_at_the_end(fails):
    env = make_env(lambda arguments: Counter(7, fails), 3)
    env.reset()
    steps = [env.step(np.zeros(1)) for _ in range(3)]
    assert [s[1] for s in steps] == [1 + 2 + 3, 4 + 5 + 6, 7]
    assert [s[4]["env_steps"] for s in steps] == [3, 3, 1]
    assert [(s[2], s[3]) for s in steps] == [(False, False), (False, False), (fails, not fails)]


@pytest.mark.parametrize("id", [CHEETAH, WALKER])
def test_observation_is_dm_controls_in_alphabetical_order(id):
    from dm_control import suite

    env = make_env(id)
    obs, _ = env.reset(seed=3)
    domain, task = id.removeprefix("dm_control/").removesuffix("-v0").split("-")
    theirs = suite.load(domain, task, task_kwargs={"random": 3})
    expected = theirs.reset().observation
    assert obs.dtype == np.float32
    assert env.observation_space.dtype == np.float32
    assert env.observation_space.shape == obs.shape
    assert env.observation_space.contains(obs)
    np.testing.assert_array_equal(
        obs, np.concatenate([np.ravel(expected[k]) for k in sorted(expected)]).astype("float32")
    )

    action = np.linspace(-0.9, 0.8, 6).astype(np.float32)
    obs, reward, *_ = env.step(action)
    step = theirs.step(action.astype(np.float64))
    np.testing.assert_array_equal(
        obs, np.concatenate([np.ravel(step.observation[k]) for k in sorted(step.observation)]).astype("float32")
    )
    assert reward == step.reward


@pytest.mark.parametrize(("repeat", "decisions", "last"), [(1, 1000, 1), (4, 250, 4), (3, 334, 1)])
def test_time_limit_truncates_and_never_terminates(repeat, decisions, last):
    env = make_env(CHEETAH, repeat)
    env.reset(seed=0)
    action, total = np.zeros(6, np.float32), 0
    for t in range(1, decisions + 1):
        _, _, terminated, truncated, info = env.step(action)
        total += info["env_steps"]
        assert not terminated
        assert truncated == (t == decisions)
    assert (total, info["env_steps"]) == (1000, last)


def test_seed_fixes_the_episode():
    def rollout(env, seed):
        obs, _ = env.reset(seed=seed)
        return np.stack([obs, *(env.step(np.full(6, 0.3, np.float32))[0] for _ in range(5))])

    env = make_env(WALKER, 2)
    first = rollout(env, 2**32 - 1)
    assert not np.array_equal(first, rollout(env, 5))
    np.testing.assert_array_equal(first, rollout(env, 2**32 - 1))
    np.testing.assert_array_equal(first, rollout(make_env(WALKER, 2), 2**32 - 1))


def test_seed_fixes_a_model_drawn_at_construction_and_unseeded_environments_differ():
    a, b = (make_env("dm_control/lqr-lqr_2_1-v0") for _ in range(2))
    np.testing.assert_array_equal(a.unwrapped.physics.model.jnt_stiffness, b.unwrapped.physics.model.jnt_stiffness)
    assert not np.array_equal(a.reset()[0], b.reset()[0])


def test_actions_are_rescaled_to_the_tasks_bounds_and_clipped():
    env = make_env("Pendulum-v1")  # torque in [-2, 2]
    box = env.action_space
    assert isinstance(box, gymnasium.spaces.Box)
    assert box.dtype == np.float32
    assert box.shape == (1,)
    assert (box.low == -1).all()
    assert (box.high == 1).all()
    task = gymnasium.make("Pendulum-v1")
    for action, torque in [(0.5, 1.0), (-1.0, -2.0), (0.0, 0.0), (7.0, 2.0)]:
        env.reset(seed=1)
        task.reset(seed=1)
        ours, theirs = env.step(np.array([action], np.float32)), task.step(np.array([torque], np.float32))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == pytest.approx(theirs[1])


def test_gymnasium_time_limit_truncates():
    env = make_env("Pendulum-v1", 7)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(29)]  # 28 * 7 = 196 < 200
    assert ends[-1] == (False, True)
    assert not any(any(end) for end in ends[:-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dm_control/cheeta-run-v0",), ["'dm_control/cheeta-run-v0'", "did you mean", "dm_control/cheetah-run-v0"]),
        (("cheetah-run",), ["did you mean", "dm_control/cheetah-run-v0"]),
        (("HalfCheeta-v5",), ["did you mean", "HalfCheetah-v5"]),
        (("CartPole-v1",), ["bounded Box", "Discrete(2)", "continuous actions"]),
        (("no_such_module:Thing-v0",), ["no_such_module:Thing-v0"]),
        (("",), ["''"]),
        (("parsecrl/Control-v0",), ["must name a task"]),
        ((CHEETAH, 0), ["action_repeat", "at least 1", "0", "env.action_repeat"]),
        ((CHEETAH, 1.5), ["action_repeat", "1.5"]),
    ],
)
def test_bad_input_is_one_sentence_with_rule_value_and_remedy(arguments, words):
    with pytest.raises(ValueError) as caught:
        make_env(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_registered_environment_steps_in_rllibs_runner_without_ray(monkeypatch):
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = (
        PPOConfig()
        .environment("parsecrl.envs:parsecrl/Control-v0", env_config={"env_id": CHEETAH, "action_repeat": 4})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=3, rollout_fragment_length=5)
        .debugging(seed=0, log_sys_usage=False)
    )
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    episodes = runner.sample(num_episodes=3, random_actions=True)
    assert runner.num_envs == 3
    assert len({episode.get_observations(0).tobytes() for episode in episodes}) == 3
    for episode in episodes:
        assert len(episode) == 250
        assert episode.is_truncated
        assert not episode.is_terminated
        assert episode.get_observations().dtype == np.float32
        assert 0 <= episode.get_return() <= 1000
    runner.stop()


def test_frames_and_their_rate():
    from parsecrl.envs import choose_rendering_backend

    env = make_env(CHEETAH, 4, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.metadata["render_fps"] == pytest.approx(25)  # a control time step of 0.01 s, four to a decision
    if choose_rendering_backend() == "off":
        pytest.skip("no rendering back end on this machine")
    frame = env.render()
    assert frame.shape == (240, 320, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 1


@pytest.mark.parametrize("backend", ["", "off"])
def test_a_user_sees_no_noise(backend):
    code = f"""
import os
os.environ.pop("DISPLAY", None); os.environ["MUJOCO_GL"] = {backend!r}
if not os.environ["MUJOCO_GL"]: del os.environ["MUJOCO_GL"]
from parsecrl.envs import make_env
env = make_env("dm_control/cheetah-run-v0", 2); env.reset(seed=0); env.step(env.action_space.sample()); env.close()
make_env("Pendulum-v1").close()
print(os.environ["MUJOCO_GL"])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ({"off"} if backend else {"egl", "osmesa", "off", "glfw"})


def test_a_broken_back_end_is_named():
    code = """
import os
os.environ["MUJOCO_GL"] = "nonsense"
from parsecrl.envs import make_env
try: make_env("dm_control/cheetah-run-v0")
except ValueError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "MUJOCO_GL" in done.stdout
    assert "'nonsense'" in done.stdout
    assert "egl, osmesa or off" in done.stdout
