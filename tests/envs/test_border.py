"""What goes in and out at the border equals what a twin of the world says, whatever its spaces and habits."""

import copy
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from parsecrl.envs import EnvironmentFault, make_env, make_world
from parsecrl.envs.border import LONGEST

CASES = "tests.envs.case_worlds:"
FLOATS, WHOLE = (np.float16, np.float32, np.float64), (np.int8, np.uint8, np.int32, np.int64, np.uint64)
UNIT = spaces.Box(-1.0, 1.0, (1,), np.float32)

shapes = arrays.array_shapes(min_dims=0, max_dims=3, max_side=3)
seeds = st.integers(0, 2**31 - 1)
quick = settings(deadline=None, max_examples=60)


@st.composite
def boxes(draw: st.DrawFn, dtypes: tuple[type, ...] = (*FLOATS, *WHOLE, np.bool_)) -> spaces.Box:
    """Bounded boxes of every shape and dtype; some sides have no length, some the whole range of the dtype."""
    dtype, shape = np.dtype(draw(st.sampled_from(dtypes))), draw(shapes)
    if dtype.kind == "b":
        limits: Any = st.booleans()
    elif dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        limits = st.floats(-largest, largest, width=8 * dtype.itemsize)
    else:
        limits = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    ends = [draw(arrays.arrays(dtype, shape, elements=limits)) for _ in range(2)]
    return spaces.Box(np.asarray(np.minimum(*ends)), np.asarray(np.maximum(*ends)), dtype=dtype)


@st.composite
def discrete(draw: st.DrawFn) -> spaces.Discrete:
    return spaces.Discrete(draw(st.integers(1, 5)), start=draw(st.integers(-7, 7)))


@st.composite
def leaves(draw: st.DrawFn) -> spaces.Space:
    kind = draw(st.sampled_from(["box", "unbounded", "discrete", "multi_discrete", "multi_binary"]))
    if kind == "box":
        return draw(boxes((np.float32, np.int8, np.uint8, np.int32, np.bool_)))
    if kind == "unbounded":
        return spaces.Box(-np.inf, np.inf, draw(shapes), draw(st.sampled_from(FLOATS)))
    if kind == "discrete":
        return draw(discrete())
    if kind == "multi_binary":
        return spaces.MultiBinary(draw(arrays.array_shapes(max_dims=2, max_side=3)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return spaces.MultiDiscrete(
        sizes, start=draw(st.lists(st.integers(-3, 3), min_size=len(sizes), max_size=len(sizes)))
    )


observed = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: spaces.Tuple(parts)),
    ),
    max_leaves=5,
)


class World(gymnasium.Env):
    """Says what `script` holds, step by step, and remembers what it is told.

    habit: "new" returns new arrays, "reused" fills the same ones again, "view" returns views of larger ones, which it
    overwrites in the next step.
    """

    def __init__(self, observation_space, action_space, script, rewards=(), end=None, habit="new", terminates=True):
        self.observation_space, self.action_space = observation_space, action_space
        self.script, self.rewards, self.end, self.habit, self.terminates = script, rewards, end, habit, terminates
        self.told: list[Any] = []
        self.lent: list[np.ndarray] = []

    def reset(self, seed=None, options=None):
        self.time, self.told = 0, []
        return self._say(), {}

    def step(self, action):
        self.told.append(copy.deepcopy(action))
        if isinstance(action, np.ndarray):
            action[...] = action.flat[0]  # an action is the world's to change
        self.time += 1
        reward = self.rewards[(self.time - 1) % len(self.rewards)] if self.rewards else 0.0
        is_over = self.end is not None and self.time >= self.end
        return self._say(), reward, is_over and self.terminates, is_over and not self.terminates, {}

    def _say(self):
        for array in self.lent:
            array[...] = 77 if array.dtype.kind != "b" else True
        obs = copy.deepcopy(self.script[self.time % len(self.script)])
        if self.habit == "new" or not isinstance(obs, np.ndarray):
            return obs
        if not self.lent or self.lent[0].dtype != obs.dtype:
            self.lent = [np.empty((2, *obs.shape), obs.dtype) if self.habit == "view" else np.empty_like(obs)]
        lent = self.lent[0][1, ...] if self.habit == "view" else self.lent[0]
        lent[...] = obs
        return lent


