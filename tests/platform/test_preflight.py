"""What a user's environment gets wrong is said before anything is written or started: one sentence, exit code 2."""

import re
import subprocess
import sys
import time

import pytest
import yaml

from parsecrl.algorithms.registry.algorithm import PlayedTask
from parsecrl.envs import make_env
from parsecrl.envs.inspection import inspect_task
from parsecrl.platform import doctor
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.preflight import check_environment
from parsecrl.platform.specs import load_spec
from tests.envs import case_worlds  # noqa: F401 (registers them)
from tests.platform.test_cli import parsec

PLANET = """
name: case
env: {id: "ID"}
resources: {num_env_runners: 0}
phases:
  - {name: planet, algorithm: planet, controller: {kind: full}, stop: {env_steps: 100}}
"""
SAC = """
name: case
phases:
  - {name: sac, algorithm: latent_sac, world: {id: "ID"}, stop: {episodes: 4}}
"""
PLANNING = """
name: case
phases:
  - {name: plan, algorithm: latent_planning, world: {id: "ID"}, slice_length: 1}
"""
HERE = "tests.envs.case_worlds:"
HEAD = ("--address", "http://127.0.0.1:1")
COMMANDS = {"run": ("run",), "specs": ("specs",), "submit": ("submit", *HEAD)}  # no head is there: none is asked


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Give a spec to every command, and take the one sentence that all answer with."""
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()

    def refuse(spec, id, *options, commands=tuple(COMMANDS)):
        folder = tmp_path / "here"
        folder.mkdir(exist_ok=True)
        (folder / "case.yaml").write_text(spec.replace("ID", id))
        said = []
        for name in commands:
            command, *rest = COMMANDS[name]
            done = parsec(folder, command, "case.yaml", *options, *rest)
            assert done.returncode == 2, done.stderr
            assert done.stdout == ""
            assert done.stderr.count("\n") == 1
            said.append(done.stderr.strip())
        assert [path.name for path in folder.iterdir()] == ["case.yaml"]
        assert set(said) == {said[0]}
        return said[0]

    refuse.modules = tmp_path / "modules"
    return refuse


@pytest.mark.parametrize(
    ("id", "parts"),
    [
        ("PointWithoutEnd-v0", ["env.max_episode_steps must be set", "tells no limit", "such as 1000"]),
        ("OldInterface-v0", ["step must return five values, got four", "OldInterface-v0' at step 1 of an episode"]),
        ("NeedsArgument-v0", ["needs the argument 'path'", "set env.kwargs.path"]),
        ("FileMissing-v0", ["FileNotFoundError: [Errno 2] No such file or directory: 'robot.urdf'", "case_worlds.py:"]),
        ("PointNaNObservation-v0", ["at step 7 of an episode: the observation[0] must be a finite number"]),
        ("PointNaNReward-v0", ["at step 7 of an episode: the reward must be a finite number in float32, got nan"]),
        ("PointRaises-v0", ["RuntimeError: simulator lost its licence (", "case_worlds.py:"]),
        ("Pount-v0", ["got 'tests.envs.case_worlds:Pount-v0'; did you mean Point-v0"]),
    ],
)
def test_cases(refused, id, parts):
    said = refused(PLANET, HERE + id)
    assert said.startswith(("parsec: env.", "parsec: env: "))
    for part in parts:
        assert part in said


def test_a_module_that_is_not_on_the_path(refused):
    said = refused(PLANET, "nowhere_worlds:Point-v0")
    assert "the module 'nowhere_worlds' of environment 'nowhere_worlds:Point-v0' cannot be found" in said
    assert "PYTHONPATH" in said


def test_a_module_whose_import_fails(refused):
    (refused.modules / "lacking_worlds.py").write_text("import simulator_of_ours\n")
    (refused.modules / "broken_worlds.py").write_text("\nraise OSError('no licence server')\n")
    said = refused(PLANET, "lacking_worlds:Arm-v0")
    assert "ModuleNotFoundError: No module named 'simulator_of_ours' (" in said
    assert "lacking_worlds.py:1)" in said
    assert "OSError: no licence server (" in refused(PLANET, "broken_worlds:Arm-v0")
    (refused.modules / "script_worlds.py").write_text("import sys\n\nsys.exit('usage: train.py --steps N')\n")
    assert "SystemExit: usage: train.py --steps N (" in refused(PLANET, "script_worlds:Arm-v0", commands=["specs"])


def test_worlds_of_other_algorithms(refused):
    """None has a limit, or the same faults of an interface."""
    (refused.modules / "chain_worlds.py").write_text(CHAINS)
    for spec, phase in ((SAC, "sac"), (PLANNING, "plan")):
        said = refused(spec, "chain_worlds:Endless-v0", commands=["specs"])
        assert said.startswith(f"parsec: phases.{phase}.world.max_episode_steps must be set where")
        said = refused(spec, "chain_worlds:Four-v0", commands=["specs"])
        assert f"phases.{phase}.world: " in said
        assert "step must return five values, got four" in said
        done = ["--set", f"phases.{phase}.world.max_episode_steps=9"]
        assert "got four" in refused(spec, "chain_worlds:Four-v0", *done, commands=["specs"])
    refused(SAC, "chain_worlds:Endless-v0")


CHAINS = """
import gymnasium
from tests.envs.case_worlds import Chain

