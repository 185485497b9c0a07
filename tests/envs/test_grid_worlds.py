"""The gridworld, the four rooms and the torus."""

import warnings
from collections import deque

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from parsecrl.envs import Topology

WORLDS = {"parsecrl/Gridworld-v0": 121, "parsecrl/FourRooms-v0": 104, "parsecrl/Torus-v0": 169}
LEFT, RIGHT, UP, DOWN, STAY = range(5)


def make(id: str, **options):
    return gymnasium.make(id, **options).unwrapped


def step_by_hand(topology: Topology, cell, action):
    """The move, from its description."""
    rows, columns = topology.walls.shape
    row, column = cell
    row, column = {
        LEFT: (row, column - 1),
        RIGHT: (row, column + 1),
        UP: (row - 1, column),
        DOWN: (row + 1, column),
        STAY: (row, column),
    }[action]
    if topology.wraps:
        row, column = row % rows, column % columns
    if not (0 <= row < rows and 0 <= column < columns) or topology.walls[row, column]:
        return cell
    return row, column


@pytest.mark.parametrize("id", WORLDS)
@pytest.mark.parametrize("task", [{}, {"start": None, "goal": None}])
def test_gymnasiums_checker_has_nothing_to_say(id, task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(id, render_mode="rgb_array", **task).unwrapped)


@pytest.mark.parametrize(("id", "cells"), WORLDS.items())
def test_tables_are_the_world_walked_by_hand(id, cells):
    env = make(id)
    topology = env.topology
    assert len(topology.cells) == cells == len(env.observations)
    edges = set()
    for s, cell in enumerate(topology.cells.tolist()):
        for action in range(5):
            there = step_by_hand(topology, tuple(cell), action)
            t = topology.transitions[s, action]
            assert tuple(topology.cells[t]) == there
            if action != STAY:
                assert topology.wall_bits[s, action] == (tuple(cell) == there)
            if t != s:
                edges.add((min(s, t), max(s, t)))
    assert {tuple(pair) for pair in topology.neighbours} == edges
    assert len(topology.neighbours) == len(edges)
    for source in range(0, cells, 17):
        distance, queue = {source: 0}, deque([source])
        while queue:
            here = queue.popleft()
            for there in topology.transitions[here]:
                if there not in distance:
                    distance[there] = distance[here] + 1
                    queue.append(there)
        assert topology.distances[source].tolist() == [distance[s] for s in range(cells)]


def test_distances_have_closed_forms():
    for id, size in (("parsecrl/Gridworld-v0", 11), ("parsecrl/Torus-v0", 13)):
        topology = make(id).topology
        apart = np.abs(topology.cells[:, None] - topology.cells[None])
        if topology.wraps:
            apart = np.minimum(apart, size - apart)
        np.testing.assert_array_equal(topology.distances, apart.sum(-1))
    split = Topology(np.array([[False, True, False]]))
    assert split.distances.tolist() == [[0, -1], [-1, 0]]


def test_four_rooms_are_four_with_four_doors():
    topology = make("parsecrl/FourRooms-v0").topology
    doors = [(2, 5), (5, 1), (6, 8), (9, 5)]
    closed = topology.walls.copy()
    for door in doors:
        assert not closed[door]
        closed[door] = True
    distances = Topology(closed).distances
    rooms = {tuple(row >= 0) for row in distances}
    assert len(rooms) == 4
    assert (topology.distances >= 0).all()