def control(world: World, **options: Any):
    return make_env(lambda arguments: world, **options)


def samples(space: spaces.Space, seed: int, count: int = 4) -> list[Any]:
    space.seed(seed)
    drawn = [space.sample() for _ in range(count)]
    assume(all(map(space.contains, drawn)))  # Gymnasium draws 125 from Box(126, 126, (), int8)
    return drawn


@quick
@given(observed, seeds, st.sampled_from(["new", "reused", "view"]))
def test_observations_of_every_space_are_the_twins_flattened_and_stay_what_they_were(space, seed, habit):
    script = samples(space, seed)
    env = control(World(space, UNIT, script, habit=habit))
    obs, _ = env.reset()
    seen = [obs] + [env.step(np.zeros(1, np.float32))[0] for _ in script[1:]]
    for got, said in zip(seen, script, strict=True):
        assert got.dtype == np.float32
        assert got.flags.owndata or got.base is None
        assert env.observation_space.contains(got)
        np.testing.assert_array_equal(got, np.asarray(spaces.flatten(space, said)).astype(np.float32))


@quick
@given(boxes(), seeds)
@example(spaces.Box(2**53 + 1, 2**53 + 1, (), np.int64), 0)  # no number of float64
def test_actions_of_every_box_reach_its_bounds_exactly_and_lie_in_it(box, seed):
    world = World(UNIT, box, [np.zeros(1, np.float32)])
    env = control(world, action_repeat=2)
    (size,) = env.action_space.shape
    units = np.random.default_rng(seed).uniform(-1, 1, (3, size)).astype(np.float32)
    env.reset()
    for unit in (-np.ones(size), np.ones(size), np.full(size, -np.inf), np.full(size, 9.0), *units):
        before = unit.copy()
        env.step(unit)
        np.testing.assert_array_equal(unit, before)
    assert all(type(told) is np.ndarray and box.contains(told) for told in world.told)
    np.testing.assert_array_equal(world.told[0::2], world.told[1::2])  # both simulator steps had the same
    low, high, below, above, *inner = world.told[::2]
    for told, bound in ((low, box.low), (high, box.high), (below, box.low), (above, box.high)):
        np.testing.assert_array_equal(told, bound)
    for unit, told in zip(units, inner, strict=True):
        ends = (box.low.ravel().tolist(), box.high.ravel().tolist())
        for u, value, a, b in zip(unit.tolist(), told.ravel().tolist(), *ends, strict=True):
            wanted = (1 - u) / 2 * float(a) + (1 + u) / 2 * float(b)
            exact = 0.51 if box.dtype.kind in "iub" else 0.0
            reach = max(abs(float(a)), abs(float(b)))
            precision = np.finfo(box.dtype if box.dtype.kind == "f" else np.float64).eps
            assert abs(float(value) - wanted) <= exact + 2 * precision * reach + 1e-7


@quick
@given(discrete(), seeds, st.sampled_from([np.int64, np.int32, int, np.uint8]))
def test_discrete_actions_count_from_nought(space, seed, kind):
    world = World(UNIT, space, [np.zeros(1, np.float32)])
    env = make_world(lambda arguments: world)
    assert env.action_space == spaces.Discrete(space.n)
    env.reset()
    for action in range(int(space.n)):
        env.step(kind(action))
    assert world.told == list(range(int(space.start), int(space.start + space.n)))
    assert all(space.contains(told) for told in world.told)
    for wrong in (-1, int(space.n), 0.5, None):
        with pytest.raises(ValueError, match=f"whole number from 0 to {space.n - 1}"):
            env.step(wrong)


