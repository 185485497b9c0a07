"""Datasets: what was written comes back to the bit, and what is damaged or foreign is named."""

import json
import shutil

import numpy as np
import pytest
from gymnasium import spaces

from parsecrl.algorithms.offline_data import parquet_files
from parsecrl.algorithms.offline_data.episodes import DatasetError, OfflineEpisode, taken_actions, vectors_of
from parsecrl.algorithms.offline_data.minari_files import write_minari
from parsecrl.algorithms.offline_data.parquet_files import write_parquet
from parsecrl.algorithms.offline_data.reading import check_sizes, check_task, read_dataset

ENV = {"id": "Pendulum-v1", "action_repeat": 2}
ABOUT = {"env": ENV, "algorithm": "planet"}


def episodes(lengths=(5, 3, 8), seed=0):
    rng = np.random.default_rng(seed)
    return [
        OfflineEpisode(
            rng.normal(size=(T + 1, 3)).astype(np.float32),
            rng.uniform(-1, 1, (T, 2)).astype(np.float32),
            rng.normal(size=T).astype(np.float32),
            number == 0,
            number == 1,  # the last one is cut by neither
            None if number else 2**31 + 5,
        )
        for number, T in enumerate(lengths)
    ]


def write(kind, place, written=None, about=ABOUT):
    written = written or episodes()
    if kind == "minari":
        pytest.importorskip("minari")
        write_minari(place / "data", "parsecrl/pendulum-v0", written, about)
        return place / "data"
    write_parquet(place / "data.parquet", written, about)
    return place / "data.parquet"


def assert_same(read, written):
    assert len(read) == len(written)
    for one, other in zip(read, written, strict=True):
        for name in ("obs", "action", "reward"):
            own, again = getattr(one, name), getattr(other, name)
            assert own.dtype == again.dtype == np.float32
            assert np.array_equal(own, again)
        assert one[3:] == other[3:]


@pytest.mark.parametrize("kind", ["minari", "parquet"])
def test_what_was_written_comes_back(tmp_path, kind):
    dataset = read_dataset(write(kind, tmp_path))
    assert_same(dataset.episodes, episodes())
    assert dataset.about == ABOUT
    assert dataset.num_decisions == 16


def test_minari_opens_and_lists_it(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "parsecrl" / "pendulum-v0").mkdir(parents=True)
    write("minari", tmp_path / "parsecrl" / "pendulum-v0")
    assert "parsecrl/pendulum-v0" in minari.list_local_datasets(compatible_minari_version=True)
    dataset = minari.load_dataset("parsecrl/pendulum-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 16)
    for found, written in zip(dataset.iterate_episodes(), episodes(), strict=True):
        assert np.array_equal(found.observations, written.obs)
        assert np.array_equal(found.actions, written.action)
        assert np.array_equal(found.rewards, written.reward)
        assert (found.terminations[-1], found.truncations[-1]) == (written.terminated, written.truncated)
        assert dataset.observation_space.contains(found.observations[0])
        assert dataset.action_space.contains(found.actions[0])
    first, second, _ = dataset.storage.get_episode_metadata(range(3))
    assert first["seed"] == 2**31 + 5
    assert "seed" not in second
    assert first["episode_return"] == pytest.approx(episodes()[0].reward.sum(), rel=1e-6)


def test_rllibs_own_reader_takes_the_columns(tmp_path):
    import pyarrow.parquet as pq
    from ray.rllib.offline.offline_prelearner import SCHEMA

    file = write("parquet", tmp_path)
    table = pq.read_table(file).to_pydict()
    assert set(parquet_files.NEEDED) <= set(SCHEMA.values())
    assert table["t"] == [*range(5), *range(3), *range(8)]
    assert np.array_equal(np.float32(table["new_obs"][4]), episodes()[0].obs[5])
    assert table["terminateds"][4]
    assert table["truncateds"][7]
    assert not (table["terminateds"] + table["truncateds"])[-1]
    assert table["seed"][0] == 2**31 + 5
    assert table["seed"][5] is None


@pytest.mark.parametrize("data_format", ["arrow", "hdf5"])
def test_a_foreign_dataset_becomes_vectors_and_unit_actions(tmp_path, data_format):
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    seen = spaces.Dict(at=spaces.Box(-9, 9, (2,), np.float64), speed=spaces.Box(-9, 9, (1,), np.float64))
    (tmp_path / "data").mkdir()
    storage = MinariStorage.new(tmp_path / "data", seen, spaces.Box(-2, 6, (1,), np.float32), data_format=data_format)
    storage.update_metadata({"dataset_id": "other/task-v0", "minari_version": "0.5.4"})
    at, speed = np.arange(8.0).reshape(4, 2), np.arange(4.0)[:, None]
    ends = np.array([False, False, True])
    storage.update_episodes(
        [
            EpisodeBuffer(
                observations={"at": at, "speed": speed},
                actions=np.float32([[-2], [2], [6]]),
                rewards=np.arange(3.0),
                terminations=ends,
                truncations=~ends & ends,
            )
        ]
    )
    dataset = read_dataset(tmp_path)  # the folder above `data`, as Minari downloads it
    (episode,) = dataset.episodes
    assert np.array_equal(episode.obs, np.concatenate([at, speed], 1).astype(np.float32))
    assert episode.action.ravel().tolist() == [-1, 0, 1]
    assert episode.terminated
    assert not episode.truncated
    assert episode.seed is None
    check_task(tmp_path, dataset, {"id": "Any-v0", "action_repeat": 1})
    with pytest.raises(DatasetError, match=r"'action_repeat': 1}, the phase's task is .*'action_repeat': 4"):
        check_task(tmp_path, dataset, {"id": "Any-v0", "action_repeat": 4})


def test_spaces_flatten_as_gymnasium_has_them():
    space = spaces.Tuple(
        [spaces.Discrete(3, start=5), spaces.Dict(b=spaces.MultiBinary(2), a=spaces.Box(0, 1, (2, 2)))]
    )
    space.seed(0)
    drawn = [space.sample() for _ in range(4)]
    stacked = (
        np.array([one for one, _ in drawn]),
        {key: np.stack([group[key] for _, group in drawn]) for key in ("a", "b")},
    )
    expected = np.stack([spaces.flatten(space, one) for one in drawn])
    assert np.array_equal(vectors_of(space, stacked, 4), expected.astype(np.float32))
    with pytest.raises(DatasetError, match="must be of Box, Discrete, MultiBinary"):
        vectors_of(spaces.Text(3), ["abc"], 1)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3]), spaces.Box(-np.inf, np.inf, (1,))])
