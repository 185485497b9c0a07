"""Episodes on disk, what is left of damaged ones, and batches drawn from them."""

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
import torch

from parsecrl.algorithms.offline_data import picture_files
from parsecrl.algorithms.offline_data.picture_files import DamagedEpisode, read_episode, write_episode
from parsecrl.algorithms.open_loop.dataset import SequenceBatches, open_dataset, usable_images
from tests.open_loop.episodes import made_up, write_dataset


def test_what_is_written_is_read_without_a_copy(tmp_path):
    written = made_up(3, 7, terminated=True)
    write_episode(tmp_path, 3, written, attempts=2)
    read = read_episode(tmp_path, 3)
    for one, other in zip(written, read, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not read.images.flags.owndata
    assert not read.images.flags.writeable
    assert json.loads((tmp_path / "3" / "metadata.json").read_text())["attempts"] == 2
    assert sorted(os.listdir(tmp_path)) == ["3"]


def test_minari_opens_it(tmp_path):
    minari = pytest.importorskip("minari")
    episodes = write_dataset(tmp_path, [5, 9], size=32)
    dataset = minari.MinariDataset(tmp_path / "train")
    assert (dataset.total_episodes, dataset.total_steps) == (2, 14)
    assert dataset.observation_space.shape == (32, 32, 3)
    assert dataset.action_space.n == 6
    for theirs, ours in zip(dataset.iterate_episodes(), episodes, strict=True):
        np.testing.assert_array_equal(theirs.observations, ours.images)
        np.testing.assert_array_equal(theirs.actions, ours.actions)
        np.testing.assert_array_equal(theirs.rewards, ours.rewards)
        assert theirs.truncations.tolist() == [False] * (len(ours.actions) - 1) + [True]
        assert not theirs.terminations.any()


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file):
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


def empty(file):
    os.truncate(file, 0)


HARMS = [(name, harm) for name in ("part-0.arrow", "metadata.json") for harm in (truncate, empty, os.remove)]


@pytest.mark.parametrize(("name", "harm"), [*HARMS, ("part-0.arrow", flip_a_bit)])  # in text it may change nothing
def test_a_damaged_file_is_named_and_the_rest_is_used(tmp_path, harm, name):
    write_dataset(tmp_path, [6, 7, 8])
    file = tmp_path / "train" / "1" / name
    harm(file)
    with pytest.raises(DamagedEpisode, match=f"{file} is "):
        read_episode(tmp_path / "train", 1)
    with pytest.warns(UserWarning, match=f"{file} is .*left out: collecting again replaces it") as warned:
        dataset = open_dataset(tmp_path, "train")
    assert len(warned) == 1
    assert [int(episode.images[0, 0, 0, 0]) for episode in dataset.episodes] == [0, 2]
    assert set(next(SequenceBatches(dataset, 50, 5, 0)).images[:, :, 0].unique().tolist()) == {0, 2}


def test_without_verification_a_truncated_file_is_noticed_all_the_same(tmp_path):
    write_dataset(tmp_path, [6])
    truncate(tmp_path / "train" / "0" / "part-0.arrow")
    with pytest.raises(DamagedEpisode):
        read_episode(tmp_path / "train", 0, verify=False)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    write_episode(tmp_path, 0, made_up(0, 5))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for number in (0, 1):
        with pytest.raises(OSError, match="No space left"):
            write_episode(tmp_path, number, made_up(9, 5))
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["0"]
    assert (read_episode(tmp_path, 0).images[..., 0] == 0).all()
    write_episode(tmp_path, 0, made_up(9, 5))
    assert (read_episode(tmp_path, 0).images[..., 0] == 9).all()


def test_what_a_killed_writer_left_is_no_episode(tmp_path):
    write_dataset(tmp_path, [6])
    shutil.copytree(tmp_path / "train" / "0", tmp_path / "train" / ".1.77.partial")
    assert len(open_dataset(tmp_path, "train")) == 1
    picture_files.remove_partial(tmp_path / "train")
    assert sorted(os.listdir(tmp_path / "train")) == [".metadata.json", "0", "metadata.json"]


@pytest.mark.parametrize("harm", [truncate, empty, os.remove])
@pytest.mark.parametrize("name", ["metadata.json", ".metadata.json"])
def test_the_description_of_a_dataset_is_there_twice(tmp_path, name, harm):
    write_dataset(tmp_path, [6, 3])
    expected = open_dataset(tmp_path, "train")
    harm(tmp_path / "train" / name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = open_dataset(tmp_path, "train")
    assert (len(found), found.num_actions, found.image_size) == (2, expected.num_actions, expected.image_size)
    assert len(told) == (name == "metadata.json")
    assert all("metadata.json is missing or damaged" in str(one.message) for one in told)


@pytest.mark.parametrize(
    ("prepare", "split", "message"),
    [
        (lambda folder: None, "train", "train holds no dataset; collect it first"),
        (lambda folder: None, "test", "split must be one of train, held_out, got 'test'"),
        (lambda folder: write_dataset(folder, []), "train", "holds no episode that can be read; delete it"),
        (
            lambda folder: (
                write_dataset(folder, [3]),
                (folder / "train" / "metadata.json").write_text("{"),
                (folder / "train" / ".metadata.json").write_text("[]"),
            ),
            "train",
            "metadata.json is missing or damaged .* and so is its copy .* delete .* and collect again",
        ),
    ],
)
def test_folders_that_are_no_datasets(tmp_path, prepare, split, message):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, split)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path, [12, 4, 20])
    return open_dataset(tmp_path, "train")