@pytest.mark.parametrize("terminates", [False, True])
@given(st.integers(1, 12), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 12)))
@quick
def test_an_episode_that_ends_at_any_step_is_counted_and_summed(terminates, end, repeat, limit):
    rewards = [0.5, np.float32(1.5), np.array([2.0]), np.array(4), 8, np.float64(16), True]
    world = World(UNIT, UNIT, [np.zeros(1, np.float32)], rewards, end, terminates=terminates)
    env = control(world, action_repeat=repeat, max_episode_steps=limit)
    length = min(end, limit or end)
    for _ in range(2):
        env.reset()
        total, counted, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
            assert type(reward) is float
            assert type(terminated) is type(truncated) is bool
            total, counted, over = total + reward, counted + info["env_steps"], terminated or truncated
            assert info["env_steps"] == min(repeat, length - counted + info["env_steps"])
        assert counted == world.time == length
        assert total == sum(float(np.asarray(rewards[t % len(rewards)]).item()) for t in range(length))
        assert (terminated, truncated) == (terminates and end == length, not (terminates and end == length))


@pytest.mark.parametrize("said", [0.25, np.float64(0.25), np.array(0.25), np.array([0.25]), [0.25], np.array([[0.25]])])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scalar_observation_may_come_in_any_shape(said, shape):
    env = control(World(spaces.Box(-1, 1, shape, np.float32), UNIT, [said]))
    np.testing.assert_array_equal(env.reset()[0], np.array([0.25], np.float32))


def test_pictures_stay_pictures_and_are_copied():
    space = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    script = samples(space, 0)
    world = World(space, spaces.Discrete(2), script, habit="reused")
    env = make_world(lambda arguments: world)
    seen = [env.reset()[0]] + [env.step(0)[0] for _ in script[1:]]
    np.testing.assert_array_equal(seen, script)
    assert env.observation_space == space
    world.script = [script[0].astype(np.int64)]
    assert env.step(1)[0].dtype == np.uint8
    world.script = [script[0].astype(np.int64) + 256]
    with pytest.raises(EnvironmentFault, match=r"the observation must hold whole numbers from 0 to 255"):
        env.step(1)


NAN, GOOD = np.array([0.0, np.nan], np.float32), np.zeros(2, np.float32)
PAIR = spaces.Box(-np.inf, np.inf, (2,), np.float32)
NESTED = spaces.Dict({"place": PAIR, "legs": spaces.Tuple([spaces.Discrete(3, start=1), PAIR])})


