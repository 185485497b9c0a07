"""Open-loop prediction: its training as Tune calls it, its tables; no Ray runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parsecrl.algorithms.models import ImageSequence
from parsecrl.algorithms.offline_data import picture_files
from parsecrl.algorithms.open_loop.analysis import analyse, analyse_all, decode, encode, mean_of
from parsecrl.algorithms.open_loop.checkpoint import read_experiment
from parsecrl.algorithms.open_loop.dataset import open_dataset
from parsecrl.algorithms.open_loop.evaluation import measure
from parsecrl.algorithms.open_loop.trainable import OpenLoop
from tests.models.moving_squares import moving_squares

KINDS = ("parsimonious", "rssm")
SIZES = {"latent_size": 4, "readout_size": 4, "memory_size": 8, "hidden_size": 12, "channels": 2}
SIZES |= {"channels_last": False}  # weights that were loaded have another layout, and round in another order


def write_episodes(folder: Path, split: str, count: int, steps: int, seed: int) -> None:
    place = folder / split
    place.mkdir(parents=True)
    images, actions = moving_squares(count, steps + 1, seed=seed)
    for number in range(count):
        frames = images[number].permute(0, 2, 3, 1).contiguous().numpy()
        episode = picture_files.Episode(frames, actions[number].numpy(), np.zeros(steps), False, number)
        picture_files.write_episode(place, number, episode)
    metadata = picture_files.dataset_metadata(f"parsecrl/{split}-v0", 64, 6, None, {"seed": seed})
    picture_files.write_metadata(place, metadata | {"total_episodes": count, "total_steps": count * steps})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    write_episodes(folder, "train", 3, 9, seed=1)
    write_episodes(folder, "held_out", 2, 7, seed=2)
    return folder


def make(place: Path, kind: str = "parsimonious", **config: Any) -> OpenLoop:
    model = {"kind": kind, **SIZES, **config.pop("model", {})}
    small = {"batch_size": 2, "sequence_length": 4, "updates_per_result": 2, "context": 3}
    return OpenLoop({"data": {"folder": str(place), "held_out_steps": 7}, "model": model, **small, **config})


def test_images_survive_their_encoding():
    images = moving_squares(1, 4).images[0]
    assert np.array_equal(decode(encode(images)), images.permute(0, 2, 3, 1).numpy())


# -- training


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_trial_goes_on_as_if_nothing_had_been(kind: str, data: Path, tmp_path: Path):
    through, first = make(data, kind), make(data, kind)
    results = [through.step() for _ in range(3)]
    assert first.step()["loss"] == results[0]["loss"]
    first.save_checkpoint(str(tmp_path))
    resumed = make(data, kind)
    resumed.load_checkpoint(str(tmp_path))
    for expected in results[1:]:
        found = resumed.step()
        assert found["measured"].pop("time_shares")["main"].keys() == {"learning", "waiting"}
        expected["measured"].pop("time_shares")
        assert {k: v for k, v in found.items() if k not in ("update_ms", "waiting_share")} == {
            k: v for k, v in expected.items() if k not in ("update_ms", "waiting_share")
        }
    assert found["num_updates"] == 6
    assert found["score"] == -found["loss"]
    assert found["update_ms"] > 0
    assert 0 <= found["waiting_share"] <= 1
    for trial in (through, first, resumed):
        trial.cleanup()


def test_seeds_differ_in_weights_and_batches(data: Path):
    losses = [make(data, seed=seed, run_seed=run).step()["loss"] for seed, run in ((0, 0), (1, 0), (0, 1))]
    assert len(set(losses)) == 3


def test_a_loss_that_is_not_finite_is_an_error(data: Path):
    trial = make(data)
    with torch.no_grad():
        trial.experiment.model.decoder.first.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan before update 2"):
        trial.step()


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"batch_size": 0}, "batch_size must be greater than or equal to 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0, got -1.0"),
        ({"model": {"kind": "gru"}}, "model.kind must be 'parsimonious' or 'rssm', got 'gru'"),
        ({"sequence_length": 50}, "sequences of 50 images need an episode as long"),
        ({"data": {"folder": "/nowhere"}}, "/nowhere/train holds no dataset"),
    ],
)
def test_bad_settings_are_named(data: Path, config: dict[str, Any], rule: str):
    with pytest.raises(ValueError, match=rule):
        make(data, **config)


def test_damaged_and_foreign_checkpoints_are_named(data: Path, tmp_path: Path):
    trial = make(data)
    with pytest.raises(ValueError, match=r"holds no readable open_loop\.json"):
        trial.load_checkpoint(str(tmp_path))
    trial.step()
    trial.save_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="a model of another size"):
        make(data, model={"hidden_size": 8}).load_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="give the one of its run"):
        make(data, seed=5).load_checkpoint(str(tmp_path))
    tensors = tmp_path / "open_loop.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(ValueError, match="missing or damaged"):
        trial.load_checkpoint(str(tmp_path))
    description = json.loads((tmp_path / "open_loop.json").read_text())
    (tmp_path / "open_loop.json").write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(ValueError, match="has format 9"):
        trial.load_checkpoint(str(tmp_path))


# -- tables


def test_the_tables_of_checkpoints(data: Path, tmp_path: Path):
    folders = []
    for kind in KINDS:
        trial = make(data, kind, seed=2)
        trial.step()
        folders.append(tmp_path / kind)
        folders[-1].mkdir()
        trial.save_checkpoint(str(folders[-1]))
    parameters = [{"model.kind": "parsimonious", "model.code_size": 7}, {"model.kind": "rssm", "seed": 2}]
    tables = analyse_all([(folder, str(data)) for folder in folders], parameters)
    horizon = tables["horizon"]
    names = ["parsimonious, code_size=7", "last_frame", "mean_frame", "rssm"]
    assert list(dict.fromkeys(horizon["model"])) == names
    assert len(horizon) == 4 * 5  # the floors once
    assert set(horizon["seed"]) == {2}
    sequences = open_dataset(data, "held_out").stack(8)
    experiment, _ = read_experiment(folders[1])
    expected = measure(experiment.model, sequences, 3).kl.mean(0)
    np.testing.assert_allclose(horizon[horizon["model"] == "rssm"]["kl"], expected, rtol=1e-6)
    films = tables["films"]
    assert films["model"].value_counts().to_dict() == {"truth": 2, names[0]: 2, "rssm": 2}
    truth = films[(films["model"] == "truth") & (films["sequence"] == 1)]["frames"].iloc[0]
    assert np.array_equal(decode(truth), sequences.images[1].permute(0, 2, 3, 1).numpy())
    told = decode(films[(films["model"] == "rssm") & (films["sequence"] == 1)]["frames"].iloc[0])
    assert np.array_equal(told[:3], decode(truth)[:3])
    assert tables["training"]["num_updates"].tolist() == [2, 2]
    assert len(analyse((folders[0], str(data)))["horizon"]) == 15
    assert not [file for file in folders[0].iterdir() if str(data).encode() in file.read_bytes()]


def test_the_mean_image(data: Path):
    dataset = open_dataset(data, "train")
    first = ImageSequence(*(torch.cat(x) for x in zip(*dataset, strict=True))).images[:, 0]  # of ten images each
    torch.testing.assert_close(mean_of(dataset), first.float().mean(0) / 255)