class Endless(Chain):
    def step(self, action):
        return (*super().step(1)[:2], False, False, {})

class Four(Chain):
    def step(self, action):
        return super().step(action)[:4]

for kind in (Endless, Four):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
"""


def spec_of(tmp_path, text, id, *overrides):
    (tmp_path / "case.yaml").write_text(text.replace("ID", id))
    return load_spec(str(tmp_path / "case.yaml"), list(overrides))


def test_variables_of_the_spec_reach_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PARSEC_TEST_LICENCE", "")  # taken back after the test
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.syspath_prepend(str(modules))
    (modules / "licensed_world.py").write_text(
        "import os\n"
        "import gymnasium\n"
        "from tests.envs.case_worlds import Point\n"
        "def make(**arguments):\n"
        "    assert os.environ['PARSEC_TEST_LICENCE'] == 'here'\n"
        "    return Point(**arguments)\n"
        "gymnasium.register('Licensed-v0', entry_point=make)\n"
    )
    (tmp_path / "case.yaml").write_text(PLANET.replace("ID", "licensed_world:Licensed-v0"))
    check_environment(load_spec(tmp_path / "case.yaml", ["runtime.env_vars.PARSEC_TEST_LICENCE=here"]))
    with pytest.raises(UserError, match="AssertionError"):
        check_environment(load_spec(tmp_path / "case.yaml", ["runtime.env_vars.PARSEC_TEST_LICENCE=elsewhere"]))


def test_a_limit_of_the_spec_is_an_end(tmp_path):
    spec = spec_of(tmp_path, PLANET, f"{HERE}PointWithoutEnd-v0", "env.max_episode_steps=40")
    start = time.perf_counter()
    checked = check_environment(spec)
    assert time.perf_counter() - start < 3.0
    assert checked.warnings == []
    assert checked.random_returns["planet"]["episodes"] == 4


def test_a_searched_world_is_played_with_each_value_once(tmp_path, monkeypatch):
    from parsecrl.platform.running import preflight

    played, inspect = [], preflight.inspect_task
    monkeypatch.setattr(
        preflight, "inspect_task", lambda make, name, *a, **k: played.append(name) or inspect(make, name, *a, **k)
    )
    spec = spec_of(tmp_path, SAC, f"{HERE}Chain-v0")
    grid = {"world.id": {"grid": [f"{HERE}Chain-v0", f"{HERE}ChainReused-v0"]}, "batch_size": {"grid": [8, 16]}}
    text = SAC.replace("ID", f"{HERE}Chain-v0").replace("stop:", f"search: {grid}, stop:")
    spec = spec_of(tmp_path, text, "")
    checked = check_environment(spec)
    assert played == [f"{HERE}Chain-v0", f"{HERE}ChainReused-v0"]
    assert 0.0 <= checked.random_returns["sac"]["mean"] <= 1.0


def test_warnings_are_told_and_refuse_nothing(tmp_path, monkeypatch):
    (tmp_path / "beyond_worlds.py").write_text(BEYOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "case.yaml").write_text(PLANET.replace("ID", "beyond_worlds:Beyond-v0"))
    done = parsec(tmp_path, "specs", "case.yaml")
    assert done.returncode == 0
    assert "id: 'beyond_worlds:Beyond-v0'" in done.stdout
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    assert warnings[0].startswith(
        "parsec: warning: an observation of environment 'beyond_worlds:Beyond-v0' lies outside"
    )
    assert "begins differently when it is reset twice with the same seed" in warnings[1]


BEYOND = """
import gymnasium
import numpy as np
from tests.envs.case_worlds import Point