@pytest.mark.parametrize(
    ("space", "said", "words"),
    [
        (PAIR, NAN, r"at reset: the observation\[1\] must be a finite number in float32, got nan"),
        (PAIR, np.array([np.inf, 0]), r"the observation\[0\] must be a finite number in float32, got inf"),
        (PAIR, np.array([1e39, 0]), r"the observation\[0\] must be a finite number in float32, got inf"),
        (PAIR, np.zeros(3), r"must have the shape \(2,\) of its space, got \(3,\)"),
        (PAIR, np.zeros((2, 1)), r"must have the shape \(2,\) of its space, got \(2, 1\)"),
        (PAIR, None, r"the observation must be an array of numbers, got None"),
        (PAIR, np.array(["1", "2"]), r"must be an array of numbers"),
        (PAIR, [[1], [1, 2]], r"must be an array of numbers"),
        (NESTED, {"place": GOOD, "legs": (1, NAN)}, r"the observation\['legs'\]\[1\]\[1\] must be a finite number"),
        (NESTED, {"place": GOOD, "legs": (0, GOOD)}, r"\['legs'\]\[0\] must be a whole number from 1 to 3, got 0"),
        (NESTED, {"place": GOOD, "legs": (1.5, GOOD)}, r"\['legs'\]\[0\] must be a whole number from 1 to 3, got 1.5"),
        (NESTED, {"place": GOOD}, r"the observation must be a dict with the key 'legs', got a dict of place"),
        (NESTED, {"place": GOOD, "legs": (1,)}, r"the observation\['legs'\] must be a tuple of 2, got \(1,\)"),
        (spaces.MultiDiscrete([2, 3]), [0, 3], r"the observation must lie in MultiDiscrete"),
    ],
)
@pytest.mark.filterwarnings("error")  # of numpy beside the sentence
def test_an_observation_that_does_not_fit_is_named_with_its_entry(space, said, words):
    with pytest.raises(EnvironmentFault, match=words) as caught:
        control(World(space, UNIT, [said])).reset()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("environment '")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((GOOD, 0.0, False, {}), r"at step 1 of an episode: step must return five values, .* older interface"),
        ((GOOD, 0.0, False), r"step must return a tuple .*, got a tuple of 3 \(ndarray, float, bool\)"),
        (None, r"got a value of type NoneType"),
        ((GOOD, 0.0, 0, False, {}), r"terminated must be True or False, got 0; .* bool\(terminated\)"),
        ((GOOD, 0.0, False, None, {}), r"truncated must be True or False, got None"),
        ((GOOD, float("nan"), False, False, {}), r"the reward must be a finite number in float32, got nan"),
        ((GOOD, np.float32("-inf"), False, False, {}), r"the reward must be a finite number in float32, got -inf"),
        ((GOOD, 1e39, False, False, {}), r"the reward must be a finite number in float32, got 1e\+39"),
        ((GOOD, np.zeros(2), False, False, {}), r"the reward must have the shape \(\)"),
        ((GOOD, "1", False, False, {}), r"the reward must be an array of numbers, got '1'"),
        ((GOOD, 0.0, False, False, None), r"the info must be a dict, got NoneType"),
        ((NAN, 0.0, False, False, {}), r"at step 1 of an episode: the observation\[1\] must be a finite number"),
    ],
)
def test_a_step_that_breaks_a_promise_is_named(result, words):
    world = World(PAIR, UNIT, [GOOD])
    env = control(world)
    env.reset()
    world.step = lambda action: result
    with pytest.raises(EnvironmentFault, match=words):
        env.step(np.zeros(1, np.float32))


def end_process(*arguments, **options):
    raise SystemExit(3)


@pytest.mark.parametrize("call", ["reset", "step", "constructor"])
def test_a_task_that_ends_the_process_is_named(call):
    world = World(PAIR, UNIT, [GOOD])
    env = control(world)
    if call == "constructor":
        with pytest.raises(ValueError, match=r"cannot be made: SystemExit: 3 \(.*test_border\.py:\d"):
            make_env(end_process)
        return
    env.reset()
    setattr(world, call, end_process)
    words = r"at (step 1|reset)\b.*: its code ended the process, sys\.exit\(3\); raise an error"
    with pytest.raises(EnvironmentFault, match=words):
        env.reset() if call == "reset" else env.step(np.zeros(1, np.float32))


def test_rewards_whose_sum_is_too_large_are_named():
    world = World(PAIR, UNIT, [GOOD])
    env = make_env(lambda arguments: world, action_repeat=2)
    env.reset()
    world.step = lambda action: (GOOD, 3e38, False, False, {})
    with pytest.raises(EnvironmentFault, match=r"at step 2 of an episode: the reward must be a finite .*, got 6e\+38"):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("result", [GOOD, (GOOD,), (GOOD, 1), [GOOD, {}]])
def test_a_reset_without_an_info_is_named(result):
    world = World(PAIR, UNIT, [GOOD])
    world.reset = lambda seed=None, options=None: result
    with pytest.raises(EnvironmentFault, match=r"at reset: reset must return a tuple \(observation, info\)"):
        control(world).reset()


def test_flags_of_numpy_and_infos_that_are_used_again_do_no_harm():
    world, info = World(PAIR, UNIT, [GOOD]), {"mine": 1}
    env = control(world)
    env.reset()
    world.step = lambda action: (GOOD, 0.0, np.bool_(False), np.array([True]), info)
    *_, terminated, truncated, told = env.step(np.zeros(1, np.float32))
    assert (terminated, truncated) == (False, True)
    assert told == {"mine": 1, "env_steps": 1}
    assert info == {"mine": 1}