@pytest.mark.parametrize("id", WORLDS)
def test_steps_rewards_observations_and_the_end(id):
    env = make(id, layout_seed=5)
    obs, info = env.reset(seed=1)
    topology, vectors = env.topology, env.observations
    start, goal = env.start, env.goal
    np.testing.assert_array_equal(obs, vectors[start])
    np.testing.assert_array_equal(info["goal_observation"], vectors[goal])
    assert obs.shape == (50 if topology.wraps else 54,)
    assert obs.dtype == np.float32
    state, rng, total_at_goal = start, np.random.default_rng(0), 0
    for t in range(250):
        # a way to the goal, then a walk
        nearer = topology.distances[topology.transitions[state], goal].argmin()
        action = int(nearer) if t < 40 else int(rng.integers(5))
        obs, reward, terminated, truncated, info = env.step(action)
        assert reward == (1.0 if state == goal else -1.0)
        total_at_goal += state == goal
        state = topology.transitions[state, action]
        np.testing.assert_array_equal(obs, vectors[state])
        assert (info["state"], info["goal_state"]) == (state, goal)
        assert (terminated, truncated) == (False, t == 249)
    assert total_at_goal > 0


def test_staying_at_the_goal_pays_from_the_step_after_arrival():
    env = make("parsecrl/Gridworld-v0", start=(0, 0), goal=(0, 1))
    env.reset()
    assert [env.step(action)[1] for action in (RIGHT, STAY, LEFT, STAY)] == [-1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize("id", WORLDS)
def test_vectors_are_standard_normal_and_of_the_layout_seed_alone(id):
    a, b = make(id, layout_seed=1, observation_size=400), make(id, layout_seed=1, observation_size=400)
    a.reset(seed=1), b.reset(seed=2)
    np.testing.assert_array_equal(a.observations, b.observations)
    vectors = a.observations[:, :400]
    assert abs(vectors.mean()) < 0.02
    assert abs(vectors.std() - 1) < 0.02
    assert not np.array_equal(vectors, make(id, layout_seed=2, observation_size=400).observations[:, :400])
    if not a.topology.wraps:
        np.testing.assert_array_equal(a.observations[:, 400:], a.topology.wall_bits)
    obs, _ = a.reset()
    obs += 1  # the caller's copy
    np.testing.assert_array_equal(a.observations, b.observations)


@pytest.mark.parametrize("fixed", [{}, {"start": (3, 4)}, {"goal": (3, 4)}])
def test_drawn_cells_are_uniform_apart_and_reproducible(fixed):
    env = make("parsecrl/FourRooms-v0", **({"start": None, "goal": None} | fixed))
    pairs = [(i["state"], i["goal_state"]) for i in (env.reset(seed=s)[1] for s in range(1500))]
    assert all(start != goal for start, goal in pairs)
    for k, name in enumerate(("start", "goal")):
        drawn = {pair[k] for pair in pairs}
        if name in fixed:
            assert drawn == {env.topology.number_of((3, 4), name)}
        else:
            assert len(drawn) >= 103  # every cell that may be drawn
    assert env.episode_steps == 50
    assert [env.reset(seed=s)[1]["state"] for s in range(5)] == [pair[0] for pair in pairs[:5]]
    assert make("parsecrl/FourRooms-v0", **({"start": None, "goal": None} | fixed), episode_steps=7).episode_steps == 7


def test_an_episode_takes_its_own_start_and_goal():
    env = make("parsecrl/Torus-v0")
    _, info = env.reset(options={"start": (0, 2), "goal": (1, 0)})
    assert (info["state"], info["goal_state"]) == (2, 13)
    _, info = env.reset()
    assert (info["state"], info["goal_state"]) == (env.start, env.goal)
    with pytest.raises(ValueError, match="options of reset must be start or goal, got 'begin'"):
        env.reset(options={"begin": (0, 0)})


@pytest.mark.parametrize("id", WORLDS)
def test_the_picture_shows_walls_start_goal_and_oneself(id):
    env = make(id, render_mode="rgb_array")
    env.reset()
    env.step(RIGHT)
    picture = env.render()
    side, frame = 24, 0 if env.topology.wraps else 12
    rows, columns = env.topology.walls.shape
    assert picture.shape == (rows * side + 2 * frame, columns * side + 2 * frame, 3)
    assert picture.dtype == np.uint8

    def colour(cell, inset):
        return tuple(picture[frame + cell[0] * side + inset, frame + cell[1] * side + inset].tolist())

    at = {name: tuple(env.topology.cells[n]) for name, n in (("start", env.start), ("goal", env.goal))}
    beside = (at["start"][0], at["start"][1] + 1)
    assert colour(at["start"], 3) == (246, 211, 74)
    assert colour(at["goal"], 3) == (212, 62, 54)
    assert colour(beside, 12) == (42, 94, 168)
    walls = np.array([[colour((r, c), 3) == (60, 60, 66) for c in range(columns)] for r in range(rows)])
    np.testing.assert_array_equal(walls, env.topology.walls)
    assert make(id).render() is None


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("parsecrl/FourRooms-v0", {"start": (0, 5)}, r"start must not be on a wall, got \(0, 5\); take .* \(0, 4\)"),
        ("parsecrl/FourRooms-v0", {"goal": (5, 0)}, r"goal must not be on a wall, got \(5, 0\)"),
        ("parsecrl/Gridworld-v0", {"goal": (11, 0)}, r"goal must lie in the grid of 11 x 11 cells.* got \(11, 0\)"),
        ("parsecrl/Gridworld-v0", {"start": (-1, 0)}, r"start must lie in the grid"),
        ("parsecrl/Torus-v0", {"start": (1.5, 0)}, r"start must be a cell \(row, column\) of whole numbers"),
        ("parsecrl/Torus-v0", {"start": 3}, r"start must be a cell"),
        ("parsecrl/Torus-v0", {"start": (9, 9)}, r"start and goal must be two cells, got \(9, 9\) for both"),
        ("parsecrl/Torus-v0", {"observation_size": 0}, "observation_size must be a whole number of 1 or more, got 0"),
        ("parsecrl/Torus-v0", {"episode_steps": 0}, "episode_steps must be a whole number of 1 or more, got 0"),
        ("parsecrl/Torus-v0", {"layout_seed": -1}, "layout_seed must be a whole number of 0 or more, got -1"),
        ("parsecrl/Torus-v0", {"layout_seed": None}, "layout_seed must be a whole number of 0 or more, got None"),
        ("parsecrl/Torus-v0", {"size": 2}, "size must be a whole number of 3 or more, got 2"),
        ("parsecrl/Gridworld-v0", {"size": 1}, "size must be a whole number of 2 or more, got 1"),
    ],
)
def test_bad_arguments_are_refused(id, options, message):
    with pytest.raises(ValueError, match=message):
        make(id, **options)