class Beyond(Point):
    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(-0.01, 0.01, (2,), np.float32)

    def reset(self, seed=None, options=None):
        return super().reset(seed=None)

gymnasium.register("Beyond-v0", entry_point=Beyond)
"""


MODELS = """
from parsecrl.algorithms.models import RSSM

class Blind:
    pass

class Seeing(RSSM):
    pass
"""


@pytest.mark.parametrize(
    ("model", "id", "count"), [("Blind", "Cliff", 1), ("Seeing", "Cliff", 0), ("Blind", "Point", 0)]
)
def test_a_world_model_that_knows_no_end_is_warned_of_where_episodes_terminate(tmp_path, monkeypatch, model, id, count):
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    text = PLANET.replace("stop:", f"world_model: {{kind: 'own_models:{model}'}}, stop:")
    (phase,) = spec_of(tmp_path, text, id).phases
    found = inspect_task(lambda: make_env(f"{HERE}{id}-v0"), id, [0, 1])
    told = phase.entry.task_warnings(phase, PlayedTask(id, found.num_terminated > 0, found.obs_rms))
    assert len(told) == count
    assert all("world_model.kind 'own_models:Blind' has no attribute `terminates`" in text for text in told)


@pytest.mark.parametrize(("id", "count"), [("Cliff", 1), ("Point", 0)])
def test_a_loss_without_terminations_is_warned_of_where_episodes_terminate(tmp_path, id, count):
    (phase,) = spec_of(tmp_path, PLANET.replace("stop:", "loss: {continuation_weight: 0}, stop:"), id).phases
    found = inspect_task(lambda: make_env(f"{HERE}{id}-v0"), id, [0, 1])
    told = phase.entry.task_warnings(phase, PlayedTask(id, found.num_terminated > 0, found.obs_rms))
    assert [text.split(",")[0] for text in told] == ["loss.continuation_weight is 0"] * count


@pytest.mark.parametrize(
    ("algorithm", "unit", "count"),
    [(kind, unit, unit != 1.0) for kind in ("sac", "plan", "rllib") for unit in (1e-4, 1.0, 1e4)]
    + [("planet", 1e-4, 0), ("planet", 1e4, 0)],
)
def test_a_unit_of_observations_that_an_algorithm_takes_as_it_is_is_warned_of(
    tmp_path, monkeypatch, algorithm, unit, count
):
    (tmp_path / "scaled_worlds.py").write_text(SCALED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scaled_worlds", raising=False)
    rllib = PLANET.replace("algorithm: planet, controller: {kind: full}", "algorithm: rllib, class: PPO")
    text, id, key = {
        "sac": (SAC, "scaled_worlds:Scaled-v0", "phases.sac.world"),
        "plan": (PLANNING, "scaled_worlds:Scaled-v0", "phases.plan.world"),
        "rllib": (rllib, f"{HERE}Point-v0", "env"),
        "planet": (PLANET, f"{HERE}Point-v0", "env"),
    }[algorithm]
    told = check_environment(spec_of(tmp_path, text, id, f"{key}.kwargs.obs_unit={unit}")).warnings
    assert len(told) == count, told
    for sentence in told:
        assert re.match(
            rf"phases\.\w+: observations of {id} have a root mean square of [\d.e+-]+, and .* as they", sentence
        )


SCALED = """
import gymnasium
import numpy as np
from tests.envs.case_worlds import Chain

class Scaled(Chain):
    def __init__(self, obs_unit=1.0):
        super().__init__()
        self.unit, self.observation_space = obs_unit, gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)

    def _obs(self):
        return super()._obs() * np.float32(self.unit)

