"""The whole algorithm on worlds of nine cells; needs Ray for the learner group."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from parsecrl.algorithms.latent_sac.analysis import analyse, analyse_all
from parsecrl.algorithms.latent_sac.checkpoint import load_trial
from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC
from parsecrl.algorithms.latent_sac.report import plots
from parsecrl.algorithms.registry.algorithm import UNTRAINED
from parsecrl.algorithms.reporting.figures import THEMES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

SETTINGS: dict[str, Any] = {
    "world": {
        "id": "parsecrl/Gridworld-v0",
        "size": 3,
        "start": [0, 0],
        "goal": [2, 2],
        "episode_steps": 30,
        "observation_size": 8,
    },
    "model": {"kind": "parsimonious", "latent_size": 6, "code_size": 5, "hidden_size": 32},
    "policy": {"hidden_size": 32, "num_layers": 2},
    "batch_size": 32,
    "policy_updates": 3,
    "dynamics_updates": 2,
    "episodes_per_step": 2,
    "measure_at": [1, 3],
    "seed": 4,
}
OPTIMUM = -4 + (30 - 4)  # four moves to the goal, and there to the end

Make = Callable[..., LatentSAC]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[LatentSAC] = []

    def build(**changes: Any) -> LatentSAC:
        made.append(LatentSAC({**SETTINGS, **changes}))
        return made[-1]

    yield build
    for algorithm in made:
        algorithm.stop()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_counts_and_results(make: Make):
    algorithm = make()
    results = [algorithm.train() for _ in range(2)]
    assert [r["episodes"] for r in results] == [2, 4]
    assert [r["env_steps"] for r in results] == [60, 120]
    assert [r["num_updates"] for r in results] == [10, 20]
    assert len(algorithm.replay) == algorithm.record.visited.sum() == results[-1]["replay_decisions"] == 120
    assert results[-1]["score"] == results[-1]["episode_return_mean"] == pytest.approx(np.mean(algorithm.scores))
    assert 0 < results[-1]["entropy"] <= np.log(5)
    assert results[-1]["alpha"] == pytest.approx(0.5)
    assert {"actor_loss", "critic_loss", "dynamics_loss"} == results[-1]["measured"]["losses"].keys()
    assert {row["episodes"] for row in algorithm.record.predictions} == {1, 3}
    assert [row["episodes"] for row in algorithm.record.maps] == [1, 3]


def test_a_model_without_an_objective_is_not_updated_by_one(make: Make):
    algorithm = make(model={**SETTINGS["model"], "kind": "encoder_only"})
    assert algorithm.train()["num_updates"] == 2 * 3
    assert algorithm.record.predictions == []
    assert -1 <= algorithm.record.maps[0]["correlation"] <= 1


def test_episodes_shorter_than_a_rollout_of_the_model_are_waited_for(make: Make):
    """TwoLengths has continuous actions; its episodes last 2 steps or 40."""
    algorithm = make(
        world={"id": "tests.envs.case_worlds:TwoLengths-v0"},
        model={**SETTINGS["model"], "rollout_steps": 5},
        episodes_per_step=1,
        measure_at=[],
    )
    results = [algorithm.train() for _ in range(8)]
    lengths = np.diff([0, *(result["env_steps"] for result in results)])
    assert set(lengths) == {2, 40}
    assert lengths[0] == 2, "with this seed the first episode is a short one"
    long = np.cumsum(lengths == 40) > 0  # so far
    assert [UNTRAINED in result for result in results] == [not seen for seen in long]
    assert ["dynamics_loss" in result["losses"] for result in results] == list(long)
    assert results[0][UNTRAINED].startswith("no episode of 1 lasted model.rollout_steps=5 steps; lower")


@pytest.mark.parametrize("changes", [{"target_entropy": 1.0}, {"model": {**SETTINGS["model"], "kind": "beta_vae"}}])
def test_a_run_that_is_split_by_a_checkpoint_gives_the_same_numbers(make: Make, tmp_path: Path, changes: dict):
    through = make(**changes)
    through.train()
    saved = through.save_to_path(str(tmp_path / "checkpoint"))
    after = [through.train() for _ in range(2)]
    anew = make(**changes)
    anew.restore_from_path(saved)  # as Tune does
    by_itself = LatentSAC.from_checkpoint(saved)
    for resumed in (anew, by_itself):
        assert resumed.scores == through.scores[:2]
        again = [resumed.train() for _ in range(2)]
        for a, b in zip(after, again, strict=True):
            assert [a[k] for k in ("episodes", "env_steps", "num_updates", "score", "training_iteration")] == [
                b[k] for k in ("episodes", "env_steps", "num_updates", "score", "training_iteration")
            ]
        assert resumed.scores == through.scores
        assert resumed.record.predictions == through.record.predictions
        assert resumed.record.maps == through.record.maps
        np.testing.assert_array_equal(resumed.record.visited, through.record.visited)
        assert same(resumed.weights(), through.weights())  # targets and alpha among them
        optimizers = [a.learner_group._learner._named_optimizers for a in (resumed, through)]
        assert optimizers[0].keys() == optimizers[1].keys()
        for name, optimizer in optimizers[0].items():
            a, b = optimizer.state_dict()["state"], optimizers[1][name].state_dict()["state"]
            assert a.keys() == b.keys() != set()
            assert all(torch.equal(a[i][part], b[i][part]) for i in a for part in ("step", "exp_avg", "exp_avg_sq"))
    by_itself.stop()
    for refused in (anew.save_to_path, anew.restore_from_path):
        with pytest.raises(ValueError, match="a local folder, got s3://bucket/checkpoint; copy it there"):
            refused("s3://bucket/checkpoint")


def test_seeds_are_different_trials_in_different_worlds(make: Make):
    a, b, c, d = make(), make(), make(seed=5), make(run_seed=1)
    for algorithm in (a, b, c, d):
        algorithm.train()
    assert a.scores == b.scores
    assert same(a.weights(), b.weights())
    for other in (c, d):
        assert not np.array_equal(a.record.world.observations, other.record.world.observations)
        assert not same(a.weights(), other.weights())


def test_the_analysis_of_checkpoints(make: Make, tmp_path: Path):
    folders, parameters = [], []
    for kind in ("parsimonious", "encoder_only"):
        algorithm = make(model={**SETTINGS["model"], "kind": kind, "beta": 0.5})
        for _ in range(2):
            algorithm.train()
        folders.append(algorithm.save_to_path(str(tmp_path / kind)))
        parameters.append({"model.kind": kind, "model.beta": 0.5, "seed": 4})
    tables = analyse_all(folders, parameters)
    assert set(tables["scores"]["model"]) == {"parsimonious, beta=0.5", "encoder_only, beta=0.5"}
    assert tables["scores"].groupby("model").size().tolist() == [4, 4]
    ours = analyse(folders[0])
    assert list(ours["predictions"]["episodes"].unique()) == [1, 3]
    assert len(ours["transformations"]) == 5
    assert len(ours["latents"]) == 9
    assert set(ours["scores"]["seed"]) == {4}
    assert list(ours["maps"]["episodes"]) == [1, 3, 4]
    _, record, description = load_trial(folders[0])
    assert record is not None
    assert record.visited.sum() == description["env_steps"] == 120
    (tmp_path / "parsimonious" / "latent_sac.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"latent_sac\.safetensors is missing or damaged"):
        load_trial(folders[0])


def test_evaluations_are_analysed_drawn_and_kept_over_a_checkpoint(make: Make, tmp_path: Path):
    evaluated = {"evaluation_every": 50, "evaluation_episodes": 2}  # an episode is 30 steps, a result 60
    algorithm = make(**evaluated)
    results = [algorithm.train() for _ in range(2)]
    saved = algorithm.save_to_path(str(tmp_path / "evaluated"))
    tables = analyse_all([saved], [{"seed": 4}])
    rows = tables["evaluations"]
    assert rows[["env", "model", "seed"]].drop_duplicates().values.tolist() == [
        ["parsecrl/Gridworld-v0", "parsimonious", 4]
    ]
    assert rows["number"].tolist() == [1, 2]
    assert rows["episode"].tolist() == [2, 4]
    assert rows["score"].tolist() == [r["evaluation_return_mean"] for r in results]
    resumed = make(**evaluated)
    resumed.restore_from_path(saved)
    assert resumed.evaluations == algorithm.evaluations

    plot, figure = plots(tables)["curves"], Figure()
    plot.draw(figure, THEMES[0])
    drawn = [line for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [line.get_xydata().tolist() for line in drawn] == [rows[["episode", "score"]].values.tolist()]
    low, high = figure.axes[0].get_ylim()
    assert low < rows["score"].min() <= rows["score"].max() < high
    assert [text.get_text() for text in figure.legends[0].texts] == ["parsimonious", "evaluations"]
    assert "Dots: evaluations" in plot.caption

    assert "evaluations" not in analyse(make().save_to_path(str(tmp_path / "plain")))
    assert "evaluations" not in plots({"scores": tables["scores"]})["curves"].caption


@pytest.mark.learn
@pytest.mark.parametrize("kind", ["parsimonious", "encoder_only"])
def test_it_finds_the_shortest_way_and_stays(make: Make, kind: str):
    """The known optimum of the grid of nine cells."""
    algorithm = make(
        model={**SETTINGS["model"], "kind": kind, "hidden_size": 64},
        policy={"hidden_size": 64, "num_layers": 2},
        alpha=0.1,
        discount=0.95,
        batch_size=64,
        policy_updates=15,
        dynamics_updates=5,
        policy_learning_rate=3e-3,
        measure_at=[],
    )
    began, found = time.process_time(), -np.inf
    while found < OPTIMUM and time.process_time() < began + 60:
        algorithm.train()
        (greedy,) = algorithm.env_runner.play(algorithm._acting_weights(), seed=0, explore=False)
        found = greedy.get_return()
    assert found == OPTIMUM
    assert time.process_time() - began < 60
