"""Algorithms of other packages: found by their entry points or by module:NAME, or refused in one sentence."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from parsecrl.algorithms.registry import lookup as registry
from parsecrl.algorithms.registry import tune_names
from parsecrl.platform.cli import main
from parsecrl.platform.running import trainables
from parsecrl.platform.specs import load_spec, phases

GOOD = '''
from typing import Any, ClassVar
from pydantic import Field, model_validator
from ray.tune import Trainable
from parsecrl.algorithms.registry.algorithm import Algorithm, StopCondition
from parsecrl.algorithms.registry.settings import Count, Positive, Settings, StudySettings

class CounterSettings(StudySettings):
    """Counts."""

    stride: Count = Field(1, description="how far a step goes")

class Counting(Trainable):
    pass

class Counter(Algorithm):
    name = "counter"
    settings = CounterSettings
    stop_conditions: ClassVar = {"steps": StopCondition("steps", "steps", "steps counted")}

    def trainable(self):
        return Counting

    def analyse(self, trials, parallel_map):
        return {}

COUNTER = Counter()

class Second(Counter):
    name = "second"

SECOND = Second()

class Planet(Counter):
    name = "planet"

PLANET = Planet()

class NoTrainable(Algorithm):
    name, settings, stop_conditions = "counter", CounterSettings, Counter.stop_conditions

NO_TRAINABLE = NoTrainable()

class NoAnalysis(NoTrainable):
    def trainable(self):
        return None

NO_ANALYSIS = NoAnalysis()

class NoSettings(Counter):
    settings = dict

NO_SETTINGS = NoSettings()

class Stopping(Settings):
    stop: Positive = 1.0

class TakesStop(Counter):
    settings = Stopping

TAKES_STOP = TakesStop()

class Endless(Counter):
    stop_conditions: ClassVar = {}

ENDLESS = Endless()

class Loose(Counter):
    stop_conditions: ClassVar = {"steps": "steps"}

LOOSE = Loose()

class TakesEnv(Counter):
    settings = type("EnvSettings", (StudySettings,), {"__annotations__": {"env": float}, "env": 1.0})

TAKES_ENV = TakesEnv()

class NoClass(Counter):
    def trainable(self):
        return dict

NO_CLASS = NoClass()

class LocalClass(Counter):
    def trainable(self):
        class Local(Trainable):
            pass

        return Local

LOCAL_CLASS = LocalClass()

class OddReport(Counter):
    def report(self):
        return 3

ODD_REPORT = OddReport()

class NoConfig(Counter):
    def make_config(self, *arguments):
        raise KeyError("stride")

NO_CONFIG = NoConfig()

class RaisesInCheck(Counter):
    def check(self, phase):
        raise KeyError("stride")

RAISES_IN_CHECK = RaisesInCheck()

class LeavesInWorld(Counter):
    def world(self, phase):
        raise SystemExit("no display")

LEAVES_IN_WORLD = LeavesInWorld()

class OddWorld(Counter):
    def world(self, phase):
        return 3

ODD_WORLD = OddWorld()

class OddConfig(Counter):
    def make_config(self, *arguments):
        return 3

ODD_CONFIG = OddConfig()

class TakesTime(Counter):
    stop_conditions: ClassVar = {"time_s": StopCondition("hours", "hours")}

TAKES_TIME = TakesTime()

class FaultyRule(StudySettings):
    stride: Count = 1

    @model_validator(mode="after")
    def _rule(self):
        raise KeyError("stride")

class HasFaultyRule(Counter):
    settings = FaultyRule

HAS_FAULTY_RULE = HasFaultyRule()

class TakesTuneName(Counter):
    tune_name = "Planet"

TAKES_TUNE_NAME = TakesTuneName()
'''
SPEC = """
name: plugged
phases:
  - {name: count, algorithm: %s, stride: 2, stop: {steps: 3}}
"""
CACHES = (
    *(registry.registered, registry._by_name, registry.algorithm_named),
    *(phases.phase_model, phases.stop_model, trainables.trainable_of),
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of that name with these entry points, on the path of this process."""

    def add(entry_points: str = "", name: str = "counters") -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{entry_points}\n")
        forget()

    def forget() -> None:
        for cache in CACHES:
            cache.cache_clear()
        sys.modules.pop("counters", None)

    (tmp_path / "counters.py").write_text(GOOD)
    (tmp_path / "leaves.py").write_text("raise SystemExit('not on this machine')")
    monkeypatch.syspath_prepend(tmp_path)
    yield add
    forget()


