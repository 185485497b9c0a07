"""What users' code raises arrives as itself and ends a trial at once; the same command goes on when it is mended."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from parsecrl.platform.runs.stored_checkpoints import stored_checkpoints
from tests.platform.commands import Commands
from tests.platform.tiny import PLANET

# A world that fails where a process's title says that it works for what FAULT names, until it is mended.
WORLDS = '''
import re
from pathlib import Path
import gymnasium as gym
from ray._raylet import getproctitle
from tests.envs.case_worlds import Chain, Point

class LicenceError(Exception):
    """Its pickle cannot be read: the constructor asks for more than args holds."""

    def __init__(self, code, text):
        super().__init__(f"{text} ({code})")

def look(when):
    kind, moment, where = "FAULT".split()
    if moment == when and re.search(where, getproctitle()) and not Path(__file__).with_name("mended").exists():
        with Path(__file__).with_name("tries").open("a") as file:
            file.write("x")
        return kind
    return ""

class Faulty(Point):
    def __init__(self, render_mode=None):
        if look("init"):
            raise LicenceError(7, "no licence\\nask your dealer")
        super().__init__()

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        kind = look("step") if self.time == 7 else ""
        if kind == "raises":
            raise LicenceError(7, "no licence\\nask your dealer")
        if kind == "nan_observation":
            obs[0] = float("nan")
        return obs, float("nan") if kind == "nan_reward" else reward, terminated, truncated, info

class FaultyChain(Chain):
    def step(self, action):
        found = super().step(action)
        if self.time == 3 and look("step"):
            raise LicenceError(7, "no licence\\nask your dealer")
        return found

gym.register("Faulty-v0", entry_point=Faulty)
gym.register("FaultyChain-v0", entry_point=FaultyChain)
'''
ACTING = (
    """
name: tiny
env: {id: "my_worlds:Faulty-v0", action_repeat: 1}
resources:
  {num_env_runners: 0, num_envs_per_env_runner: 1, num_cpus_for_main_process: 0.5, num_cpus_per_env_runner: 0.5}
phases:
"""
    + PLANET.replace("train_ratio: 0.002", "train_ratio: 0.05")
    + """    decisions_per_iteration: 60
    stop: {env_steps: 180}
    checkpoint_every: 1
"""
)
PPO = """  - name: finetune
    algorithm: dcem_ppo
    start_from: planet
    fine_tune: [reward]
    episodes_per_step: 1
    noise_bank_size: 2
    stop: {ppo_steps: 2}
"""
SAC = """
name: tiny
phases:
  - name: sac
    algorithm: latent_sac
    world: {id: "my_worlds:FaultyChain-v0"}
    model: {kind: encoder_only, latent_size: 4, code_size: 4, hidden_size: 8}
    policy: {hidden_size: 8, num_layers: 1}
    batch_size: 8
    stop: {episodes: 3}
"""
PLANNING = """
name: tiny
phases:
  - name: maze
    algorithm: latent_planning
    world: {id: "my_worlds:FaultyChain-v0"}
    num_tasks: 2
    budget: tiny
    budgets: {tiny: {horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 1, gradient_steps: 2}}
    stop: {tasks: 2}
"""
EMBEDDED = ACTING.replace("kind: full", "kind: embedded, latent_size: 2")
EVALUATED = "evaluate: {episodes: 2, random: false, videos: false}\n"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A folder with a package for each case, and a process that runs commands of `parsec` on them all."""
    home = tmp_path_factory.mktemp("cases")
    commands = Commands(PYTHONPATH=f"{home}{os.pathsep}{Path(__file__).parents[2]}")
    yield home, commands
    commands.end()


def run_twice(cases, spec, fault):
    """The command twice; in between the user mends the world. The case's folder, and what was said."""
    home, commands = cases
    folder = home / f"case_{len(list(home.iterdir()))}"
    folder.mkdir()
    (folder / "my_worlds.py").write_text(WORLDS.replace("FAULT", fault))
    (folder / "tiny.yaml").write_text(spec.replace("my_worlds", f"{folder.name}.my_worlds"))
    first = commands.parsec(folder, "run", "tiny.yaml")
    (folder / "mended").touch()
    second = commands.parsec(folder, "run", "tiny.yaml")
    told = first.err + second.err
    assert "Traceback" not in told, told[-5000:]
    assert (first.code, second.code) == (1, 0), told[-5000:]
    (said,) = re.findall(r"^parsec: (.*)$", told, re.MULTILINE)
    return folder, said


