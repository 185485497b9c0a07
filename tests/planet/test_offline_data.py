"""A phase that learns from a dataset gathers nothing, and has the same arrays as the replay they came from."""

import numpy as np
import pytest

from parsecrl.algorithms.offline_data.episodes import DatasetError
from parsecrl.algorithms.offline_data.reading import read_dataset
from parsecrl.platform.exchange.datasets import export
from tests.planet.small import FULL, PENDULUM, small_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


@pytest.fixture(scope="module")
def checkpoint(ray_runtime, tmp_path_factory):
    """Of an online phase with a few episodes."""
    config = small_config(controller=FULL)
    config.decisions_per_iteration = 10
    algorithm = config.build_algo()
    for _ in range(3):
        algorithm.train()
    folder = tmp_path_factory.mktemp("online") / "checkpoint"
    algorithm.save_to_path(str(folder))
    algorithm.stop()
    return folder


def arrays(algorithm):
    episodes = algorithm.local_replay_buffer.episodes
    return [
        np.concatenate([np.asarray(read(episode), np.float32).ravel() for episode in episodes])
        for read in (lambda e: e.get_observations(), lambda e: e.get_actions(), lambda e: e.get_rewards())
    ]


@pytest.mark.parametrize("name", ["data", "data.parquet"])
def test_a_dataset_trains_a_model_and_comes_back_the_same(checkpoint, tmp_path, name):
    if name == "data":
        pytest.importorskip("minari")
    export(str(checkpoint), str(tmp_path / name))
    online = small_config(controller=FULL, start_from=checkpoint).build_algo()
    config = small_config(controller=FULL, offline_data=str(tmp_path / name))
    config.updates_per_iteration = 3
    offline = config.build_algo()
    assert all(np.array_equal(a, b) for a, b in zip(arrays(online), arrays(offline), strict=True))
    before = {key: value.clone() for key, value in offline.current_agent().state_dict().items()}
    result = [offline.train() for _ in range(2)][-1]
    assert (result["num_updates"], result["env_steps"]) == (6, 0)
    after = offline.current_agent().state_dict()
    assert after["trained"]
    assert (after["model.reward_net.0.weight"] != before["model.reward_net.0.weight"]).any()
    offline.save_to_path(str(tmp_path / "checkpoint"))
    export(str(tmp_path / "checkpoint"), str(tmp_path / f"again_{name}"))
    first, second = (read_dataset(tmp_path / prefix) for prefix in (name, f"again_{name}"))
    for one, other in zip(first.episodes, second.episodes, strict=True):
        assert all(np.array_equal(getattr(one, part), getattr(other, part)) for part in ("obs", "action", "reward"))
        assert one[3:] == other[3:]
    export(str(tmp_path / "checkpoint"), str(tmp_path / "played.parquet"), episodes=2)  # then plans
    played = read_dataset(tmp_path / "played.parquet")
    assert [episode.seed is not None for episode in played.episodes] == [True, True]
    online.stop()
    offline.stop()


def test_a_dataset_of_another_task_is_refused(checkpoint, tmp_path):
    export(str(checkpoint), str(tmp_path / "data.parquet"))
    config = small_config(
        controller=FULL, offline_data=str(tmp_path / "data.parquet"), env={**PENDULUM, "action_repeat": 2}
    )
    with pytest.raises(DatasetError, match=r"is of env .*'action_repeat': 20.* the phase's task is"):
        config.build_algo()
    config = small_config(controller=FULL, offline_data=str(tmp_path / "data.parquet"), replay_capacity=5)
    with pytest.raises(DatasetError, match="replay_capacity must hold the dataset, got 5"):
        config.build_algo()