def spec_of(tmp_path: Path, algorithm: str) -> Path:
    file = tmp_path / "plugged.yaml"
    file.write_text(SPEC % algorithm)
    return file


@pytest.mark.parametrize("algorithm", ["counter", "counters:COUNTER"])
def test_a_package_of_ones_own_brings_an_algorithm(install, tmp_path: Path, algorithm: str):
    install("counter = counters:COUNTER")
    if ":" in algorithm:
        (tmp_path / "counters-1.0.dist-info" / "entry_points.txt").write_text("")
        for cache in CACHES:
            cache.cache_clear()
    phase = load_spec(spec_of(tmp_path, algorithm)).phases[0]
    assert (phase.algorithm, phase.stride, phase.stop.conditions) == (algorithm, 2, {"steps": 3})
    assert not phase.acts
    assert phase.stop_conditions["steps"].label == "steps"
    assert phase.entry.make_config(phase, None, {}, 7, None) == {
        "seed": 0, "num_cpus_per_trial": 1, "num_gpus_per_trial": 0, "stride": 2, "run_seed": 7, "env": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry_points", "algorithm", "words"),
    [
        ("counter = no_such_module:X", "counter", ["entry point counter = no_such_module:X", "cannot be imported"]),
        ("counter = counters:NOTHING", "counter", ["counter = counters:NOTHING", "cannot be imported", "NOTHING"]),
        ("counter = counters:GOOD", "counter", ["cannot be imported"]),
        ("counter = counters:Counter", "counter", ["must be an instance of a subclass of Algorithm, got Counter"]),
        ("counter = counters:SECOND", "counter", ["must have the name of its algorithm, 'second'"]),
        ("counter = counters:NO_TRAINABLE", "counter", ["must define trainable()"]),
        ("counter = counters:NO_ANALYSIS", "counter", ["must define analyse()"]),
        ("counter = counters:NO_SETTINGS", "counter", ["must have settings, a subclass of Settings"]),
        ("counter = counters:TAKES_STOP", "counter", ["has a setting 'stop'", "rename the setting"]),
        ("counter = counters:ENDLESS", "counter", ["must have stop_conditions", "one key or more"]),
        ("counter = counters:LOOSE", "counter", ["stop_conditions of StopCondition values"]),
        ("counter = counters:TAKES_ENV", "counter", ["has a setting 'env'", "rename the setting"]),
        ("counter = counters:NO_CLASS", "counter", ["trainable() must return a subclass of ray.tune.Trainable"]),
        ("counter = counters:LOCAL_CLASS", "counter", ["a class of a module's top level"]),
        ("counter = counters:ODD_REPORT", "counter", ["report() must return a StudyReport or None, got 3"]),
        (
            "counter = counters:NO_CONFIG",
            "counter",
            ["algorithm counter cannot be used: make_config() of counters:NoConfig raised KeyError: 'stride'; correct"],
        ),
        (
            "counter = counters:RAISES_IN_CHECK",
            "counter",
            ["phases.count: check() of counters:RaisesInCheck raised KeyError: 'stride'; correct it"],
        ),
        (
            "counter = counters:ODD_WORLD",
            "counter",
            ["phases.count: world() of counters:OddWorld must return OwnWorld or None, got 3; `parsec docs"],
        ),
        ("counter = counters:ODD_CONFIG", "counter", ["make_config() of counter must return RLlib's config or a dict"]),
        ("counter = counters:LEAVES_IN_WORLD", "counter", ["LeavesInWorld raised SystemExit: no display; correct it"]),
        ("counter = counters:HAS_FAULTY_RULE", "counter", ["the settings of counter raised KeyError: 'stride'"]),
        ("counter = counters:TAKES_TIME", "counter", ["has a stop condition 'time_s'", "rename it"]),
        ("counter = counters:TAKES_TUNE_NAME", "counter", ["has the tune_name 'Planet'", "rename it"]),
        ("", "leaves:X", ["module:NAME 'leaves:X' cannot be imported (SystemExit: not on this machine)"]),
        ("planet = counters:PLANET", "planet", ["planet = counters:PLANET of the package counters", "shadows"]),
        ("", "counters:PLANET", ["module:NAME 'counters:PLANET' shadows the registered algorithm 'planet'"]),
        ("", "counters:NOTHING", ["module:NAME 'counters:NOTHING' cannot be imported"]),
        ("counter = counters:COUNTER", "countr", ["phases.count.algorithm must be one of", "did you mean 'counter'?"]),
        ("", "", ["phases.count.algorithm must be one of", "got 'nothing'"]),
    ],
)
def test_what_is_no_algorithm_is_refused(
    install, tmp_path: Path, capsys, monkeypatch, entry_points: str, algorithm: str, words: list[str]
):
    install(entry_points)
    spec = spec_of(tmp_path, algorithm)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert main(["run", str(spec)]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert said.count("\n") == 1
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)} == before


