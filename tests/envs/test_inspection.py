"""What playing a task at random finds: numbers, and the sentence for each promise that a task can break."""

import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from parsecrl.envs import make_env, make_world
from parsecrl.envs.inspection import BrokenTask, inspect_task, limit_of
from tests.envs import case_worlds  # noqa: F401 (registers them)

SEEDS = (7, 2**31 + 5)


def case(name):
    return inspect_task(lambda: make_env(f"tests.envs.case_worlds:{name}-v0"), name, SEEDS)


def own(env):
    return inspect_task(lambda: make_env(lambda arguments: env), "Own-v0", SEEDS)


class World(gymnasium.Env):
    """Five steps, a reward of 1 each; a test changes what it returns."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        return self.observe(), 1.0, False, self.time == 5, {}

    def observe(self):
        return np.zeros(2, np.float32)


def test_numbers_of_a_task_that_ends_by_time():
    found = case("Point")
    assert found.lengths == (30,) * 4
    assert found.num_terminated == 0
    assert len(found.rewards) == found.env_steps == 120
    assert found.random_return["mean"] == pytest.approx(found.rewards.sum() / 4)
    assert found.random_return["std"] == pytest.approx(np.std(found.returns, ddof=1))
    assert found.random_return["episodes"] == 4
    assert found.rewards.max() <= 1.0
    assert (found.first_low[0] >= -1) & (found.first_high[0] <= 1)
    assert found.first_low[0] < found.first_high[0]
    assert found.first_low[1] == found.first_high[1] == 0.0
    assert found.reproducible
    assert found.ends
    assert found.warnings == ()


def test_numbers_of_a_task_that_terminates():
    found = case("TwoLengths")
    assert set(found.lengths) <= {2, 40}
    assert found.returns == tuple(map(float, found.lengths))
    assert found.num_terminated == 4


def test_a_task_without_an_end_is_played_for_a_bounded_time():
    start = time.perf_counter()
    found = inspect_task(
        lambda: make_env("tests.envs.case_worlds:PointWithoutEnd-v0"), "PointWithoutEnd", SEEDS, search_seconds=0.3
    )
    assert time.perf_counter() - start < 2.0
    assert not found.ends
    assert found.random_return is None


def test_an_episode_with_a_known_limit_is_not_played_to_its_end():
    found = inspect_task(lambda: make_env("dm_control/cheetah-run-v0", 4), "cheetah", SEEDS, seconds=0.0)
    assert found.limit == 1000
    assert found.ends
    assert found.env_steps == 2 * 8 * 4  # eight decisions for each seed
    assert found.lengths == ()


@pytest.mark.parametrize(
    ("id", "limit"),
    [
        ("Pendulum-v1", 200),
        ("dm_control/cartpole-swingup-v0", 1000),
        ("parsecrl/Gridworld-v0", 250),
        ("tests.envs.case_worlds:PointWithoutEnd-v0", None),
    ],
)
def test_limits_that_a_task_tells(id, limit):
    env = make_world(id) if "Grid" in id else make_env(id)
    assert limit_of(env) == limit
    env.close()


def test_a_world_with_discrete_actions_from_one():
    found = inspect_task(lambda: make_world("tests.envs.case_worlds:ChainFromOne-v0"), "Chain", SEEDS)
    assert set(found.returns) <= {0.0, 1.0}
    assert max(found.lengths) <= 20


def test_the_older_interface_of_step():
    with pytest.raises(BrokenTask, match="step must return five values, got four, which is"):
        case("OldInterface")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PointNaNObservation", r"at step 7 of an episode: the observation\[0\] must be a finite number"),
        ("PointNaNReward", "at step 7 of an episode: the reward must be a finite number in float32, got nan"),
        ("PointRaises", r"fails in step: RuntimeError: simulator lost its licence \(.*case_worlds.py:\d+\)"),
    ],
)
def test_faults_that_come_early_enough_are_met(name, said):
    with pytest.raises(BrokenTask, match=said):
        case(name)


def test_the_older_interface_of_reset():
    class NoInfo(World):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    class NoSeed(World):
        def reset(self):
            return super().reset()

    with pytest.raises(BrokenTask, match=r"reset must return a tuple \(observation, info\)"):
        own(NoInfo())
    with pytest.raises(ValueError, match="must take the keywords seed and options"):
        own(NoSeed())


def test_a_close_that_fails_is_met_and_hides_nothing():
    class Stuck(World):
        def close(self):
            raise RuntimeError("the port is gone")

    class Broken(Stuck):
        def step(self, action):
            raise KeyError("joint")

    with pytest.raises(BrokenTask, match=r"fails in close: RuntimeError: the port is gone \(.*test_inspection.py:"):
        own(Stuck())
    with pytest.raises(BrokenTask, match=r"fails in step: KeyError: 'joint' \(.*test_inspection.py:"):
        own(Broken())


def test_seeds_that_a_simulator_cannot_take():
    class Int32(World):
        def reset(self, *, seed=None, options=None):
            np.array([seed]).astype(np.int64)
            if seed >= 2**31:
                raise OverflowError("Python int too large to convert to C int")
            return super().reset(seed=seed)

    said = r"must take seeds from 0 to 2\*\*32 - 1, got OverflowError: .* from 2147483653"
    with pytest.raises(BrokenTask, match=said):
        own(Int32())


def test_what_reset_raises_is_not_blamed_on_the_seed():
    class Broken(World):
        def reset(self, *, seed=None, options=None):
            raise OSError("no such port")

    with pytest.raises(BrokenTask, match=r"fails in reset\(seed=7\): OSError: no such port \(.*test_inspection.py:"):
        own(Broken())


def test_a_float_beyond_its_box_is_a_warning_with_entry_value_and_bounds():
    class Beyond(World):
        def observe(self):
            return np.array([0.5, 1.25], np.float32)

    found = own(Beyond())
    (warning,) = found.warnings
    assert (
        "an observation of environment 'Own-v0' lies outside its space after 0 steps: entry 1 of the vector is"
        in warning
    )
    assert "is 1.25, its bounds are -1 and 1" in warning


def test_rounding_is_no_warning():
    class Rounded(World):
        def observe(self):
            return np.array([0.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)

    assert own(Rounded()).warnings == ()


def test_unseeded_draws_are_a_warning():
    class Unseeded(World):
        def observe(self):
            return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)

    found = own(Unseeded())
    assert not found.reproducible
    assert "begins differently when it is reset twice with the same seed" in found.warnings[0]


def test_reused_arrays_are_told_apart():
    class Reused(World):
        def __init__(self):
            self.array = np.zeros(2, np.float32)

        def observe(self):
            self.array[:] = self.np_random.uniform(-1, 1, 2)
            return self.array

    found = own(Reused())
    assert found.reproducible
    assert (found.first_low < found.first_high).all()


def test_it_needs_neither_ray_nor_torch():
    code = "import sys; sys.modules['ray'] = sys.modules['torch'] = None; import parsecrl.envs.inspection"
    subprocess.run([sys.executable, "-c", code], check=True)