def test_actions_that_are_none_are_refused():
    env = control(World(PAIR, UNIT, [GOOD]))
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(1, np.float32))
    env.reset()
    with pytest.raises(ValueError, match=r"an action must be of numbers, got \[nan\]"):
        env.step(np.array([np.nan]))
    with pytest.raises(ValueError, match=r"an action must have the shape \(1,\), got \(2,\)"):
        env.step(np.zeros(2))


# The worlds of others.


def play(env: gymnasium.Env, action: Any, episodes: int = 4) -> list[tuple[Any, float]]:
    seen = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        over = False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append((obs, reward))
            over = terminated or truncated
    return seen


@pytest.mark.parametrize("twin", ["ChainReused", "ChainFromOne"])
def test_a_twin_of_a_chain_plays_as_the_chain(twin):
    own, other = (play(make_world(f"{CASES}{name}-v0"), 2) for name in ("Chain", twin))
    np.testing.assert_array_equal([obs for obs, _ in own], [obs for obs, _ in other])
    assert [reward for _, reward in own] == [reward for _, reward in other] == [0.0, 0.0, 0.0, 1.0] * 4


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("OldInterface", EnvironmentFault, r"OldInterface-v0' at step 1 .* the older interface"),
        ("PointNaNObservation", EnvironmentFault, r"NaNObservation-v0' at step 7 .*: the observation\[0\] must be a"),
        (
            "PointNaNReward",
            EnvironmentFault,
            r"PointNaNReward-v0' at step 7 of an episode: the reward must be a finite number",
        ),
        ("PointWithoutEnd", EnvironmentFault, rf"at step {LONGEST} .* must end, .*; set env\.max_episode_steps"),
        ("PointRaises", RuntimeError, r"^simulator lost its licence$"),
    ],
)
def test_the_worlds_faults_are_named_and_its_own_errors_left_alone(name, error, words):
    with pytest.raises(error, match=words) as caught:
        play(make_env(f"{CASES}{name}-v0"), np.zeros(1, np.float32))
    assert type(caught.value) is error


def test_a_limit_ends_what_has_no_end_and_replaces_the_registered_one():
    env = make_env(f"{CASES}PointWithoutEnd-v0", 4, max_episode_steps=30)
    env.reset(seed=0)
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(8)]
    assert [info["env_steps"] for *_, info in steps] == [4] * 7 + [2]
    assert [truncated for *_, truncated, _ in steps] == [False] * 7 + [True]
    for limit, length in ((None, 200), (50, 50), (300, 300)):
        env = make_env("Pendulum-v1", max_episode_steps=limit)
        assert len(play(env, np.zeros(1, np.float32), 1)) == env.max_episode_steps == length