def test_two_packages_of_one_name_are_told_apart(install, tmp_path: Path, capsys):
    install("counter = counters:COUNTER", "first")
    install("counter = counters:SECOND", "other")
    assert main(["specs", str(spec_of(tmp_path, "counter"))]) == 2
    assert "shadows the algorithm 'counter'" in capsys.readouterr().err


def test_a_package_that_is_broken_or_shadows_a_name_leaves_the_others_alone(install, tmp_path: Path, capsys):
    install("planet = counters:PLANET\nbroken = no_such_module:X\ncounter = counters:COUNTER")
    assert main(["specs", str(spec_of(tmp_path, "counter"))]) == 0
    assert main(["specs", "--keys"]) == 0
    printed = capsys.readouterr().out
    assert "algorithm: broken: not available: the entry point broken = no_such_module:X" in printed
    assert "algorithm: latent_sac: Soft actor-critic" in printed
    assert {entry.name for entry in registry.usable()} >= {"counter", "latent_sac"}


def test_an_algorithm_that_inherits_from_planet_does_not_take_its_tune_name(install, tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from parsecrl.algorithms.planet.algorithm import PlanetAlgorithm\n"
        "class Mine(PlanetAlgorithm):\n    name = 'a_mine'\nMINE = Mine()\n"
    )
    install("a_mine = mine:MINE")
    table = ModuleType("table")
    table.ALGORITHMS = {}
    tune_names._add(table)
    tune_names._add(table)  # as often as asked
    assert {name: entry.args[0].name for name, entry in table.ALGORITHMS.items()} == {
        "Planet": "planet", "DCEMPPO": "dcem_ppo", "LatentSAC": "latent_sac", "Unified": "unified"
    }  # fmt: skip


def test_a_tune_name_of_rllibs_own_is_warned_of(install):
    install("counter = counters:COUNTER")
    table = ModuleType("table")
    table.ALGORITHMS = {"Planet": len}
    with pytest.warns(UserWarning, match="the algorithm planet has the tune_name 'Planet', by which Tune knows RLlib"):
        tune_names._add(table)
    assert table.ALGORITHMS["Planet"] is len


def test_keys_of_a_plugged_algorithm_are_printed(install, capsys):
    install("counter = counters:COUNTER")
    assert main(["specs", "--keys", "counter"]) == 0
    printed = capsys.readouterr().out
    assert "algorithm: counter: Counts." in printed
    assert "how far a step goes" in printed
    assert "steps counted" in printed


def test_every_algorithm_is_registered_by_its_own_folder():
    rooms = {name: entry.value.split(".")[2] for name, entry in registry.registered().items()}
    assert rooms == {name: name for name in rooms}
    assert {name for name in rooms if registry.algorithm_named(name).acts} == {
        *("planet", "dcem_ppo", "rllib", "simulator_planner", "unified")
    }


def test_settings_need_neither_ray_nor_torch():
    code = (
        "import sys\n"
        "sys.modules['ray'] = sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from parsecrl.algorithms.registry.lookup import algorithm_named, registered\n"
        "from parsecrl.platform.specs import bundled_specs, load_spec\n"
        "for name in registered(): algorithm_named(name).settings.defaults()\n"
        "for name in bundled_specs(): load_spec(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
