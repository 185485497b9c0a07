import json
from pathlib import Path

import numpy as np
import pytest
import torch

from parsecrl.algorithms.cartpole_embedding import analysis, film, report
from parsecrl.algorithms.cartpole_embedding.checkpoint import FILES, load_embedding
from parsecrl.algorithms.cartpole_embedding.trainable import CartpoleEmbedding
from parsecrl.algorithms.reporting.figures import render_all

CONFIG = {
    "controller": {"num_samples": 20, "num_elites": 4, "num_iterations": 3, "horizon": 6},
    "decoder": {"hidden_size": 16},
    "expert": {"num_samples": 20, "num_elites": 4, "num_iterations": 4},
    "validate_every": 3,
    "validation_states": 4,
    "updates_per_step": 5,
    "control_states": 2,
    "control_steps": 6,
    "patience": 1,
}


def trainable(**changes) -> CartpoleEmbedding:
    return CartpoleEmbedding({**CONFIG, **changes})


def save(trial: CartpoleEmbedding, folder: Path) -> Path:
    folder.mkdir(parents=True)
    trial.save_checkpoint(str(folder))
    return folder


def test_interrupted_and_uninterrupted_training_give_the_same_numbers(tmp_path: Path):
    whole, first = trainable(), trainable()
    expected, got = [whole.step()], [first.step()]
    for trial in (whole, first):
        trial.learner.best_cost = -1e9  # so that the learning rate is halved
    expected += [whole.step() for _ in range(3)]
    got += [first.step()]
    folder = save(first, tmp_path / "checkpoint")
    second = trainable()
    second.load_checkpoint(str(folder))
    got += [second.step(), second.step()]
    assert len(got) == len(expected)
    for a, b in zip(expected, got, strict=True):
        assert {k: v for k, v in a.items() if k != "update_ms"} == {k: v for k, v in b.items() if k != "update_ms"}
    for a, b in zip(whole.learner.parameters, second.learner.parameters, strict=True):
        assert torch.equal(a, b)
    assert whole.curve == second.curve
    assert [point["num_updates"] for point in whole.curve] == [0, 3, 6, 9, 12, 15, 18]
    assert expected[-1]["learning_rate"] < 5e-4  # patience 1: the halved rate travelled too


def test_results():
    trial = trainable()
    result = trial.step()
    assert result["num_updates"] == 5
    assert result["score"] == -result["validation_cost"]
    assert result["best_validation_cost"] == min(point["validation_cost"] for point in trial.curve)
    assert result["update_ms"] > 0
    same, other = trainable(), trainable(seed=1)
    assert same.step()["loss"] == result["loss"]
    assert other.step()["loss"] != result["loss"]


