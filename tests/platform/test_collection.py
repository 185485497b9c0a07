"""Collecting episodes of pixels: by number, by workers, again after damage, and not into other data."""

import filecmp
import io
import os

import numpy as np
import pytest

from parsecrl.algorithms.latent_study.worlds import make_pixel_world
from parsecrl.algorithms.offline_data.picture_collector import Collector, Task
from parsecrl.algorithms.open_loop.dataset import open_dataset
from parsecrl.algorithms.registry.algorithm import Episodes
from parsecrl.envs import choose_rendering_backend
from parsecrl.envs.health_gathering import EngineEnded
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.collection import collect
from parsecrl.platform.terminal import StatusLine

DOOM = {"id": "parsecrl/HealthGathering-v0", "frame_skip": 8}  # an episode has some 45 steps


def run(folder, *, episodes=3, workers=1, seed=0, world=DOOM, held_out=2, held_out_steps=12):
    stream = io.StringIO()
    wanted = Episodes(str(folder), world, episodes, 20, held_out, held_out_steps, seed, workers)
    collect(wanted, StatusLine(stream))
    return stream.getvalue()


@pytest.fixture
def collector():
    collector = Collector(DOOM, seed=0)
    yield collector
    collector.close()


def test_an_episode_is_its_number_and_its_actions_are_uniform(collector):
    first = collector.collect(Task("train", 0, 400, False)).episode
    other = collector.collect(Task("train", 1, 20, False)).episode
    again = collector.collect(Task("train", 0, 400, False)).episode
    np.testing.assert_array_equal(first.images, again.images)
    assert first.seed == again.seed != other.seed
    assert first.terminated
    assert not other.terminated
    assert len(other.actions) == 20
    assert len(first.images) == len(first.actions) + 1 == len(first.rewards) + 1
    held_out = collector.collect(Task("held_out", 0, 12, True)).episode
    assert held_out.seed != first.seed
    assert len(np.unique(first.actions)) == 6


@pytest.mark.skipif(choose_rendering_backend() == "off", reason="no rendering back end on this machine")
def test_an_episode_of_the_maze_is_its_number_too():
    maze = Collector({"id": "parsecrl/GoalsMaze-v0"}, seed=0)
    try:
        first, again, other = (maze.collect(Task("train", number, 12, False)).episode for number in (0, 0, 1))
    finally:
        maze.close()
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.shape == (13, 80, 80, 3)
    assert first.images.std() > 5
    assert not np.array_equal(first.images[0], other.images[0])


def test_a_held_out_episode_that_ends_is_played_again(collector):
    collected = [collector.collect(Task("held_out", number, 46, True)) for number in range(4)]
    assert {len(one.episode.actions) for one in collected} == {46}
    assert not any(one.episode.terminated for one in collected)
    assert max(one.attempts for one in collected) > 1


def test_episodes_that_never_last_are_refused(collector, monkeypatch):
    monkeypatch.setattr("parsecrl.algorithms.offline_data.picture_collector.ATTEMPTS", 2)
    with pytest.raises(
        ValueError, match=r"got none of 3000 steps in 2 of .*; lower data\.held_out_steps or world\.frame_skip"
    ):
        collector.collect(Task("held_out", 0, 3000, True))


@pytest.mark.parametrize("error", [EngineEnded("the engine ended"), RuntimeError("no licence")])
def test_an_engine_that_dies_is_started_again_and_nothing_else(collector, monkeypatch, error):
    expected = collector.collect(Task("train", 0, 20, False)).episode
    step, calls = collector.env.step, []

    def break_once(action):
        calls.append(action)
        if len(calls) == 5:
            raise error
        return step(action)

    monkeypatch.setattr(collector.env, "step", break_once)
    if not isinstance(error, EngineEnded):
        with pytest.raises(RuntimeError, match="no licence"):
            collector.collect(Task("train", 0, 20, False))
        assert len(calls) == 5
        return
    again = collector.collect(Task("train", 0, 20, False)).episode
    np.testing.assert_array_equal(again.images, expected.images)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ({"id": "parsecrl/HealthGathering-v1"}, r"HealthGathering-v1.; did you mean parsecrl/HealthGathering-v0"),
        ({"id": "parsecrl/HealthGathering-v0", "frames": 3}, "takes no argument 'frames', it takes frame_skip"),
        ({"id": "parsecrl/Torus-v0"}, r"uint8 pictures \[S, S, 3\] and discrete actions"),
        ({"id": "parsecrl/HealthGathering-v0", "frame_skip": 0}, "frame_skip must be a whole number of 1 or more"),
    ],
)
def test_worlds_that_are_not_of_pixels_are_refused(tmp_path, world, message):
    with pytest.raises(ValueError, match=message):
        make_pixel_world(world)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "data", world=world)
    assert not (tmp_path / "data").exists()


@pytest.mark.ray
def test_data_do_not_depend_on_workers_and_damage_is_mended(tmp_path, ray_runtime):
    one, two = tmp_path / "one", tmp_path / "two"
    said = run(one, workers=1)
    assert "[####################] 5 of 5 episodes" in said
    run(two, workers=2)
    names = [
        f"{split}/{number}/part-0.arrow" for split, count in (("train", 3), ("held_out", 2)) for number in range(count)
    ]
    assert filecmp.cmpfiles(one, two, names, shallow=False) == (names, [], [])
    assert open_dataset(one, "held_out").stack(13).images.shape == (2, 13, 3, 80, 80)

    times = {name: (one / name).stat().st_mtime_ns for name in names}
    os.truncate(one / names[1], 1000)
    said = run(one)
    assert f"{one / names[1]} is truncated or damaged" in said
    assert "collecting it again" in said
    assert "1 of 1 episodes" in said
    assert filecmp.cmpfiles(one, two, names, shallow=False) == (names, [], [])
    kept = [name for name in names if (one / name).stat().st_mtime_ns == times[name]]
    assert kept == [names[0], *names[2:]]
    assert run(one) == ""

    with pytest.raises(UserError, match=r"holds episodes of other settings \({'seed': 0} where .* {'seed': 1}\)"):
        run(one, seed=1)
    with pytest.raises(UserError, match="holds 3 episodes, more than the 2 that are asked for"):
        run(one, episodes=2)
    run(one, episodes=4)
    assert len(open_dataset(one, "train")) == 4


def test_impossible_places_are_refused(tmp_path):
    with pytest.raises(UserError, match="a folder that all nodes see, got s3://bucket/data"):
        run("s3://bucket/data")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made .*; give another folder"):
        run(tmp_path / "file")
