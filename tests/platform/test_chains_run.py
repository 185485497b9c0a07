"""A spec with seeds and variants: its driver is killed, and nothing is trained twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pandas as pd
import pytest
import yaml

from parsecrl.platform.reports import build_report, format_table
from parsecrl.platform.reports.over_seeds import load_chains, warnings_over
from parsecrl.platform.running.chains import chains_to_do, copy_tree, record_done, side_by_side
from parsecrl.platform.runs.run_folder import FINISHED, RunFolder
from parsecrl.platform.runs.stored_checkpoints import mark_whole
from parsecrl.platform.specs import chains_of, load_spec
from tests.platform.tiny import DRIVER

SPEC = """
name: tiny
env: {id: dm_control/cheetah-run-v0, action_repeat: 20}
seeds: [3, 7]
variants:
  longer: {phases.embed.controller.num_iterations: 3}
  wider: {phases.finetune.std.value: 0.2}
resources: {num_env_runners: 0, num_envs_per_env_runner: 2, num_cpus_for_main_process: 1}
phases:
  - name: planet
    algorithm: planet
    controller: {kind: full, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}
    world_model: {deterministic_size: 16, stochastic_size: 4, hidden_size: 16}
    decoder: {hidden_size: 16}
    train_ratio: 0.002
    seed_episodes: 1
    batch_size: 4
    batch_length: 10
    stop: {env_steps: 4000}
  - name: embed
    algorithm: planet
    start_from: planet
    controller: {kind: embedded, latent_size: 2, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}
    train_ratio: 0.002
    seed_episodes: 0
    batch_size: 4
    batch_length: 10
    decoder_beliefs: 4
    stop: {env_steps: 2000}
  - name: finetune
    algorithm: dcem_ppo
    start_from: embed
    episodes_per_step: 1
    minibatches: 1
    noise_bank_size: 2
    stop: {ppo_steps: 2}
evaluate: {episodes: 2, videos: false}
"""
CHAINS = [f"{variant}-seed{seed}" for variant in ("reference", "longer", "wider") for seed in (3, 7)]
TRAINED = {"planet": 2, "embed": 4, "finetune": 6}  # trainings of each phase that the plan has


def start(tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def has_begun(run, phase):
    """Whether some chain's state says that the phase runs, and a result of it is there."""
    return any(run.glob(f"chains/*/{phase}/*/result.json"))


