"""The planning experiment by its own methods, as Tune calls them; no Ray runtime."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from parsecrl.algorithms.latent_planning.analysis import analyse, analyse_all, visits
from parsecrl.algorithms.latent_planning.checkpoint import read_experiment
from parsecrl.algorithms.latent_planning.experience import Experience
from parsecrl.algorithms.latent_planning.experiment import PlanningExperiment, epsilon_of
from parsecrl.algorithms.latent_planning.settings import LatentPlanningSettings
from parsecrl.algorithms.latent_planning.trainable import LatentPlanning
from parsecrl.algorithms.registry.algorithm import UNTRAINED

TIMES = ("planning_ms", "refit_s")
TINY = {"horizon": 4, "num_samples": 20, "num_elites": 4, "num_iterations": 2, "gradient_steps": 4}
KINDS = ("parsimonious", "rnn", "ssm", "true_dynamics")


def settings(kind: str = "parsimonious", **config: Any) -> dict[str, Any]:
    world = {"observation_size": 6, "episode_steps": 12, **config.pop("world", {})}
    model = {"kind": kind, "latent_size": 8, "hidden_size": 16, **config.pop("model", {})}
    small = {"num_tasks": 3, "epsilon_exponent": 0.3, "batch_size": 24, "budget": "tiny", "budgets": {"tiny": TINY}}
    return {"world": world, "model": model, **small, **config}


def make(kind: str = "parsimonious", **config: Any) -> LatentPlanning:
    return LatentPlanning(settings(kind, **config))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in result.items() if name not in TIMES}
    return {**kept, "measured": kept["measured"]["losses"]}


def episode(*states: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where observation, action and state tell which transition it is."""
    s = torch.tensor(states)
    return s.float().unsqueeze(1), s[:-1] % 5, s


# -- schedule, score, experience


def test_exploration_follows_the_papers_schedule():
    found = [epsilon_of(n, 30, 2.8) for n in (1, 2, 16, 30)]
    assert found == pytest.approx([1.0, 1 - (1 / 30) ** 2.8, 1 - 0.5**2.8, 1 - (29 / 30) ** 2.8])
    assert all(a > b for a, b in pairwise(found))
    assert epsilon_of(40, 30, 2.8) == 0.0


def test_an_episodes_score_is_counted_from_its_cells():
    """A score worked out from the cells that it passed: +1 for a step from the goal, -1 for any other."""
    experiment = PlanningExperiment(settings("true_dynamics", num_tasks=2, epsilon_exponent=1e-6), seed=3)
    experiment.run_task()
    task = experiment.run_task()  # no exploration: (1 / 2) ** 1e-6 is 1
    assert task.num_plans == 12
    rows = experiment.experience.state[13:]
    assert (int(rows[0]), len(rows)) == (task.start_state, 13)
    assert task.score == sum(1 if int(s) == task.goal_state else -1 for s in rows[:-1])
    assert task.distance == experiment.world.distances[task.start_state, task.goal_state] > 0


def test_true_dynamics_with_the_papers_search_take_shortest_paths():
    budget = {"gradient_steps": 1}  # the rest is the paper's
    config = settings("true_dynamics", num_tasks=2, epsilon_exponent=1e-6, budgets={"tiny": budget})
    config["world"] |= {"episode_steps": 16, "start": [2, 3], "goal": [6, 5]}
    experiment = PlanningExperiment(config, seed=0)
    task = experiment.play(2)
    assert task.distance == 6
    assert task.score == -6 + 10  # there after six moves, and it stays
    assert task.num_asked == 16 * 15 * 10 * 1000
    assert task.num_evaluated < 0.8 * task.num_asked


def test_slices_are_drawn_from_all_transitions_and_cross_no_episode():
    experience = Experience(1)
    for states in ((0, 1, 2, 3), (10, 11, 12), (20, 21)):
        experience.add(*episode(*states), torch.ones(len(states) - 1), states[0] == 20)
    assert [(len(e.reward), e.terminated, e.truncated) for e in experience.episodes()] == [
        *((3, False, True), (2, False, True), (1, True, False))
    ]
    assert experience.num_transitions == 6
    assert experience.starts(1).tolist() == [0, 1, 2, 4, 5, 7]
    assert experience.starts(2).tolist() == [0, 1, 4]
    assert experience.starts(4).tolist() == []
    obs, action = experience.sample(300, 2, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in obs.squeeze(-1).long().tolist()} == {(0, 1, 2), (1, 2, 3), (10, 11, 12)}
    assert torch.equal(action, obs[:, :-1, 0].long() % 5)
    with pytest.raises(ValueError, match="slices of 4 transitions need an episode as long"):
        experience.sample(1, 4, torch.Generator())