def test_sequences_lie_within_one_episode_and_are_aligned(dataset):
    images, actions = next(SequenceBatches(dataset, 200, 6, seed=1))
    assert images.shape == (200, 6, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert actions.shape == (200, 5)
    assert actions.dtype == torch.int64
    number, t = images[:, :, 0, 0, 0].long(), images[:, :, 1, 0, 0].long()
    assert (number == number[:, :1]).all()
    assert (t == t[:, :1] + torch.arange(6)).all()
    assert (actions == (number + t)[:, :-1] % 6).all()
    row = 17
    source = dataset.episodes[number[row, 0]].images[t[row, 0] : t[row, 0] + 6]
    np.testing.assert_array_equal(images[row].permute(0, 2, 3, 1).numpy(), source)
    assert images.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_every_sequence_is_as_likely(dataset):
    batches = SequenceBatches(dataset, 4000, 6, seed=0)
    images, _ = batches.draw(0)
    counts = torch.bincount(images[:, 0, 0, 0, 0].long() * 32 + images[:, 0, 1, 0, 0].long())
    counts = counts[counts > 0]
    assert len(counts) == (13 - 5) + (21 - 5)  # the episode of 5 images has none
    expected = 4000 / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 55  # chi squared, 23 degrees of freedom: p < 0.001 above 49.7


def test_batches_are_their_seeds_and_survive_a_checkpoint(dataset):
    batches = SequenceBatches(dataset, 3, 5, seed=7)
    first = [next(batches) for _ in range(3)]
    state = json.loads(json.dumps(batches.state_dict()))
    fourth = next(batches)
    other = SequenceBatches(dataset, 3, 5, seed=7, ahead=5)
    other.load_state_dict(state)
    assert torch.equal(next(other).images, fourth.images)
    assert torch.equal(other.draw(1).images, first[1].images)
    batches.load_state_dict({"batches": 0})
    assert torch.equal(next(batches).actions, first[0].actions)
    assert not torch.equal(first[0].images, first[1].images)
    assert not torch.equal(next(SequenceBatches(dataset, 3, 5, seed=8)).images, first[0].images)
    batches.close()
    other.close()


def test_batches_are_prepared_while_the_learner_works(dataset, monkeypatch):
    batches = SequenceBatches(dataset, 2, 5, seed=0)
    draw = batches.draw

    def slow(number):
        time.sleep(0.05)
        return draw(number)

    def waited(count, working_s):
        seconds = 0.0
        for _ in range(count):
            time.sleep(working_s)
            begin = time.perf_counter()
            next(batches)
            seconds += time.perf_counter() - begin
        return seconds

    monkeypatch.setattr(batches, "draw", slow)
    next(batches)
    assert waited(3, 0.2) < 0.1  # of the 0.15 s that they take
    assert waited(6, 0.0) > 0.1


def test_a_failure_of_the_thread_reaches_the_learner(dataset, monkeypatch):
    batches = SequenceBatches(dataset, 2, 5, seed=0)
    monkeypatch.setattr(batches, "draw", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_the_picture_of_an_end_is_left_out(tmp_path):
    write_dataset(tmp_path, [8])
    write_episode(tmp_path / "train", 0, made_up(0, 8, terminated=True))
    dataset = open_dataset(tmp_path, "train")
    assert sum(map(usable_images, dataset.episodes)) == 8  # of 9
    (sequence,) = dataset
    assert sequence.images.shape[1] == 8
    images, _ = SequenceBatches(dataset, 100, 3, seed=0).draw(0)
    assert images[:, :, 1].max() == 7


def test_test_sequences_are_the_beginnings(dataset):
    images, actions = dataset.stack(5)
    assert images.shape == (3, 5, 3, 16, 16)
    assert (images[:, :, 1, 0, 0] == torch.arange(5)).all()
    assert images[:, 0, 0, 0, 0].tolist() == [0, 1, 2]
    assert actions.shape == (3, 4)
    with pytest.raises(ValueError, match="got 6 with 5; collect longer ones"):
        dataset.stack(6)


def test_sequences_longer_than_all_episodes_are_refused(dataset):
    with pytest.raises(ValueError, match="sequences of 30 images need an episode as long, the longest of 3 has 21"):
        SequenceBatches(dataset, 2, 30, 0)
    with pytest.raises(ValueError, match="batch_size of 1 or more and length of 2 or more, got 0 and 5"):
        SequenceBatches(dataset, 0, 5, 0)
