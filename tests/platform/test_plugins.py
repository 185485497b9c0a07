"""Parts from other packages in a run: the example package, installed, from its spec to its report; and bad ones."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from parsecrl.algorithms.checkpoints.agent import read_description, save_agent
from parsecrl.algorithms.controllers import Controller, PlanningAgent
from parsecrl.algorithms.controllers.own_parts import parts
from parsecrl.algorithms.models import WorldModel
from parsecrl.algorithms.registry.algorithm import Algorithm
from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.configs import phase_config
from parsecrl.platform.runs import trust
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import dump, load_spec, parse_spec

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
SPEC = EXAMPLE / "example.yaml"
SHOOTING, MODEL, COST = (
    "parsec_example.random_shooting:RandomShooting",
    "parsec_example.gru_model:GRUModel",
    "parsec_example.cost:upright",
)


@pytest.fixture
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    importlib.invalidate_caches()


# --- in a spec ------------------------------------------------------------------------------------------------------


def test_a_spec_with_other_parts_prints_in_full_and_reads_back(tmp_path):
    spec = load_spec(SPEC)
    assert spec.phases[0].controller.options == {"num_samples": 16}
    assert spec.phases[0].world_model.kind == MODEL
    (tmp_path / "again.yaml").write_text(dump(spec))
    assert load_spec(tmp_path / "again.yaml") == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "controller.kind=fll",
            r"controller\.kind must be one of full, icem, mppi, embedded, module:name, got fll; .*'full'",
        ),
        ("world_model.kind=rsm", r"world_model\.kind must be one of rssm, module:name, got rsm; .*'rssm'"),
        ("controller.horizn=3", r"controller\.horizn is not a known key; did you mean 'horizon'"),
        ("world_model.hidden_size=3", r"world_model\.hidden_size is not a known key; did you mean 'options'"),
        ("controller.objective=upright", r"controller\.objective must be module:name, got 'upright'"),
        ("search={world_model.kind: {grid: [rssm]}}", r"'world_model\.kind' is not a key .* that can be searched"),
    ],
)
def test_mistakes_in_the_keys_of_other_parts_are_named(change, message):
    with pytest.raises(UserError, match=message):
        load_spec(SPEC, [f"phases.planet.{change}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "controller.kind=parsec_example.random_shooting:RandomShotting",
            "parsec_example.random_shooting:RandomShotting' cannot be imported",
        ),
        ("controller.options.num_sample=3", "phases.planet.controller.options.num_sample is no option"),
        ("controller.objective=math:hypot", "phases.planet.controller.objective 'math:hypot' failed in a trial"),
        ("search={controller.options.num_samples: {grid: [8, none]}}", f"{SHOOTING}' must have a noise_shape"),
        (
            f"world_model={{kind: {SHOOTING}, options: {{belief_size: 3}}}}",
            "lacks obs_size, deterministic_size, stochastic_size",
        ),
    ],
)
@pytest.mark.parametrize("command", ["specs", "run"])
def test_a_part_that_cannot_do_its_work_is_one_sentence_and_nothing_is_written(
    command, change, message, on_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([command, str(SPEC), "--set", f"phases.planet.{change}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ppo_needs_a_controller_that_lets_a_gradient_through(on_path, tmp_path, capsys):
    data = yaml.safe_load(SPEC.read_text())
    data["phases"].append(
        {
            "name": "tune",
            "algorithm": "dcem_ppo",
            "start_from": "planet",
            "episodes_per_step": 1,
            "stop": {"ppo_steps": 1},
        }
    )
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(data))
    assert main(["specs", str(tmp_path / "ppo.yaml")]) == 2
    said = capsys.readouterr().err
    assert "phases.tune.fine_tune must name what the gradient of a plan reaches" in said
    assert f"kind '{SHOOTING}', has nothing" in said


def test_the_how_to_quotes_what_the_example_does(on_path, tmp_path):
    text = (EXAMPLE.parents[1] / "docs" / "plugins.md").read_text()
    blocks = dict(re.findall(r"```(yaml|python|toml)\n(.*?)```", text, re.DOTALL))
    said, stated = yaml.safe_load(blocks["yaml"])["phases"][0], yaml.safe_load(SPEC.read_text())["phases"][0]
    assert said.items() <= stated.items()
    assert blocks["toml"] in (EXAMPLE / "pyproject.toml").read_text()
    quoted: dict = {}
    exec(blocks["python"], quoted)
    predicted = torch.randn(2, 3, 4, 3), torch.randn(2, 3, 4), torch.randn(2, 3, 4, 1)
    cost = importlib.import_module("parsec_example.cost").upright(*predicted)
    assert torch.equal(quoted["upright"](*predicted), cost)
    for protocol in (Controller, WorldModel):
        assert all(f"`{part}" in text for part in parts(protocol))
    algorithm = text[text.index("## An algorithm") : text.index("## An environment")]
    own = Algorithm.__annotations__.keys() | {part for part in vars(Algorithm) if not part.startswith("_")}
    assert set(re.findall(r"^\| `(\w+)", algorithm, re.MULTILINE)) == own


# --- trust ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(on_path, tmp_path):
    """Of a run that somebody else made: <run>/<phase>/<trial>/checkpoint_*."""
    phase = load_spec(SPEC).phases[0]
    groups = phase.model_dump(include={"controller", "world_model", "decoder"}, exclude_none=True)
    torch.manual_seed(0)
    folder = tmp_path / "run" / "planet" / "trial_00000" / "checkpoint_000000"
    folder.mkdir(parents=True)
    described = {"algorithm": "planet", "env": {"id": "Pendulum-v1", "action_repeat": 20}, **groups, "env_steps": 1}
    save_agent(folder, PlanningAgent(3, 1, **groups), described)
    return folder


def test_code_that_a_checkpoint_of_others_names_runs_only_when_trusted(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "key"))
    arguments = ["evaluate", str(checkpoint), "--episodes", "1"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"made by the code {SHOOTING}, {COST}, {MODEL}, which would run on this machine; give --trust" in said
    assert main([*arguments, "--trust"]) == 0
    assert f"Pendulum-v1 | {SHOOTING} | 1 episodes" in capsys.readouterr().out
    record = checkpoint.parents[2] / trust.RECORD
    record.write_text(json.dumps(trust.new_record()))  # now the run is this user's own
    assert main(arguments) == 0
    capsys.readouterr()
    description = read_description(checkpoint) | {"world_model": {"kind": "gone:Model"}}
    (checkpoint / "agent.json").write_text(json.dumps(description))
    assert main(arguments) == 2
    assert "world_model.kind 'gone:Model' cannot be imported (ModuleNotFoundError" in capsys.readouterr().err


def test_a_run_lets_the_next_phase_run_the_code_that_its_spec_names_and_no_other(on_path, tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "key"))
    data = yaml.safe_load(SPEC.read_text())
    data["phases"][0] |= {"controller": {"kind": "embedded", "horizon": 5, "objective": COST}, "world_model": {}}
    data["phases"].append({"name": "tune", "algorithm": "dcem_ppo", "start_from": "planet", "stop": {"ppo_steps": 1}})
    spec = parse_spec(data, "ppo.yaml")
    groups = spec.phases[0].model_dump(include={"controller", "world_model", "decoder"}, exclude_none=True)
    start_from = tmp_path / "run" / "planet" / "trial_00000" / "checkpoint_000000"
    start_from.mkdir(parents=True)
    described = {"algorithm": "planet", "env": {"id": "Pendulum-v1", "action_repeat": 20}, **groups, "env_steps": 1}
    save_agent(start_from, PlanningAgent(3, 1, **groups), described)
    folder = RunFolder(tmp_path / "other", spec)  # not this user's own, as long as it is not opened
    folder.path.mkdir()
    folder.record("planet", {"checkpoint": str(start_from)})
    assert not folder.is_own
    config = phase_config(folder, spec.phases[1])
    assert config.start_from_trusted
    config.validate()
    own = {**described["controller"], "objective": "gone:cost"}
    (start_from / "agent.json").write_text(json.dumps(read_description(start_from) | {"controller": own}))
    with pytest.raises(UserError, match=r"made by the code gone:cost, .* give --trust"):
        phase_config(folder, spec.phases[1])


def test_the_checkpoints_of_an_acting_algorithm_by_module_and_name_are_evaluated(
    checkpoint, tmp_path, monkeypatch, capsys
):
    (tmp_path / "their_planet.py").write_text(
        "from parsecrl.algorithms.planet.algorithm import PlanetAlgorithm\n"
        "class Theirs(PlanetAlgorithm):\n    name = 'theirs'\n"
        "class Still(Theirs):\n    acts = False\n    analyse = print\n"
        "THEIRS, STILL = Theirs(), Still()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "key"))
    name = "their_planet:THEIRS"
    phase = load_spec(SPEC, [f"phases.planet.algorithm={name}"]).phases[0]
    config = phase.entry.make_config(phase, {"id": "Pendulum-v1", "action_repeat": 2}, {}, 0, None)
    assert config.algorithm_name == name

    def evaluate(algorithm, *options):
        (checkpoint / "agent.json").write_text(json.dumps(read_description(checkpoint) | {"algorithm": algorithm}))
        return main(["evaluate", str(checkpoint), "--episodes", "1", *options]), capsys.readouterr()

    sys.modules.pop("their_planet")
    code, said = evaluate(name)
    assert code == 2
    assert f"of the algorithm {name}, whose code would run on this machine; give --trust" in said.err
    assert "their_planet" not in sys.modules
    code, said = evaluate(name, "--trust")
    assert code == 0, said.err
    assert f"Pendulum-v1 | {SHOOTING} | 1 episodes" in said.out
    code, said = evaluate("their_planet:STILL", "--trust")
    assert code == 2
    assert "parsec evaluate takes those of dcem_ppo, planet" in said.err


def test_a_run_that_cannot_be_known_as_ones_own_trusts_the_code_that_its_spec_names(tmp_path, monkeypatch):
    monkeypatch.setenv(trust.KEY_VARIABLE, str(tmp_path / "key"))
    folder = RunFolder(
        tmp_path, load_spec(SPEC, [f"phases.planet.search={{controller.objective: {{grid: ['{COST}', 'a:b']}}}}"])
    )
    assert not folder.is_own
    assert {SHOOTING, MODEL, COST, "a:b"} <= folder.trusted_code
    assert "c:d" not in folder.trusted_code
    assert RunFolder(tmp_path, folder.spec, trust=True).trusted_code is True


# --- installed ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the example package, which borrows everything else from this one."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    python = root / "venv" / "bin" / "python"
    inside = [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    packages = Path(subprocess.run(inside, check=True, capture_output=True, text=True).stdout.strip())
    # Processed as this environment's own folder is, with the finder of an editable parsecrl.
    lent = sysconfig.get_paths()["purelib"]
    (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({lent!r})\n")
    shutil.copytree(EXAMPLE, root / "example")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", root / "example"], check=True)
    return root, python


def run_spec(installed, spec):
    root, python = installed
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [python, "-m", "parsecrl", "run", root / "example" / spec, "--storage", root / "runs"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.ray
def test_controller_model_and_cost_of_an_installed_package_run_to_the_report(installed):
    root, _ = installed
    said = run_spec(installed, "example.yaml")
    run = root / "runs" / "plugged_pendulum"
    rows = pd.read_csv(run / "evaluation.csv")
    assert rows.groupby("controller").size().to_dict() == {"random": 2, SHOOTING: 2}
    assert rows["episode_return"].between(-2000, 0).all()
    assert [line for line in said.splitlines() if line.startswith("planet") and SHOOTING in line]
    agent = json.loads(next(run.glob("planet/*/checkpoint_*/agent.json")).read_text())
    assert agent["controller"] == {
        "kind": SHOOTING,
        "horizon": 5,
        "objective": COST,
        "options": {"num_samples": 16},
        "pessimism": 0.0,
    }
    assert agent["world_model"] == {"kind": MODEL, "options": {"hidden_size": 16}}
    results = [json.loads(line) for line in next(run.glob("planet/*/result.json")).read_text().splitlines()]
    assert results[-1]["num_updates"] > 0
    assert {"observation", "reward", "model_loss"} <= set(results[-1]["losses"])
    page = (run / "report" / "index.html").read_text()
    assert SHOOTING in page
    assert "which is that of the objective" in page  # the iterates were drawn, and their cost is named
    assert "could not be computed" not in page


@pytest.mark.ray
def test_the_algorithm_of_an_installed_package_runs_to_the_report(installed):
    root, _ = installed
    said = run_spec(installed, "study.yaml")
    run = root / "runs" / "plugged_search"
    table = pd.read_csv(run / "analysis" / "search" / "searches.csv")
    assert table.groupby("method")["search"].nunique().to_dict() == {"cem": 5, "random": 5}
    last = table[table["evaluations"] == table["evaluations"].max()].groupby("method")["best"].median()
    assert last["cem"] < last["random"]
    assert "lowest cost, median [quartiles]" in said
    page = (run / "report" / "index.html").read_text()
    assert "Figures of search" in page
    assert "data:image/png" in page
