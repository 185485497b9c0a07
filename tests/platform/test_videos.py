"""Videos: what is in the file, and what happens where nothing can be drawn."""

import subprocess
import sys

import imageio.v2 as imageio
import numpy as np
import pytest

from parsecrl.algorithms.reporting.video import STRIP
from parsecrl.envs import choose_rendering_backend
from parsecrl.platform.evaluation.episodes import evaluate, record_video
from parsecrl.platform.evaluation.lockstep import episode_seed
from parsecrl.platform.evaluation.videos import typical_episode
from parsecrl.platform.storage import location_of

WALKER = {"id": "dm_control/walker-walk-v0", "action_repeat": 4}  # control time step 0.025 s: 10 decisions a second


@pytest.mark.skipif(choose_rendering_backend() == "off", reason="no rendering back end on this machine")
def test_video_plays_in_simulated_time(tmp_path):
    file, episode, seed, total = record_video(
        "random", WALKER, 0, tmp_path / "videos" / "random.mp4", episode=2, max_seconds=1.5
    )
    assert (episode, seed) == (2, episode_seed(0, 2))
    assert 0.0 < total < 15.0
    assert file == tmp_path / "videos" / "random.mp4"
    assert [f.name for f in file.parent.iterdir()] == ["random.mp4"]
    with imageio.get_reader(file) as reader:
        meta = reader.get_meta_data()
        frames = np.stack([*reader.iter_data()])
    assert meta["codec"] == "h264"
    assert meta["fps"] == pytest.approx(10)
    assert frames.shape == (16, 240 + STRIP, 320, 3)
    assert np.ptp(frames[-1, 240:]) > 100  # the line of text
    assert frames.std() > 5
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50


@pytest.mark.skipif(choose_rendering_backend() == "off", reason="no rendering back end on this machine")
def test_a_video_goes_to_an_object_store(s3):
    file = location_of(f"{s3}/videos/random.mp4")
    assert record_video("random", WALKER, 0, file, max_seconds=0.3).file == file
    assert file.read_bytes()[4:8] == b"ftyp"


def test_no_back_end_is_a_warning_and_leaves_nothing_behind(tmp_path):
    code = f"""
import os
os.environ["MUJOCO_GL"] = "off"
from parsecrl.platform.evaluation.episodes import evaluate, record_video
print(record_video("random", {WALKER!r}, 0, {str(tmp_path / "v" / "a.mp4")!r}))
print(len(evaluate("random", {{"id": {WALKER["id"]!r}, "action_repeat": 500}}, episodes=1)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["None", "1"]
    (line,) = done.stderr.splitlines()
    assert "no video" in line
    assert "MUJOCO_GL=off" in line
    assert "libegl1" in line
    assert not list(tmp_path.iterdir())


def test_an_environment_that_cannot_render_is_a_warning(tmp_path, caplog):
    assert record_video("random", {"id": "Pendulum-v1"}, 0, tmp_path / "a.mp4") is None or "pygame" in sys.modules
    if "pygame" not in sys.modules:
        assert "no video" in caplog.text
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(choose_rendering_backend() == "off", reason="no rendering back end on this machine")
def test_a_film_is_of_the_typical_episode_as_it_was_evaluated(tmp_path):
    task = {**WALKER, "max_episode_steps": 80}
    rows = evaluate("random", task, episodes=5)
    episode = typical_episode(rows)
    film = record_video("random", task, 0, tmp_path / "a.mp4", episode=episode, batch_size=5)
    row = rows[rows["episode"] == episode].iloc[0]
    assert row["episode_return"] == rows["episode_return"].median()
    assert (film.seed, film.episode_return) == (row["seed"], pytest.approx(row["episode_return"]))