gymnasium.register("Scaled-v0", entry_point=Scaled)
"""


def findings(done, code=0):
    """What `parsec doctor` says, by what it says it of."""
    assert done.returncode == code, done.stderr
    return {line[6:19].strip(): (line[:4].strip(), line[21:]) for line in done.stdout.splitlines()}


def test_doctor_tells_what_is_made_of_a_task(tmp_path):
    found = findings(parsec(tmp_path, "doctor", "--env", f"{HERE}TwoLengths-v0", "--action-repeat", "2"))
    assert found["observations"] == ("ok", "Box(-1.0, 1.0, (2,), float32), given as a vector of 2")
    assert found["actions"] == ("ok", "Box(-1.0, 1.0, (1,), float32), given as 1 in [-1, 1]")
    assert found["episodes"] == ("ok", "2 to 40 simulator steps, no limit known; 10 of 10 terminated, 0 truncated")
    assert found["rewards"][0] == "note"  # each decision gives 2
    assert re.fullmatch(r"mean return [\d.]+, deviation [\d.]+, of 10 episodes", found["random policy"][1])
    assert found["algorithms"] == ("ok", "dcem_ppo, latent_sac, planet, rllib, simulator_planner, unified")
    assert yaml.safe_load(found["spec"][1]) == {"env": {"id": f"{HERE}TwoLengths-v0", "action_repeat": 2}}


def test_doctor_says_what_a_spec_must_say(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "TASK_SECONDS", 0.2)
    task = ("doctor", "--env", f"{HERE}Point-v0", "--kwargs", '{"steps": null, "obs_unit": 3}')
    found = findings(parsec(tmp_path, *task), code=1)
    assert found["episodes"][0] == "BAD"
    assert found["episodes"][1].endswith("no limit known; set env.max_episode_steps")
    stated = yaml.safe_load(found["spec"][1])["env"]
    assert stated["kwargs"] == {"steps": None, "obs_unit": 3}
    assert stated["max_episode_steps"] == 1000
    found = findings(parsec(tmp_path, *task, "--max-episode-steps", "7"))
    assert found["episodes"][1].startswith("7 to 7 simulator steps, a limit of 7; 0 of 10 terminated")


def test_doctor_of_worlds(tmp_path):
    found = findings(parsec(tmp_path, "doctor", "--env", f"{HERE}Chain-v0"))
    assert found["actions"][1] == "Discrete(3), given as 0 to 2"
    assert found["algorithms"][1] == "latent_planning, latent_sac"
    assert yaml.safe_load(found["spec"][1]) == {"world": {"id": f"{HERE}Chain-v0"}}
    found = findings(parsec(tmp_path, "doctor", "--env", "CartPole-v1"))
    assert found["algorithms"][1] == "latent_sac"  # planning asks for a goal


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--env", f"{HERE}NeedsArgument-v0"), "needs the argument 'path'; set env.kwargs.path"),
        (("--env", f"{HERE}OldInterface-v0"), "step must return five values, got four"),
        (("--env", "Pendulum-v1", "--kwargs", "[1]"), "--kwargs must be an object of JSON"),
        (("--env", "Pendulum-v1", "--action-repeat", "0"), "action_repeat must be a whole number of at least 1"),
    ],
)
def test_doctor_of_a_task_that_cannot_be_played(tmp_path, arguments, said):
    done = parsec(tmp_path, "doctor", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_environment_on_the_cluster_alone_is_left_to_the_cluster(tmp_path):
    """Nothing is checked here; the head, which is not there, would be asked next. A run here must check here."""
    (tmp_path / "case.yaml").write_text(PLANET.replace("ID", "nowhere_worlds:Point-v0"))
    done = parsec(tmp_path, "submit", "case.yaml", *HEAD, "--check-on-cluster")
    assert done.returncode == 2
    assert "no Ray head answers at http://127.0.0.1:1" in done.stderr
    done = parsec(tmp_path, "run", "case.yaml", "--check-on-cluster")
    assert done.returncode == 2
    assert "--check-on-cluster goes with the address of a cluster's head, ray://..., got 'local'" in done.stderr


def test_the_check_starts_no_ray(tmp_path):
    (tmp_path / "case.yaml").write_text(PLANET.replace("ID", "Pendulum-v1"))
    code = (
        "import sys; from parsecrl.platform.specs import load_spec; "
        "from parsecrl.platform.running.preflight import check_environment; "
        "check_environment(load_spec('case.yaml', [])); import ray; sys.exit(ray.is_initialized())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