class Brief(gymnasium.Env):
    """Episodes of 1, 1, 4, 1, 1, 4 ... steps, or of 1 alone."""

    observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, always: bool = False):
        self.always, self.episodes = always, 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.episodes = 0, self.episodes + 1
        return np.zeros(2, np.float32), {"goal_observation": np.ones(2, np.float32)}

    def step(self, action):
        self.time += 1
        last = 4 if self.episodes % 3 == 1 and self.episodes > 1 and not self.always else 1
        return np.full(2, self.time / 4, np.float32), 1.0, self.time >= last, False, {}


gymnasium.register("parsecrl-tests/Brief-v0", entry_point=Brief)


@pytest.mark.parametrize("always", [False, True])
def test_episodes_shorter_than_a_slice_are_waited_for(always: bool):
    """One is played where the world is tried: that of 4 steps is the third task's."""
    world = {"id": "parsecrl-tests/Brief-v0", "kwargs": {"always": always}}
    trainable = LatentPlanning({**settings(slice_length=3), "world": world})
    found = [trainable.step() for _ in range(4)]
    assert ["loss" in result for result in found] == [not always and number >= 2 for number in range(4)]
    waiting = [UNTRAINED in result for result in found]
    assert waiting == [always or number < 2 for number in range(4)]
    assert found[1][UNTRAINED] == (
        "no episode of 2 lasted the 3 steps of a slice; lower slice_length, or prolong the phase"
    )


def test_a_refit_uses_the_transitions_of_all_tasks(monkeypatch: pytest.MonkeyPatch):
    experiment = PlanningExperiment(settings(budgets={"tiny": {**TINY, "gradient_steps": 20}}), seed=0)
    experiment.run_task()
    experiment.play(2)
    seen, loss = set(), experiment.model.loss

    def watched(batch, generator=None):
        assert batch.obs.shape == (24, 2, 10)
        seen.update((*pair.flatten().tolist(), a) for pair, (a,) in zip(batch.obs, batch.action.tolist(), strict=True))
        return loss(batch, generator)

    monkeypatch.setattr(experiment.model, "loss", watched)
    experiment.refit(2)
    obs, action = experiment.experience.obs, experiment.experience.action
    rows = [i for i, a in enumerate(action.tolist()) if a >= 0]
    assert len(rows) == 24
    assert seen == {(*obs[i : i + 2].flatten().tolist(), int(action[i])) for i in rows}


def test_slices_are_as_long_as_the_model_needs():
    def slices(*kind: str, **config: Any) -> int:
        return LatentPlanningSettings.checked(settings(*kind, **config)).slices

    assert slices("parsimonious") == 1
    assert slices("parsimonious", model={"rollout_steps": 3}) == 3
    assert slices("rnn") == slices("ssm") == 10
    assert slices("rnn", slice_length=4) == 4
    with pytest.raises(ValueError, match=r"slice_length must be model\.rollout_steps, 3, or more, got 2"):
        slices("parsimonious", model={"rollout_steps": 3}, slice_length=2)


# -- the trainable


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_trial_goes_on_as_if_nothing_had_happened(kind: str, tmp_path: Path):
    through = make(kind)
    through.step()
    through.save_checkpoint(str(tmp_path))
    after = [without_times(through.step()) for _ in range(2)]
    resumed = make(kind)
    resumed.load_checkpoint(str(tmp_path))
    assert [without_times(resumed.step()) for _ in range(2)] == after
    for name, value in resumed.experiment.model.state_dict().items():
        assert torch.equal(value, through.experiment.model.state_dict()[name]), name
    for name, value in resumed.experiment.experience.tensors().items():
        assert torch.equal(value, through.experiment.experience.tensors()[name]), name
    assert all(result["tasks"] == n for n, result in enumerate(after, start=2))