def test_an_action_that_is_none_is_refused():
    env = make("parsecrl/Gridworld-v0")
    env.reset()
    with pytest.raises(ValueError, match=r"the action must be a whole number from 0 to 4 .* got 5"):
        env.step(5)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        type(env)(render_mode="human")


@pytest.mark.ray
def test_two_workers_see_the_same_world(ray_runtime):
    import os

    import ray

    @ray.remote(num_cpus=1)
    class Worker:
        def look(self, id: str, seed: int):
            from parsecrl.envs import Topology  # noqa: F401  registers the worlds

            env = gymnasium.make(id, layout_seed=7).unwrapped
            env.reset(seed=seed)
            seen = [env.step(action)[0] for action in (RIGHT, DOWN, STAY, LEFT)]
            return os.getpid(), env.observations, np.stack(seen)

    workers = [Worker.remote() for _ in range(2)]
    for id in WORLDS:
        first, second = ray.get([worker.look.remote(id, seed) for seed, worker in enumerate(workers)])
        assert len({first[0], second[0], os.getpid()}) == 3
        np.testing.assert_array_equal(first[1], second[1])
        np.testing.assert_array_equal(first[2], second[2])
        np.testing.assert_array_equal(first[1], make(id, layout_seed=7).observations)
    for worker in workers:
        ray.kill(worker)