def test_bad_checkpoints_are_named(tmp_path: Path):
    folder = save(trainable(), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="another size"):
        load_embedding(folder, trainable(decoder={"hidden_size": 8}).learner)
    (folder / "embedding.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="missing or damaged"):
        load_embedding(folder, trainable().learner)
    text = json.loads((folder / "embedding.json").read_text())
    (folder / "embedding.json").write_text(json.dumps({**text, "format": 99}))
    with pytest.raises(ValueError, match=r"format 99, parsec-rl .* reads 1"):
        FILES.read_description(folder)
    with pytest.raises(ValueError, match=r"no readable embedding\.json"):
        FILES.read_description(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates_per_step": 0}, "updates_per_step must be greater than or equal to 1, got 0"),
        ({"dynamics": "acrobot"}, "dynamics must be one of cartpole, pendulum, or module:function"),
        ({"controller": {"width": 3}}, "controller.width is not a known key"),
    ],
)
def test_bad_config(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        trainable(**changes)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> analysis.Tables:
    folder, checkpoints = tmp_path_factory.mktemp("trials"), []
    for size, temperature, seed in ((2, 1.0, 0), (2, 1.0, 1), (2, 0.0, 0), (3, 1.0, 0)):
        controller = {**CONFIG["controller"], "latent_size": size, "temperature": temperature}
        trial = trainable(controller=controller, seed=seed)
        trial.step()
        checkpoints.append(save(trial, folder / f"{size}_{temperature}_{seed}"))
    return analysis.analyse_all(checkpoints)


def test_tables(tables: analysis.Tables):
    improvement = tables["improvement"]
    assert len(improvement) == 4
    np.testing.assert_allclose(improvement["factor"], improvement["cost"] / improvement["expert_cost"])
    curves = tables["convergence"].set_index("num_updates").groupby(["latent_size", "temperature", "seed"])
    found = improvement.set_index(["latent_size", "temperature", "seed"]).sort_index()
    assert (found["best_at"] == curves["validation_cost"].idxmin()).all()
    np.testing.assert_allclose(found["last_cost"], curves["validation_cost"].last())
    # The best model is the analysed one, by other draws than those it was chosen by.
    np.testing.assert_allclose(found["cost"], curves["validation_cost"].min(), rtol=0.1)
    assert (found["cost"] != curves["validation_cost"].min()).all()
    assert set(tables["surfaces"]["latent_size"]) == {2}
    assert len(tables["surfaces"]) == 3 * 4 * analysis.GRID**2
    episodes = tables["episodes"]
    assert len(episodes) == 2 * 6 * (3 + 2 * 3)  # two seeds of one pair count once
    random = episodes[(episodes["controller"] == "random") & (episodes["episode"] == 0)]
    np.testing.assert_allclose(random["state_2"] ** 2 + random["state_3"] ** 2, 1, rtol=1e-3)
    samples = tables["samples"]
    assert set(samples["controller"]) == {"CEM", "embedded DCEM"}
    assert samples["action"].abs().max() <= 1


def test_untrained_decoders_of_relu_are_biased_and_those_of_elu_less(tables: analysis.Tables):
    """The finding of the earlier version's figure 7: the mean over z, step by step, against the spread."""
    wide = analysis.initial_decoders(analysis.EmbeddingSettings(), num_samples=200)

    def bias(activation: str, scale: float) -> float:
        part = wide[(wide["activation"] == activation) & (wide["scale"] == scale)]
        by_step = part.groupby("step")["output"]
        return float((by_step.mean().abs() / by_step.std()).mean())

    assert bias("relu", 1.0) > 2 * bias("elu", 1.0)
    assert bias("relu", 1.0) > 2 * bias("tanh", 1.0)


def test_report(tables: analysis.Tables, tmp_path: Path):
    found = report.result_table(tables)
    assert [row[:3] for row in found.rows[:3]] == [
        ("embedded DCEM, 2", "1", "2"),
        ("embedded DCEM, 2", "0", "1"),
        ("embedded DCEM, 3", "1", "1"),
    ]
    assert found.rows[0][9] == "1.08"  # the paper's, beside ours
    assert [row[0] for row in found.rows[3:]] == ["CEM", "random", "untrained, 2", "untrained, 3"]
    assert all(len(row) == len(found.headings) for row in found.rows)
    images = render_all(report.plots(tables), tmp_path, "it")
    assert set(images) == {"convergence", "improvement", "samples", "surfaces", "decoders", "control"}
    assert all(image.light.stat().st_size > 5000 and image.dark.is_file() for image in images.values())
    others = {**tables, "improvement": tables["improvement"].assign(dynamics="pendulum")}
    assert report.result_table(others).rows[0][9] == "-"  # the paper has the cartpole alone
    assert "Amos" not in report.result_table(others).note


def test_film_shows_every_step(tables: analysis.Tables, tmp_path: Path):
    import imageio.v2 as imageio

    file = film.write_film(tables["episodes"], tmp_path / "film.mp4")
    assert file is not None
    frames = [frame for frame in imageio.get_reader(file)]  # noqa: C416  # its length says it is endless
    assert len(frames) == 6
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100
    unknown = tables["episodes"].drop(columns=["state_3", "state_4"]).rename(columns={"state_2": "x"})
    assert film.write_film(unknown, tmp_path / "none.mp4") is None
    assert not (tmp_path / "none.mp4").exists()


def test_warm_start_makes_control_plan_from_the_last_plan():
    """With the search all but switched off, what is applied is the first plan, step by step."""
    from parsecrl.algorithms.cartpole_embedding.control import control
    from parsecrl.algorithms.controllers import FullSpaceController
    from parsecrl.algorithms.models.cartpole import cartpole

    dynamics = cartpole()
    controller = FullSpaceController(5, 1, 4, 2, 1, init_std=1e-6)
    states = dynamics.sample_states(2, torch.Generator().manual_seed(0))
    first = torch.linspace(-0.5, 0.5, 5).expand(2, 5)
    shifted, plan = [], controller.plan

    def planned(model, belief, warm_start, generator):
        shifted.append(warm_start)
        return plan(model, belief, first if warm_start is None else warm_start, generator)

    controller.plan = planned  # type: ignore[method-assign]
    control(dynamics, controller, states, 2, torch.Generator(), warm=False)
    assert shifted == [None, None]
    shifted.clear()
    episode = control(dynamics, controller, states, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(episode.actions[..., 0], first[:, :4], rtol=0, atol=1e-4)
    assert shifted[0] is None
    # the states are those of the actions applied
    torch.testing.assert_close(
        episode.states[:, 1], dynamics.transition(states, dynamics.scale(episode.actions[:, 0])), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(episode.costs[:, 0], dynamics.cost(states, dynamics.scale(episode.actions[:, 0])))