def test_models_meet_the_same_tasks_and_seeds_other_ones():
    def starts(kind: str, seed: int) -> list[tuple[int, int]]:
        experiment = PlanningExperiment(settings(kind), seed)
        return [(t.start_state, t.goal_state) for t in (experiment.run_task() for _ in range(3))]

    assert starts("parsimonious", 0) == starts("true_dynamics", 0) != starts("true_dynamics", 1)
    worlds = [PlanningExperiment(settings(), seed).world.observations for seed in (0, 0, 1)]
    assert np.array_equal(worlds[0], worlds[1])
    assert not np.array_equal(worlds[0], worlds[2])
    assert make(seed=1).experiment.seed != make(run_seed=1).experiment.seed != make().experiment.seed


def test_deduplicated_and_plain_evaluation_give_the_same_run():
    # eight latents: a product of fewer columns is MKL's, whose rows depend on how many there are
    results = []
    for deduplicate in (True, False):
        trainable = make("parsimonious", deduplicate=deduplicate)
        results.append([trainable.step() for _ in range(3)])
    distinct, plain = results
    for a, b in zip(distinct, plain, strict=True):
        assert {**without_times(a), "evaluations_saved": 0} == {**without_times(b), "evaluations_saved": 0}
    assert distinct[-1]["evaluations_saved"] > 0.1
    assert plain[-1]["evaluations_saved"] == 0.0


def test_results_are_means_over_the_tasks_so_far():
    trainable = make("true_dynamics")
    found = [trainable.step() for _ in range(3)]
    scores = [result["task_score"] for result in found]
    assert [result["score"] for result in found] == pytest.approx([np.mean(scores[:n]) for n in (1, 2, 3)])
    assert "planning_ms" not in found[0]  # all actions are random in the first task
    assert "loss" not in found[0]
    assert found[-1]["planning_ms"] > 0


def test_a_loss_that_is_not_finite_ends_the_trial():
    trainable = make()
    with torch.no_grad():
        next(trainable.experiment.model.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan in the refit after task 1"):
        trainable.step()


# -- analysis


def test_the_tables_of_checkpoints(tmp_path: Path):
    folders = []
    for kind in ("parsimonious", "true_dynamics"):
        trainable = make(kind, seed=2)
        for _ in range(3):
            trainable.step()
        folders.append(tmp_path / kind)
        folders[-1].mkdir()
        trainable.save_checkpoint(str(folders[-1]))
    alone = analyse(folders[0])
    parameters = [{"model.kind": "parsimonious", "seed": 2, "model.beta": 3.0}, {"model.kind": "true_dynamics"}]
    tables = analyse_all(folders, parameters)
    scores = tables["scores"]
    assert scores["model"].unique().tolist() == ["parsimonious, beta=3.0", "true_dynamics"]
    assert set(scores["env"]) == {"parsecrl/Gridworld-v0"}
    assert scores["episode"].tolist() == [1, 2, 3] * 2
    assert alone["scores"]["score"].tolist() == scores["score"].tolist()[:3]
    tasks = tables["tasks"]
    assert scores[scores["model"] == "true_dynamics"]["score"].tolist() == [t.score for t in trainable.experiment.tasks]
    assert (tasks["num_evaluated"] <= tasks["num_asked"]).all()
    assert tables["budgets"]["num_samples"].tolist() == [20, 20]
    assert set(tables["latents"]["model"]) == {"parsimonious, beta=3.0"}  # what was not learned has no picture
    experiment, _ = read_experiment(folders[0])
    taken = visits(experiment.experience, 121, 5)
    assert taken.sum() == 36
    obs = torch.from_numpy(experiment.world.observations)
    s, a = (int(i[0]) for i in np.nonzero(taken))
    rows = (experiment.experience.obs == obs[s]).all(1) & (experiment.experience.action == a)
    assert int(rows.sum()) == taken[s, a]


# -- what is refused


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"num_tasks": 0}, "num_tasks must be greater than or equal to 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0, got -1.0"),
        ({"slice_length": 30}, r"slice_length must lie in \[1, batch_size\], got 30 with batch_size=24"),
        ({"budget": "huge"}, r"budget must name one of budgets \(tiny\), got 'huge'"),
        ({"budgets": {"tiny": {**TINY, "num_elites": 20}}}, r"\[1, num_samples\), got 20 with num_samples=20"),
        ({"model": {"kind": "gru"}}, "model.kind must be 'parsimonious', .*, got 'gru'"),
        ({"model": {"kind": "encoder_only"}}, "model.kind must be .* got 'encoder_only'"),
        ({"model": {"beta": -1.0}}, "model.beta must be greater than or equal to 0, got -1.0"),
        ({"model": {"transformation": "shear"}}, "transformation must be 'rotation', 'translation' or 'affine'"),
        ({"world": {"start": [11, 0]}}, "start must lie in the grid of 11 x 11 cells"),
        ({"world": {"id": "parsecrl/FourRooms-v0", "goal": [0, 5]}}, "goal must not be on a wall"),
    ],
)
def test_bad_settings_are_named(config: dict[str, Any], rule: str):
    with pytest.raises(ValueError, match=rule):
        make(**config)