def test_actions_without_bounds_are_refused(space):
    with pytest.raises(DatasetError, match="must be of a bounded Box"):
        taken_actions(space, [0], 1)


def damage(change):
    def make(path):
        for file in path.rglob("*.arrow") if path.is_dir() else [path]:
            change(file)

    return make


@pytest.mark.parametrize("kind", ["minari", "parquet"])
@pytest.mark.parametrize(
    "change", [lambda file: file.write_bytes(file.read_bytes()[:-40]), lambda file: file.write_bytes(b"nothing")]
)
def test_a_damaged_file_is_named(tmp_path, kind, change):
    path = write(kind, tmp_path)
    damage(change)(path)
    with pytest.raises(DatasetError, match=rf"{path}.*cannot be read.*again"):
        read_dataset(path)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(DatasetError, match="holds no dataset; give a folder of Minari's"):
        read_dataset(tmp_path)
    path = write("minari", tmp_path)
    shutil.rmtree(path / "1")
    with pytest.raises(DatasetError, match=f"episode 1 of {path} cannot be read"):
        read_dataset(path)
    (path / "metadata.json").write_text(json.dumps({"total_episodes": 1}))
    with pytest.raises(DatasetError, match="is no dataset that Minari opens"):
        read_dataset(path)


def test_other_columns_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"obs": [[1.0]], "item": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"got none of eps_id, actions, .*output_write_episodes=False"):
        read_dataset(tmp_path)


def test_values_that_cannot_be_learned_from_are_named(tmp_path):
    good = episodes()
    good[1].reward[1] = np.nan
    with pytest.raises(DatasetError, match=r"episode 000001 of .* has rewards that are not finite"):
        read_dataset(write("parquet", tmp_path, good))
    good = episodes()
    good[2].action[0, 0] = 1.5
    with pytest.raises(DatasetError, match=r"episode 000002 of .* has an action outside \[-1, 1\]"):
        read_dataset(write("parquet", tmp_path, good))


def test_a_gap_in_an_episode_is_named(tmp_path):
    import pyarrow.parquet as pq

    file = write("parquet", tmp_path)
    table = pq.read_table(file)
    pq.write_table(table.take([0, 1, 3, 4]), file)
    with pytest.raises(DatasetError, match="has a gap"):
        read_dataset(file)


@pytest.mark.parametrize("rows", [[0, 1, 3, 4], [0, 1, 2, 2, 3, 4]])
def test_a_gap_where_nothing_moved_is_named(tmp_path, rows):
    import pyarrow.parquet as pq

    (episode,) = episodes([5])
    file = write("parquet", tmp_path, [episode._replace(obs=np.ones_like(episode.obs))])
    assert read_dataset(file).num_decisions == 5
    pq.write_table(pq.read_table(file).take(rows), file)
    with pytest.raises(DatasetError, match="has a gap: t does not count its rows one by one"):
        read_dataset(file)


def test_an_observation_that_is_no_number_is_not_called_a_gap(tmp_path):
    good = episodes()
    good[1].obs[1] = np.nan
    with pytest.raises(DatasetError, match=r"episode 000001 of .* has observations that are not finite"):
        read_dataset(write("parquet", tmp_path, good))


@pytest.mark.parametrize("kind", ["minari", "parquet"])
@pytest.mark.parametrize("about", [[1], {"world": "maze"}, {"env": [1]}])
def test_damaged_metadata_are_named(tmp_path, kind, about):
    import pyarrow.parquet as pq

    path = write(kind, tmp_path)
    if kind == "minari":
        file = path / "metadata.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "parsecrl": about}))
    else:
        pq.write_table(pq.read_table(path).replace_schema_metadata({"parsecrl": json.dumps(about)}), path)
    with pytest.raises(DatasetError, match=rf"{path} must have tables under parsecrl in its metadata"):
        read_dataset(path)


def test_another_task_is_refused(tmp_path):
    file = write("parquet", tmp_path)
    dataset = read_dataset(file)
    check_task(file, dataset, ENV)
    check_sizes(file, dataset, 3, 2)
    with pytest.raises(DatasetError, match=r"is of env .*Pendulum-v1.* the phase's task is .*Hopper-v5"):
        check_task(file, dataset, {"id": "Hopper-v5", "action_repeat": 2})
    with pytest.raises(DatasetError, match="holds 3 observations and 2 actions, the task has 4 and 2"):
        check_sizes(file, dataset, 4, 2)
