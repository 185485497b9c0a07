"""Grid worlds in datasets: what trials saw comes out, comes back, and is learned from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from parsecrl.algorithms.latent_planning.algorithm import LATENT_PLANNING
from parsecrl.algorithms.latent_sac.algorithm import LATENT_SAC
from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC
from parsecrl.algorithms.latent_study.worlds import make_vector_world
from parsecrl.algorithms.offline_data.episodes import Dataset, DatasetError, checked_episode
from parsecrl.algorithms.offline_data.minari_files import write_minari
from parsecrl.algorithms.offline_data.parquet_files import write_parquet
from parsecrl.algorithms.offline_data.reading import check_sizes, read_dataset
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.evaluation.lockstep import episode_seed
from parsecrl.platform.exchange.datasets import export
from parsecrl.platform.running.preflight import check_worlds
from parsecrl.platform.specs import parse_spec
from tests.latent_planning.test_planning_experiment import make, settings
from tests.latent_sac import small as latent

WORLD = {"id": "parsecrl/Gridworld-v0", "observation_size": 6, "episode_steps": 12}


def write(kind, place, dataset):
    if kind == "minari":
        pytest.importorskip("minari")
        write_minari(place / "data", "parsecrl/grid-v0", dataset.episodes, dataset.about)
        return place / "data"
    write_parquet(place / "data.parquet", dataset.episodes, dataset.about)
    return place / "data.parquet"


def assert_same(read, written):
    assert len(read) == len(written) > 0
    for one, other in zip(read, written, strict=True):
        for own, again in zip(one[:3], other[:3], strict=True):
            assert own.dtype == again.dtype
            assert np.array_equal(own, again)
        assert one[3:] == other[3:]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """What a planning trial saw in three tasks."""
    folder, trial = tmp_path_factory.mktemp("planned"), make()
    scores = [trial.step()["task_score"] for _ in range(3)]
    trial.save_checkpoint(str(folder))
    dataset = LATENT_PLANNING.gathered(folder)
    assert [float(episode.reward.sum()) for episode in dataset.episodes] == scores
    return dataset


@pytest.mark.parametrize("kind", ["minari", "parquet"])
def test_what_was_planned_comes_back_and_is_exported_again(tmp_path, planned, kind):
    file = write(kind, tmp_path, planned)
    read = read_dataset(file)
    assert_same(read.episodes, planned.episodes)
    assert read.about == planned.about
    offline = make(offline_data=str(file), world={"layout_seed": planned.about["world"]["layout_seed"]})
    offline.step()
    (tmp_path / "checkpoint").mkdir()
    offline.save_checkpoint(str(tmp_path / "checkpoint"))
    again = LATENT_PLANNING.gathered(tmp_path / "checkpoint")
    assert_same(again.episodes, [episode._replace(seed=None) for episode in planned.episodes])
    assert again.about == planned.about


def test_minari_knows_the_actions(tmp_path, planned, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    dataset = minari.MinariDataset(write("minari", Path(), planned).absolute())
    assert dataset.action_space.n == 5
    assert [episode.id for episode in dataset.iterate_episodes()] == [0, 1, 2]
    resets = planned.episodes[0].seed
    trial = make()
    first, _ = trial.experiment.env.reset(seed=resets)
    assert np.array_equal(first, planned.episodes[0].obs[0])


def test_a_trial_of_a_dataset_learns_first_and_gathers_nothing(tmp_path, planned):
    file = write("parquet", tmp_path, planned)
    trial = make(offline_data=str(file), world={"layout_seed": planned.about["world"]["layout_seed"]})
    before = [parameter.clone() for parameter in trial.experiment.model.parameters()]
    seen = trial.experiment.experience.num_transitions
    assert seen == planned.num_decisions
    assert (trial.experiment.experience.state >= 0).all()
    first = trial.step()
    assert first["epsilon"] == 0.0
    assert first["planning_ms"] > 0  # each action is planned
    assert first["env_steps"] == 0
    assert np.isfinite(first["loss"])
    assert not all(torch.equal(a, b) for a, b in zip(before, trial.experiment.model.parameters(), strict=True))
    trial.step()
    assert trial.experiment.experience.num_transitions == seen


@pytest.fixture(scope="module")
def policy(ray_runtime, tmp_path_factory):
    """The checkpoint of a policy, the returns of its episodes and their decisions."""
    algorithm = LatentSAC(latent.config(episodes_per_step=2))
    try:
        algorithm.train()
        folder = algorithm.save_to_path(str(tmp_path_factory.mktemp("policy") / "checkpoint"))
        return Path(folder), algorithm.scores, len(algorithm.replay)
    finally:
        algorithm.stop()


@pytest.mark.ray
def test_a_policys_replay_comes_out(policy, tmp_path):
    folder, scores, count = policy
    dataset = LATENT_SAC.gathered(folder)
    assert dataset.num_decisions == count
    assert [float(episode.reward.sum()) for episode in dataset.episodes] == pytest.approx(scores)
    assert dataset.about["num_actions"] == 5
    export(str(folder), str(tmp_path / "replay.parquet"))
    assert_same(read_dataset(tmp_path / "replay.parquet").episodes, dataset.episodes)


@pytest.mark.ray
@pytest.mark.parametrize("name", ["played", "played.parquet"])
def test_a_policys_episodes_are_played_again_from_their_seeds(policy, tmp_path, name):
    if name == "played":
        pytest.importorskip("minari")
    folder, _, _ = policy
    export(str(folder), str(tmp_path / name), episodes=2, seed=7)
    dataset = read_dataset(tmp_path / name)
    assert dataset.about["algorithm"] == "latent_sac"
    assert dataset.about["world"] == LATENT_SAC.gathered(folder).about["world"]
    assert [episode.seed for episode in dataset.episodes] == [episode_seed(7, number) for number in range(2)]
    agent, world = load_agent(folder), dataset.about["world"]
    for episode in dataset.episodes:
        env, state = make_vector_world(world, world["layout_seed"]), agent.initial_state()
        assert np.array_equal(env.reset(seed=episode.seed)[0], episode.obs[0])
        for t, taken in enumerate(episode.action):
            assert agent.act(episode.obs[t], state)[0] == taken
            obs, reward, terminated, truncated, _ = env.step(taken)
            assert np.array_equal(obs, episode.obs[t + 1])
            assert reward == episode.reward[t]
        assert (terminated, truncated) == (episode.terminated, episode.truncated)


@pytest.mark.ray
def test_a_world_of_a_strangers_code_is_not_made(policy, tmp_path):
    folder = shutil.copytree(policy[0], tmp_path / "checkpoint")
    file = folder / "latent_sac.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "world": {**description["world"], "id": "strangers:Maze-v0"}}))
    with pytest.raises(UserError, match="strangers:Maze-v0, whose code would run on this machine; give --trust"):
        export(str(folder), str(tmp_path / "played.parquet"), episodes=1)
    with pytest.raises(UserError, match="--episodes must be at least 1, got 0"):
        export(str(folder), str(tmp_path / "played.parquet"), episodes=0)
    assert not (tmp_path / "played.parquet").exists()


def spec_of(file, slice_length=None, **world):
    phase = {**settings(slice_length=slice_length), "name": "plan", "algorithm": "latent_planning"}
    phase["offline_data"] = str(file)
    phase["world"] = {**WORLD, **world}
    return parse_spec({"name": "offline", "phases": [phase]}, "a test")


def test_data_of_another_world_are_refused_before_the_run(tmp_path, planned):
    file, layout = write("parquet", tmp_path, planned), planned.about["world"]["layout_seed"]
    check_worlds(spec_of(file, layout_seed=layout))
    check_worlds(spec_of(file, layout_seed=layout, start=[0, 0], goal=[2, 2], episode_steps=5))
    for world in ({}, {"layout_seed": layout + 1}, {"layout_seed": layout, "id": "parsecrl/Torus-v0"}):
        with pytest.raises(UserError, match=r"is of another world than the phase's; set world\."):
            check_worlds(spec_of(file, **world))
    foreign = write("parquet", tmp_path, planned._replace(about={}))
    check_worlds(spec_of(foreign, layout_seed=layout))
    with pytest.raises(UserError, match=r"an observation that the world never shows; set world\.layout_seed"):
        check_worlds(spec_of(foreign, layout_seed=layout + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e._replace(action=e.action + 5), "and discrete actions up to 9, the world has"),
        (lambda e: e._replace(action=np.zeros((len(e.action), 2), np.float32)), "observations and continuous actions"),
        (lambda e: e._replace(obs=e.obs[:, :4]), "holds 4 observations"),
    ],
)
def test_data_that_do_not_suit_are_named(tmp_path, planned, change, message):
    file = write("parquet", tmp_path, Dataset([change(episode) for episode in planned.episodes], planned.about))
    with pytest.raises(UserError, match=message):
        check_worlds(spec_of(file, layout_seed=planned.about["world"]["layout_seed"]))


def test_data_without_a_slice_are_refused_before_the_run(tmp_path, planned):
    short = [e._replace(obs=e.obs[:3], action=e.action[:2], reward=e.reward[:2]) for e in planned.episodes]
    file, layout = write("parquet", tmp_path, planned._replace(episodes=short)), planned.about["world"]["layout_seed"]
    check_worlds(spec_of(file, 2, layout_seed=layout))
    with pytest.raises(UserError, match=r"must have an episode of 3 decisions, as many as a slice, the longest has 2"):
        check_worlds(spec_of(file, 3, layout_seed=layout))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e._replace(action=e.action - 5), "has an action below 0"),
        (lambda e: e._replace(reward=e.reward * np.nan), "rewards that are not finite"),
        (lambda e: e._replace(action=e.action[:-1]), r"must have T \+ 1 observations, T actions"),
    ],
)
def test_an_episode_that_cannot_be_is_named(planned, change, message):
    with pytest.raises(DatasetError, match=message):
        checked_episode(change(planned.episodes[0]), "an episode")


def test_a_task_with_continuous_actions_refuses_numbers(planned):
    with pytest.raises(DatasetError, match="holds discrete actions, the task has continuous ones"):
        check_sizes("a file", planned, 6, 1)