def killed_in(tmp_path, phase):
    """Run until the phase has a result in some chain, then SIGKILL the driver."""
    driver = start(tmp_path)
    deadline = time.monotonic() + 400
    while not has_begun(tmp_path / "runs/tiny", phase):
        assert driver.poll() is None, driver.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_a_run_with_seeds_and_variants_that_is_killed_in_each_phase(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    run = tmp_path / "runs/tiny"
    for phase in TRAINED:
        killed_in(tmp_path, phase)
    last = start(tmp_path)
    printed, _ = last.communicate(timeout=900)
    assert last.returncode == 0, printed

    # What is trained is what the plan says: a phase's experiment of a chain's own, each trial once.
    records = json.loads((run / "chains.json").read_text())
    assert [record["name"] for record in records] == CHAINS
    assert records[2]["shared"] == {"planet": "reference-seed3"}
    assert records[5]["shared"] == {"planet": "reference-seed7", "embed": "reference-seed7"}
    trained = Counter(phase for record in records for phase in TRAINED if phase not in record["shared"])
    assert trained == TRAINED
    states = {name: json.loads((run / "chains" / name / "state.json").read_text()) for name in CHAINS}
    for record in records:
        for phase, owner in record["shared"].items():
            assert states[record["name"]][phase]["checkpoint_metrics"] == states[owner][phase]["checkpoint_metrics"]
    embeds = [states[f"{variant}-seed3"]["embed"]["checkpoint_metrics"] for variant in ("reference", "longer", "wider")]
    assert embeds[0] == embeds[2] != embeds[1]
    for name in CHAINS:
        for phase in TRAINED:
            rows = [json.loads(line) for line in next((run / "chains" / name / phase).glob("*/result.json")).open()]
            assert [row["training_iteration"] for row in rows] == sorted({row["training_iteration"] for row in rows})

    # Each chain has evaluated what it trained, and the random policy was played once a seed.
    played = pd.concat([pd.read_csv(run / "chains" / name / "evaluation.csv").assign(chain=name) for name in CHAINS])
    assert Counter(played.phase) == {"random": 4, "planet": 4, "embed": 8, "finetune": 12}

    # Tables over seeds, and the summary.
    found = load_chains(run)
    assert [(cell.phase, cell.variant, sorted(cell.returns)) for cell in found.cells] == [
        ("random", "reference", [3, 7]),
        ("planet", "reference", [3, 7]),
        ("embed", "reference", [3, 7]),
        ("embed", "longer", [3, 7]),
        ("finetune", "reference", [3, 7]),
        ("finetune", "longer", [3, 7]),
        ("finetune", "wider", [3, 7]),
    ]
    assert [(phase, what, against) for phase, what, against, _ in found.comparisons()] == [
        ("embed", "embed", "planet"),
        ("embed", "longer", "reference"),
        ("finetune", "finetune", "embed"),
        ("finetune", "longer", "reference"),
        ("finetune", "wider", "reference"),
    ]
    table = format_table(run)
    assert table in printed
    assert re.search(r"finetune +wider .* 2 +4 ", table)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["phases"]["finetune"]["wider"]["seeds"] == [3, 7]
    page = (run / "report/index.html").read_text()
    for text in (*CHAINS, "Performance profile", "planet with reference-seed7", "seeds 3, 7"):
        assert text in page
    assert page.count("<figure") >= 6

    # The same command has nothing to do; another seed trains its own chains alone, whose numbers the others keep.
    again = start(tmp_path)
    assert again.communicate(timeout=300)[0].count("done") >= 1
    assert {name: json.loads((run / "chains" / name / "state.json").read_text()) for name in CHAINS} == states
    assert build_report(run) == run / "report/index.html"

    # A controller that is worse than random is told, with the chains where it is.
    for name in ("reference-seed3", "longer-seed7"):
        folder = tmp_path / "worse/chains" / name
        shutil.copytree(run / "chains" / name, folder)
        rows = [("random", 30.0 + i % 3) for i in range(20)] + [("embed", 5.0 + i % 2) for i in range(20)]
        played = pd.read_csv(folder / "evaluation.csv")
        frame = pd.DataFrame(rows, columns=["phase", "episode_return"]).reindex(columns=played.columns)
        frame.assign(episode=range(40), seed=3, planning_ms=1.0).to_csv(folder / "evaluation.csv", index=False)
    shutil.copy(run / "chains.json", tmp_path / "worse")
    (warning,) = [text for text in warnings_over(load_chains(tmp_path / "worse")) if "random" in text]
    assert warning.startswith("reference-seed3, longer-seed7: embed: ")


def test_a_chain_whose_checkpoints_are_gone_is_to_be_done_again(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "tiny.yaml")
    chains, folder = chains_of(spec), RunFolder.choose(spec, tmp_path)
    folder.open()
    for chain in chains:
        own = RunFolder(folder.path / "chains" / chain.name, chain.spec)
        own.open()
        for phase in chain.spec.phases:
            checkpoint = f"{phase.name}/trial_00000/checkpoint_000000"
            (own.path / checkpoint).mkdir(parents=True)
            mark_whole(own.path / checkpoint, {"score": 1.0})
            own.record(phase.name, {"status": FINISHED, "stop": phase.stop.conditions, "checkpoint": checkpoint})
        own.close()
        assert chain in chains_to_do(folder, chains)
        record_done(folder, chain)
    assert chains_to_do(folder, chains) == []
    changed = chains_of(load_spec(tmp_path / "tiny.yaml", ["resources.num_env_runners=1", "evaluate.episodes=7"]))
    assert chains_to_do(folder, changed) == changed
    assert chains_to_do(folder, chains_of(load_spec(tmp_path / "tiny.yaml", ["resources.num_env_runners=1"]))) == []
    shutil.rmtree(folder.path / "chains" / chains[0].name / "planet")
    assert chains_to_do(folder, chains) == [chains[0]]
    folder.close()


def test_chains_run_side_by_side_as_the_cluster_allows(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    chains = chains_of(load_spec(tmp_path / "tiny.yaml"))
    assert side_by_side(chains, {"CPU": 2.0}) == 2  # a processor a trial
    assert side_by_side(chains, {"CPU": 64.0}) == 64
    assert side_by_side(chains, {"CPU": 0.2}) == 1
    wide = chains_of(
        load_spec(tmp_path / "tiny.yaml", ["resources.num_env_runners=1", "resources.num_gpus_per_env_runner=1"])
    )
    assert side_by_side(wide, {"CPU": 64.0, "GPU": 2.0}) == 2


def test_a_folder_is_copied_over_another(tmp_path, s3):
    from parsecrl.platform.storage import location_of

    source = tmp_path / "a"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_text("new")
    for target in (tmp_path / "b", location_of(f"{s3}/b")):
        copy_tree(source, target)
        copy_tree(source, target)
        assert (target / "deep/file").read_text(encoding="utf-8") == "new"
    copy_tree(location_of(f"{s3}/b"), tmp_path / "c")
    assert (tmp_path / "c/deep/file").read_text() == "new"
    copy_tree(location_of(f"{s3}/b"), location_of(f"{s3}/d"))
    assert yaml.safe_load((location_of(f"{s3}/d") / "deep/file").read_text(encoding="utf-8")) == "new"
