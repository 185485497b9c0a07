"""The first-person worlds: ViZDoom's health gathering and dm_control's maze of goals."""

import os
import signal
import subprocess
import sys
import time
import warnings

import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium.utils.env_checker import check_env

from parsecrl.envs import choose_rendering_backend
from parsecrl.envs.health_gathering import block_means

DOOM, MAZE = "parsecrl/HealthGathering-v0", "parsecrl/GoalsMaze-v0"
FORWARD, BACK, LEFT, RIGHT, TURN_LEFT, TURN_RIGHT = range(6)
needs_gl = pytest.mark.skipif(choose_rendering_backend() == "off", reason="no rendering back end on this machine")
WORLDS = [DOOM, pytest.param(MAZE, marks=needs_gl)]


@pytest.fixture
def make():
    made = []

    def make(id, **options):
        made.append(gymnasium.make(id, **options).unwrapped)
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env, seed, steps):
    """(images [steps + 1], rewards) of seeded random actions."""
    rng = np.random.default_rng(seed)
    images, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        image, reward, terminated, truncated, _ = env.step(rng.integers(6))
        images.append(image)
        rewards.append(reward)
        assert not terminated
        assert not truncated
    return np.stack(images), rewards


@pytest.mark.parametrize("id", WORLDS)
def test_gymnasiums_checker_has_nothing_to_say_of_pixels(id, make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(id, render_mode="rgb_array"), skip_render_check=True)