@pytest.mark.parametrize(
    ("id", "options", "words"),
    [
        ("NeedsArgument-v0", {}, r"NeedsArgument-v0' needs the argument 'path'; set env\.kwargs\.path"),
        (
            "FileMissing-v0",
            {},
            r"cannot be made: FileNotFoundError: .* 'robot\.urdf' \(.*case_worlds\.py:\d+\); .*env\.kwargs",
        ),
        ("Point-v0", {"kwargs": {"stepz": 3}}, r"takes no argument 'stepz', it takes .*; did you mean 'steps'\?"),
        ("Point-v0", {"kwargs": {"steps": 3, 5: 1}}, r"env\.kwargs must be a group of arguments by name"),
        ("Point-v0", {"kwargs": [1]}, r"env\.kwargs must be a group of arguments by name, got \[1\]"),
        ("Point-v0", {"max_episode_steps": 0}, r"env\.max_episode_steps must be a whole number of at least 1, .*got 0"),
        ("Piont-v0", {}, r"must be one that tests\.envs\.case_worlds registers, .*; did you mean Point-v0"),
        ("Chain-v0", {}, r"must be a bounded Box, got Discrete\(3\)"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(id, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_env(f"{CASES}{id}", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("seen", "action", "words"),
    [
        (spaces.Dict(name=spaces.Text(5), place=PAIR), UNIT, "must be made of Box, Discrete, MultiDiscrete and Multi"),
        (spaces.OneOf([spaces.Discrete(2), PAIR]), UNIT, "must be made of Box, .* wrap the task so that they are"),
        (spaces.Box(-1, 1, (0,)), UNIT, "with one number at the least"),
        (None, UNIT, "must be made of Box, .* got None"),
        (PAIR, spaces.Box(-1, 1, (0,)), "the actions of an environment must have an entry"),
    ],
)
def test_spaces_without_a_vector_are_refused(seen, action, words):
    with pytest.raises(ValueError, match=words):
        make_env(lambda arguments: World(seen, action, []))


def test_a_module_says_itself_why_it_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "parsecrl_tests_broken.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "parsecrl_tests_lacking.py").write_text("import parsecrl_tests_not_there\n")
    (tmp_path / "parsecrl_tests_syntax.py").write_text("x = 1\nif x\n")
    (tmp_path / "parsecrl_tests_old.py").write_text(
        "import gymnasium\nfrom gymnasium import spaces\nclass Old(gymnasium.Env):\n"
        "    observation_space = action_space = spaces.Box(-1, 1, (1,))\n    def reset(self): pass\n"
        "gymnasium.register('Old-v0', entry_point=Old)\n"
        "gymnasium.register('Gone-v0', entry_point='nowhere_at_all:Gone')\n"
    )
    for id, words in (
        ("parsecrl_tests_broken:A-v0", r"cannot be imported: ZeroDivisionError: division by zero \(.*broken\.py:2\)"),
        ("parsecrl_tests_lacking:A-v0", r"NotFoundError: No module named 'parsecrl_tests_not_there' .*PYTHONPATH"),
        ("parsecrl_tests_syntax:A-v0", r"SyntaxError: expected ':' \(.*syntax\.py:2\)"),
        ("parsecrl_tests_absent:A-v0", r"'parsecrl_tests_absent' .* cannot be found; .*PYTHONPATH.*--code"),
        ("parsecrl_tests_old:Old-v0", r"the reset of environment .* must take the keywords seed and options"),
        ("parsecrl_tests_old:Gone-v0", r"the module 'nowhere_at_all' of environment .* cannot be found"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            make_env(id)
        assert "\n" not in str(caught.value)


def test_arguments_reach_the_task_and_errors_of_a_class_are_its_own():
    assert make_env(f"{CASES}Point-v0", kwargs={"steps": 5}).unwrapped.steps == 5
    with pytest.raises(ValueError, match=r"cannot be made: KeyError: 'path' \(.*test_border\.py:\d+\)"):
        make_env(lambda arguments: arguments["path"])
    with pytest.raises(ValueError, match=r"must make a gymnasium\.Env, got a int"):
        make_env(lambda arguments: 3)
    env = gymnasium.make(
        "parsecrl.envs:parsecrl/Control-v0",
        env_id=f"{CASES}Point-v0",
        action_repeat=3,
        kwargs={"steps": None},
        env_max_episode_steps=7,
    )
    assert len(play(env, np.zeros(1, np.float32), 1)) == 3


def test_what_is_not_finite_is_one_sentence_and_no_warning_of_numpys():
    code = (
        "import numpy as np\n"
        "from gymnasium import spaces\n"
        "from parsecrl.envs.conversions import Misfit, Vectors\n"
        "vectors = Vectors(spaces.Box(-np.inf, np.inf, (2,), np.float64))\n"
        "for value in (np.nan, np.inf, 1e300):\n"
        "    try:\n"
        "        vectors.read(np.array([value, 0.0]))\n"
        "    except Misfit as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("[0] must be a finite number in float32") == 3