def test_damaged_and_foreign_checkpoints_are_named(tmp_path: Path):
    trainable = make()
    with pytest.raises(ValueError, match=r"holds no readable planning\.json"):
        trainable.load_checkpoint(str(tmp_path))
    trainable.step()
    trainable.save_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="a model of another size"):
        make(model={"hidden_size": 8}).load_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="give the one of its run"):
        make(seed=5).load_checkpoint(str(tmp_path))
    tensors = tmp_path / "planning.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(ValueError, match="missing or damaged"):
        trainable.load_checkpoint(str(tmp_path))
    description = json.loads((tmp_path / "planning.json").read_text())
    (tmp_path / "planning.json").write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(ValueError, match="has format 9"):
        trainable.load_checkpoint(str(tmp_path))


# -- a world of one's own


class Line(gymnasium.Env):
    """Five places in a row, as one-hot vectors; two actions; it ends at the goal, the last."""

    def __init__(self, tells_goal: bool = True, actions: int | None = 2):
        self.observation_space = spaces.Box(0.0, 1.0, (5,), np.float64)
        self.action_space = spaces.Discrete(actions) if actions else spaces.Box(-1.0, 1.0, (1,))
        self.tells_goal = tells_goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.left = int(self.np_random.integers(4)), 8
        return np.eye(5)[self.place], {"goal_observation": np.eye(5)[4]} if self.tells_goal else {}

    def step(self, action):
        self.place = max(0, self.place - 1) if action == 0 else self.place + 1
        self.left -= 1
        return np.eye(5)[self.place], float(self.place == 4), self.place == 4, self.left == 0, {}


@pytest.fixture
def line():
    kinds = {"Line": {}, "Silent": {"tells_goal": False}, "Continuous": {"actions": None}}
    for name, options in kinds.items():
        gymnasium.register(f"parsecrl_tests/{name}-v0", entry_point=Line, kwargs=options)
    yield "parsecrl_tests/Line-v0"
    for name in kinds:
        gymnasium.registry.pop(f"parsecrl_tests/{name}-v0")


def test_a_world_of_ones_own_is_played_too(line: str, tmp_path: Path):
    config = settings("rnn", slice_length=1)
    trainable = LatentPlanning({**config, "world": {"id": line}})
    for _ in range(3):
        result = trainable.step()
    assert result["tasks"] == 3
    trainable.save_checkpoint(str(tmp_path))
    tables = analyse(tmp_path)
    assert tables["tasks"]["distance"].tolist() == [-1] * 3  # nobody knows its topology
    assert "latents" not in tables
    with pytest.raises(ValueError, match=r"model\.kind true_dynamics needs a grid world"):
        LatentPlanning({**settings("true_dynamics"), "world": {"id": line}})
    with pytest.raises(ValueError, match="must hold goal_observation"):
        LatentPlanning({**config, "world": {"id": "parsecrl_tests/Silent-v0"}})
    with pytest.raises(ValueError, match="the actions of a world must be Discrete"):
        LatentPlanning({**config, "world": {"id": "parsecrl_tests/Continuous-v0"}})


def test_the_defaults_are_the_papers():
    defaults = LatentPlanningSettings()
    assert (defaults.num_tasks, defaults.epsilon_exponent, defaults.learning_rate) == (30, 2.8, 1e-3)
    budget = defaults.chosen_budget
    assert (budget.horizon, budget.num_samples, budget.num_elites, budget.num_iterations) == (15, 1000, 200, 10)
