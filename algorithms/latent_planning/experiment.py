"""Algorithm 2: tasks one after the other, each played by planning in the model, which is refitted after it.

Axes: O observation, T steps of an episode, L transitions of a slice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from parsecrl.algorithms.controllers import CategoricalController
from parsecrl.algorithms.latent_planning.experience import Experience
from parsecrl.algorithms.latent_planning.settings import LatentPlanningSettings
from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.tables import map_row
from parsecrl.algorithms.latent_study.units import warn_of_units
from parsecrl.algorithms.latent_study.worlds import World, check_slices, make_vector_world, space_sizes, world_of
from parsecrl.algorithms.models import TransitionSequence
from parsecrl.algorithms.offline_data.episodes import Dataset, DatasetError
from parsecrl.algorithms.training.episodes import play_episode
from parsecrl.algorithms.training.measurements import PlanTime
from parsecrl.algorithms.training.seeding import derive_seed


@dataclass
class Task:
    """One task as it was played, and the refit after it."""

    number: int  # from 1
    epsilon: float
    score: float = 0.0  # sum of rewards
    start_state: int = -1  # the world's number of where it began, -1 if it tells none
    goal_state: int = -1
    distance: int = -1  # moves of a shortest path, -1 if the world's topology is not known
    num_plans: int = 0
    num_asked: int = 0  # transitions that the searches asked for
    num_evaluated: int = 0  # transitions that the model evaluated
    num_transformations: int = 0  # transformations decoded, of a model with codes
    planning_seconds: float = 0.0
    refit_seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)  # means over the refit
    map: dict[str, Any] = field(default_factory=dict)  # `map_row` after the refit, of a model that trains in a grid


def epsilon_of(number: int, num_tasks: int, exponent: float) -> float:
    """E(N) = 1 - ((N - 1) / T)^V, the share of random actions in a task (Saanum and Schulz 2022, appendix A.7).

    Args:
        number: N, of the task, from 1.
        num_tasks: T, at least 1.
        exponent: V, > 0.

    Returns:
        In [0, 1]; 0 beyond T.
    """
    return max(0.0, 1.0 - ((number - 1) / num_tasks) ** exponent)


def layout_seed(seed: int) -> int:
    """Of the cells' vectors in a trial's world, where the world's group states none.

    Args:
        seed: Of the trial.

    Returns:
        The seed.
    """
    return derive_seed(seed, "layout")


def task_seed(seed: int, number: int) -> int:
    """Of the reset of a task.

    Args:
        seed: Of the trial.
        number: Of the task, from 1.

    Returns:
        The seed.
    """
    return derive_seed(seed, "task", number)


def make_world(group: Mapping[str, Any], seed: int) -> gymnasium.Env:
    """The environment of a phase's group `world`.

    The project's own worlds draw start and goal for every task and their layout from the seed, unless the group says
    otherwise. Any other must have the key "goal_observation" [O] in the info of `reset`.

    Args:
        group: id, and what else the environment has as arguments.
        seed: Of the layout, and of the reset that is tried here.

    Returns:
        The environment.

    Raises:
        ValueError: The environment gives no goal, or as `make_vector_world` says.
    """
    options = dict(group)
    if options["id"].startswith("parsecrl/"):
        options = {"start": None, "goal": None, **options}
    env = make_vector_world(options, layout_seed(seed))
    if "goal_observation" not in env.reset(seed=seed)[1]:
        raise ValueError(
            f"the info of reset must hold goal_observation, got none from {options['id']!r}; choose another world.id"
        )
    return env


def cells_of(obs: np.ndarray, world: World | None) -> Tensor:
    """Where observations were seen.

    Args:
        obs: [T, O] float32.
        world: A grid world; None of others.

    Returns:
        Numbers of cells [T] int64, -1 of a world that is no grid.

    Raises:
        DatasetError: The grid world never shows one of them.
    """
    if world is None:
        return torch.full((len(obs),), -1)
    cells = {seen.tobytes(): cell for cell, seen in enumerate(np.ascontiguousarray(world.observations, np.float32))}
    try:
        return torch.tensor([cells[seen.tobytes()] for seen in np.ascontiguousarray(obs, np.float32)])
    except KeyError:
        raise DatasetError(
            "offline_data holds an observation that the world never shows; set world.layout_seed to that of the dataset"
        ) from None


class PlanningExperiment:
    """The state of a series of tasks: model, optimiser and all that was seen.

    Everything random in task N is drawn from generators seeded by (seed, role, N): between two tasks none has a state,
    and models are compared on the same tasks.

    Args:
        config: `LatentPlanningSettings` by name.
        seed: Of everything random.
        device: Of the model, such as "cuda".

    Raises:
        ValueError: The settings refuse the config, the model does not predict, or the world does not suit.
    """

    def __init__(self, config: Mapping[str, Any], seed: int, device: str = "cpu"):
        self.settings = c = LatentPlanningSettings.from_config(config)
        self.seed, self.device = seed, torch.device(device)
        self.env = make_world(c.world.plain(), seed)
        self.world = world_of(self.env)  # None of an environment that is no grid world
        sizes = space_sizes(self.env)
        initialisation = derive_seed(seed, "initialisation")
        self.model = make_model(c.model.plain(), *sizes, initialisation, self.world).to(self.device)
        if not self.model.predicts:
            raise ValueError(
                f"planning needs a model that predicts, got {type(self.model).__name__}; choose another model.kind"
            )
        self.optimizer = None
        if self.model.trains:
            self.optimizer = torch.optim.Adam(self.model.parameters(), c.learning_rate, fused=True)
        self.slice_length = c.slices
        check_slices(self.env, self.slice_length, "slice_length")
        search = c.chosen_budget.model_dump(exclude={"gradient_steps"})
        self.controller = CategoricalController(sizes[1], **search, deduplicate=c.deduplicate)
        self.experience = Experience(self.model.obs_size)
        self.tasks: list[Task] = []
        self.plans: list[PlanTime] = []  # of the last task that was played here

    def run_task(self) -> Task:
        """Play the next task, then refit; of a dataset first refit, since playing adds nothing to it."""
        number, offline = len(self.tasks) + 1, self.settings.offline_data is not None
        task = None if offline else self.play(number)
        started = time.perf_counter()
        losses = self.refit(number)
        seconds = time.perf_counter() - started
        task = task or self.play(number)
        task.losses, task.refit_seconds = losses, seconds
        self.tasks.append(task)
        if self.world is not None and self.model.trains:
            task.map = map_row(map_measures(self.model, self.world))
        return task

    @torch.no_grad()
    def play(self, number: int) -> Task:
        """Play an episode: at every step the first action of a new plan, or with probability epsilon a random one.

        Args:
            number: Of the task, from 1.

        Returns:
            What was scored and planned; its losses, map and refit_seconds are left empty.
        """
        explores = self.settings.offline_data is None
        epsilon = epsilon_of(number, self.settings.num_tasks, self.settings.epsilon_exponent) if explores else 0.0
        task = Task(number, epsilon)
        self.plans = []
        draws = np.random.default_rng(derive_seed(self.seed, "exploration", number))
        generator = torch.Generator(self.device).manual_seed(derive_seed(self.seed, "plans", number))
        known: dict[str, Any] = {}  # goal, state and action of the step before

        def act(obs: np.ndarray, info: Mapping[str, Any]) -> int:
            if not known:
                goal = self.env.get_wrapper_attr("read")(info["goal_observation"], "the goal")
                known["goal"], known["state"] = self.model.encode(self._row(goal)), self.model.begin(self._row(obs))
            else:
                before = torch.tensor([known["action"]], device=self.device)
                known["state"] = self.model.observe(known["state"], before, self._row(obs))
            is_random, action = draws.random() < task.epsilon, int(draws.integers(self.controller.num_actions))
            known["action"] = action if is_random else self._plan(task, known["state"], known["goal"], generator)
            return known["action"]

        played = play_episode(self.env, task_seed(self.seed, number), act)
        states = [info.get("state", -1) for info in played.infos]
        task.start_state, task.goal_state = states[0], played.infos[0].get("goal_state", -1)
        task.distance = self._distance(task.start_state, task.goal_state)
        task.score = sum(played.rewards)
        if number == 1:
            warn_of_units(np.stack(played.observations), self.settings.world.id)
        if explores:
            rows = torch.from_numpy(np.stack(played.observations)).to(torch.float32)
            rewards = torch.tensor(played.rewards, dtype=torch.float32)
            self.experience.add(rows, torch.tensor(played.actions), torch.tensor(states), rewards, played.terminated)
        return task

    def take(self, dataset: Dataset) -> None:
        """Have seen a dataset.

        Args:
            dataset: Of this world, as `check_world` finds it.

        Raises:
            DatasetError: The world never shows one of its observations.
        """
        for episode in dataset.episodes:
            obs, action, reward = (torch.from_numpy(part) for part in (episode.obs, episode.action, episode.reward))
            self.experience.add(obs, action, cells_of(episode.obs, self.world), reward, episode.terminated)

    def _plan(self, task: Task, state: Tensor, goal: Tensor, generator: torch.Generator) -> int:
        started = time.perf_counter()
        plan = self.controller.plan(self.model, state, goal, generator)
        action = int(plan.actions[0, 0])
        self.plans.append(PlanTime(time.perf_counter() - started, decisions=1))
        task.planning_seconds += self.plans[-1].seconds
        task.num_plans += 1
        task.num_asked += plan.num_asked
        task.num_evaluated += plan.num_evaluated
        task.num_transformations += plan.num_transformations
        return action

    def refit(self, number: int) -> dict[str, float]:
        """Take gradient steps on slices of everything that was seen.

        Args:
            number: Of the task that was played, from 1.

        Returns:
            Means of the loss and of its terms; nothing for a model that does not train, nor before an episode held a
            slice.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        if self.optimizer is None or not self.experience.starts(self.slice_length).numel():
            return {}
        sampling = torch.Generator().manual_seed(derive_seed(self.seed, "batches", number))
        noise = torch.Generator(self.device).manual_seed(derive_seed(self.seed, "noise", number))
        num_slices = max(1, self.settings.batch_size // self.slice_length)
        found: dict[str, list[Tensor]] = {}
        for _ in range(self.settings.chosen_budget.gradient_steps):
            batch = self.experience.sample(num_slices, self.slice_length, sampling)
            batch = TransitionSequence(*(part.to(self.device) for part in batch))
            loss = self.model.loss(batch, noise)
            self.optimizer.zero_grad()
            loss.total.backward()
            self.optimizer.step()
            for name, value in {"loss": loss.total.detach(), **loss.terms}.items():
                found.setdefault(name, []).append(value)
        means = {name: float(torch.stack(values).mean()) for name, values in found.items()}
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"the loss is {means['loss']} in the refit after task {number}; lower learning_rate or the weights of "
                f"the objective"
            )
        return means

    def _row(self, obs: np.ndarray) -> Tensor:
        """[O] -> [1, O]."""
        return torch.from_numpy(obs).to(self.device, torch.float32).unsqueeze(0)

    def _distance(self, start: int, goal: int) -> int:
        return -1 if self.world is None or min(start, goal) < 0 else int(self.world.distances[start, goal])