def line_of(text, nth=0):
    return [i for i, line in enumerate(WORLDS.splitlines(), 1) if text in line][nth]


# Tune wraps the class of a trial with plain resources: its process is named ResourceTrainable.
CASES = {
    "planet": (ACTING, "raises step planet", "planet", 1),
    "planet with a runner": (ACTING, "raises step EnvRunner", "planet", 1),
    "a runner's constructor": (ACTING, "raises init EnvRunner", "planet", 0),
    "dcem_ppo": (
        ACTING.replace("kind: full", "kind: embedded, latent_size: 2") + PPO,
        "raises step dcem_ppo",
        "finetune",
        1,
    ),
    "latent_sac": (SAC, "raises step ResourceTrainable", "sac", 2),
    "latent_planning": (PLANNING, "raises step ResourceTrainable", "maze", 2),
}


@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", list(CASES))
def test_what_an_environment_raises_ends_the_trial_and_is_continued_when_mended(cases, case):
    spec, fault, phase, nth = CASES[case]
    if "EnvRunner" in fault:
        spec = spec.replace("num_env_runners: 0", "num_env_runners: 1")
    folder, said = run_twice(cases, spec + EVALUATED * ("Faulty-v0" in spec), fault)
    run = folder / "runs" / "tiny"
    (trial,) = run.glob(f"{phase}/trial_*")  # the one that failed went on
    place = f"{folder}/my_worlds.py:{line_of('raise LicenceError', nth)}"
    env = f"{folder.name}.my_worlds:Faulty-v0"
    made = f"ValueError: environment '{env}' cannot be made: " * (case == "a runner's constructor")
    assert said.startswith(f"phase {phase} stopped: {made}LicenceError: no licence ({place})"), said
    assert said.count(place) == 1
    assert f"the traceback is in {trial}/error.txt" in said
    assert "last good checkpoint" not in said  # there is none
    text = (trial / "error.txt").read_text()
    assert text.count("Failure # ") == 1
    assert "ask your dealer" in text
    assert f'File "{folder}/my_worlds.py", line {line_of("raise LicenceError", nth)}' in text
    if "init" not in fault:
        assert (folder / "tries").read_text() == "x"
    assert stored_checkpoints(run / phase)


@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["nan_observation", "nan_reward"])
@pytest.mark.parametrize("runners", [0, 1])
def test_what_is_not_finite_is_blamed_on_the_world(cases, kind, runners):
    spec = ACTING.replace("num_env_runners: 0", f"num_env_runners: {runners}") + EVALUATED
    folder, said = run_twice(cases, spec, f"{kind} step {'EnvRunner' if runners else 'planet'}")
    assert "my_worlds:Faulty-v0" in said
    assert "step 7" in said
    assert "nan" in said.lower()
    assert "last checkpoint is good" not in said
    assert "learning_rate" not in said
    assert (folder / "tries").read_text() == "x"


@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_what_fails_in_evaluation_says_the_same_and_keeps_what_was_done(cases):
    spec = ACTING.replace("num_env_runners: 0", "num_env_runners: 1") + EVALUATED
    folder, said = run_twice(cases, spec, "raises step evaluation")
    run = folder / "runs" / "tiny"
    (trial,) = run.glob("planet/trial_*")
    place = f"{folder}/my_worlds.py:{line_of('raise LicenceError', 1)}"
    assert said.startswith(f"evaluation of planet stopped: LicenceError: no licence ({place})"), said
    assert f"the traceback is in {trial}/evaluation_error.txt" in said
    assert "ask your dealer" in (trial / "evaluation_error.txt").read_text()
    assert (folder / "tries").read_text() == "x"
    assert len(pd.read_csv(run / "evaluation.csv")) == 2