@pytest.mark.parametrize("id", WORLDS)
def test_an_episode_is_its_seeds_whatever_came_before(id, make):
    env = make(id, render_mode="rgb_array")
    before = np.random.get_state()[1].copy()  # noqa: NPY002  the generator that others share
    images, rewards = play(env, 1, 12)
    other, _ = play(env, 2, 12)
    again, rewards_again = play(env, 1, 12)
    fresh, _ = play(make(id), 1, 12)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(images, fresh)
    assert rewards == rewards_again
    assert not np.array_equal(images[0], other[0])
    assert images.shape == (13, 80, 80, 3)
    assert images.dtype == np.uint8
    assert images.std() > 10
    assert np.abs(np.diff(images.astype(int), axis=0)).mean() > 0.5  # the view moves
    frame = env.render()
    assert frame.shape == (240, 320 if id == DOOM else 240, 3)
    small = frame[1::3, 1 :: frame.shape[1] // 80].astype(int)  # the same view as the observation
    assert np.abs(small - again[-1]).mean() < 0.5 * np.abs(small - images[0]).mean()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002  it is what must stay as it was


@pytest.mark.parametrize("id", WORLDS)
def test_bad_arguments_of_pixel_worlds_are_refused(id, make):
    with pytest.raises(
        ValueError, match=r"frame_skip must be a whole number of 1 or more, got 0; set world\.frame_skip"
    ):
        make(id, frame_skip=0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        type(make(id))(render_mode="human")
    with pytest.raises(ValueError, match=r"from 0 to 5 \(FORWARD, BACK, .*\), got 6"):
        make(id).step(6)
    with pytest.raises(gymnasium.error.ResetNeeded):
        make(id).step(0)


# --- health gathering ------------------------------------------------------------------------------------------------


def test_actions_do_what_they_are_called(make):
    env = make(DOOM)

    def pose():
        names = ("POSITION_X", "POSITION_Y", "ANGLE")
        return np.array([env._game.get_game_variable(getattr(env._vizdoom.GameVariable, name)) for name in names])

    moved, turned = {}, {}
    for action in range(6):
        env.reset(seed=11)
        before = pose()
        for _ in range(4):
            env.step(action)
        (dx, dy, angle), heading = pose() - before, np.radians(before[2])
        moved[action] = (dx * np.cos(heading) + dy * np.sin(heading), dy * np.cos(heading) - dx * np.sin(heading))
        turned[action] = (angle + 180) % 360 - 180  # degrees, to the left
    for action, (ahead, aside), turn in (
        (FORWARD, (1, 0), 0), (BACK, (-1, 0), 0), (LEFT, (0, 1), 0), (RIGHT, (0, -1), 0), (TURN_LEFT, (0, 0), 1),
        (TURN_RIGHT, (0, 0), -1),
    ):  # fmt: skip
        far = np.array(moved[action])
        np.testing.assert_array_equal(np.sign(np.where(np.abs(far) < 1, 0, far)), (ahead, aside))
        assert np.sign(round(turned[action])) == turn


def test_rewards_are_changes_in_health_until_death(make):
    env = make(DOOM, frame_skip=8)
    image, info = env.reset(seed=0)
    health, terminated, total = [info["health"]], False, 0.0
    while not terminated:
        last = image
        image, reward, terminated, truncated, info = env.step(TURN_LEFT)
        health.append(info["health"])
        total += reward
        assert reward == health[-1] - health[-2]
        assert not truncated
    assert total == health[-1] - health[0] < -80
    assert health[-1] <= 0
    np.testing.assert_array_equal(image, last)  # there is no picture of death
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(FORWARD)


def test_frame_skip_is_the_number_of_ticks(make):
    def ticks(env):
        env.reset(seed=0)
        before = env._game.get_episode_time()
        env.step(FORWARD)
        return env._game.get_episode_time() - before

    assert [ticks(make(DOOM, frame_skip=n)) for n in (1, 4)] == [1, 4]
    assert make(DOOM, frame_skip=4).metadata["render_fps"] == 35 / 4


def test_block_means_are_means():
    screen = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    screen[:3, :4] = 255
    expected = screen.reshape(80, 3, 80, 4, 3).astype(np.uint64).sum((1, 3)) // 12
    np.testing.assert_array_equal(block_means(screen), expected)


def engines(of):
    return [child for child in psutil.Process(of).children(recursive=True) if child.name() == "vizdoom"]


def test_close_ends_the_engine_and_leaves_no_files(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(DOOM)
    assert engines(os.getpid()) == []
    env.reset(seed=0)
    (engine,) = engines(os.getpid())
    folder = engine.cwd()
    env.close()
    engine.wait(timeout=10)
    assert not os.path.exists(folder)
    assert list(tmp_path.iterdir()) == []


def test_the_engine_of_a_killed_process_ends():
    code = f"""
import gymnasium, parsecrl.envs, time
env = gymnasium.make({DOOM!r})
env.reset(seed=0)
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    (engine,) = engines(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 120
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_engine_that_dies_is_named(make):
    env = make(DOOM)
    env.reset(seed=0)
    engines(os.getpid())[0].kill()
    with pytest.raises(RuntimeError, match=r"Doom's engine ended .*; make the world again"):
        [env.step(FORWARD) for _ in range(3)]


def test_a_missing_vizdoom_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ValueError, match=r"needs the package vizdoom.*run pip install 'parsec-rl\[pixels\]'"):
        gymnasium.make(DOOM)


# --- the maze --------------------------------------------------------------------------------------------------------


@needs_gl
def test_touching_balls_pays_once_and_all_of_them_end_the_episode(make):
    env = make(MAZE)
    env.reset(seed=0)
    task, physics = env._env.task, env._env.physics
    rewards = []
    for targets in task._active_targets:  # green, red
        assert len(targets) == len(task._active_targets[0])
        for target in targets:
            position = physics.bind(target.geom).xpos.copy()
            task._walker.set_pose(physics, [*position[:2], 0.0])
            _, reward, terminated, truncated, _ = env.step(TURN_LEFT)
            rewards.append(reward)
            assert not truncated
    half = len(rewards) // 2
    assert rewards == [1.0] * half + [-1.0] * half
    assert terminated


@needs_gl
def test_the_maze_ends_with_its_time(make):
    env = make(MAZE, frame_skip=4, seconds=0.5)
    env.reset(seed=0)
    assert [env.step(TURN_LEFT)[2:4] for _ in range(5)] == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(ValueError, match=r"seconds must be a number above 0, got 0; set env\.seconds"):
        make(MAZE, seconds=0)


@needs_gl
def test_the_ball_moves_and_turns(make):
    env = make(MAZE)

    def pose():
        physics, walker = env._env.physics, env._env.task._walker
        body = physics.bind(walker.root_body)
        return body.xpos[:2].copy(), body.xmat.reshape(3, 3)[:2, :2].copy()

    env.reset(seed=4)
    start = env._env.physics.get_state()

    def after(action):
        env._env.physics.set_state(start)
        env._env.physics.forward()
        position, frame = pose()
        for _ in range(3):
            env.step(action)
        there, turned = pose()
        turn = np.arctan2(*(frame.T @ turned)[1::-1, 0])  # radians, to the left
        return frame.T @ (there - position), turn

    results = [after(action) for action in range(6)]
    assert np.linalg.norm(results[FORWARD][0]) > 0.05
    assert np.linalg.norm(results[BACK][0]) > 0.05
    assert results[FORWARD][0] @ results[BACK][0] < 0
    assert results[TURN_LEFT][1] > 0.2
    assert results[TURN_RIGHT][1] < -0.2
    assert results[LEFT][1] > 0.05 > -0.05 > results[RIGHT][1]
    assert abs(results[FORWARD][1]) < 0.05
