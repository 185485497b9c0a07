"""The capacity model against closed forms, against counted work, and against a simulation of the same queues."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController, Score
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief, LossWeights, ReplaySequence, matrix_products
from parsecrl.algorithms.planet.workload import plan_flop, update_flop
from parsecrl.algorithms.registry.workload import Constants, Sizes, Stage
from parsecrl.platform import cli
from parsecrl.platform.capacity.estimate import estimate_phases, evaluation_s, load, matrix_rate, scaled, stage_of
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import load_spec
from tests.platform.capacity_simulation import Clock, Cores, Server, simulate

CHEETAH = Sizes(obs_size=17, action_size=6, episode_decisions=250)
CONSTANTS = Constants()
PLUGGED = Path(__file__).parents[1] / "example_plugin" / "example.yaml"


def stage(runners=2, gather=4.0, learn=1.0, cores=None, **others) -> Stage:
    """Fragments of `gather` core seconds that owe `learn` core seconds; a core for each process unless told."""
    values = {
        "name": "planet",
        "runners": runners,
        "cores": cores or runners + 1.0,
        "gather_s": gather,
        "gather_core_s": gather,
        "learn_s": learn,
        "learn_core_s": learn,
        "fragment_steps": 200.0,
        "fragments": 1000.0,
        "overlaps": runners > 0,
        "per_iteration": 5.0,
        "iterations_per_checkpoint": 5,
        "checkpoint_s": 0.02,
        "checkpoint_bytes": 5e6,
        "updates_per_step": 0.06,
        "overhead_s": 10.0,
        "replay_bytes": 0.0,
        "flight_bytes": 0.0,
        "gpus": 0.0,
    }
    return Stage(**(values | others))


def bare() -> dict:
    """Nothing but gathering and learning."""
    return {"checkpoint_s": 0.0, "checkpoint_bytes": 0.0}


FREE = Constants(result_s=0.0, driver_checkpoint_s=0.0, state_s=0.0)


@pytest.mark.parametrize(
    ("case", "rate", "limit"),
    [
        (stage(1, 4.0, 1.0, **bare()), 1 / 4, "runners"),  # the learner works meanwhile
        (stage(1, 4.0, 1.0, cores=1.0, **bare()), 1 / 5, "cores"),  # one core: no overlap
        (stage(0, 4.0, 1.0, **bare()), 1 / 5, "runners"),  # the main process gathers
        (stage(8, 4.0, 1.0, **bare()), 1.0, "learner"),
        (stage(2, 4.0, 1.0, cores=2.0, **bare()), 2 / 5, "cores"),
        (stage(4, 4.0, 1.0, overlaps=False, **bare()), 4 / 8, "runners"),  # rounds
    ],
)
def test_known_limits(case, rate, limit):
    got = load(case, FREE)
    assert got.bottleneck == limit
    assert got.fragments_per_s == pytest.approx(rate)
    assert got.busy[limit] == pytest.approx(1.0)
    assert simulate(case, FREE, spread=0.0).fragments_per_s == pytest.approx(rate, rel=0.02)


def test_driver_and_storage_set_the_pace_of_a_large_sweep():
    slow = Constants(result_s=0.01, driver_checkpoint_s=0.0, state_s=0.0)
    case = stage(iterations_per_checkpoint=1, per_iteration=1.0, **bare())
    got = load(case, slow, 1000, 1000)
    assert (got.bottleneck, got.fragments_per_s) == ("driver", pytest.approx(1 / (1000 * 0.01)))
    # While the state is saved, which takes as long as the time between, there is half as much left.
    saving = Constants(result_s=0.01, driver_checkpoint_s=0.0, state_s=0.005, state_period_s=5.0)
    assert load(case, saving, 1000, 1000).fragments_per_s == pytest.approx(1 / (1000 * 0.01) / 2)
    store = Constants(storage_bytes_per_s=5e6)
    got = load(stage(iterations_per_checkpoint=1, per_iteration=1.0), store, 100, 100)
    assert (got.bottleneck, got.fragments_per_s) == ("storage", pytest.approx(1 / 100))


GRID = [
    *(stage(R, 4.0, L) for R, L in itertools.product((1, 2, 4, 8, 16), (0.2, 1.0, 2.0))),
    *(stage(R, 4.0, 1.0, cores=0.75 * (R + 1)) for R in (1, 2, 4)),
    *(stage(R, 4.0, 1.0, overlaps=False) for R in (0, 1, 2, 4)),
    stage(2, 4.0, 1.0, gather_core_s=0.5),  # plans on a GPU
]


def test_the_formulas_are_near_the_simulation():
    """Within 5 %, and 12 % where two resources are about equally busy or cores are short; never far below."""
    for case in GRID:
        expected = load(case, CONSTANTS)
        simulated = simulate(case, CONSTANTS, checkpoints=12).fragments_per_s
        error = expected.fragments_per_s / simulated - 1
        both_busy = min(expected.busy["runners"], expected.busy["learner"]) > 0.8
        loose = both_busy or not case.overlaps or case.cores < case.runners + 1
        assert -0.04 < error < (0.12 if loose else 0.05), (case, expected, simulated)


@pytest.mark.parametrize("trials", [10, 100, 700])
def test_sweeps_are_near_the_simulation(trials):
    """Quick trials, with a driver that 700 of them keep busy."""
    constants = Constants(result_s=2e-3, driver_checkpoint_s=3e-3, state_s=0.2e-3)
    case = stage(2, 0.5, 0.1, cores=3.0, iterations_per_checkpoint=4, checkpoint_bytes=1e6)
    expected = load(case, constants, trials, trials)
    simulated = simulate(case, constants, trials, trials, checkpoints=3)
    assert expected.fragments_per_s == pytest.approx(simulated.fragments_per_s, rel=0.12)
    assert expected.bottleneck == ("driver" if trials == 700 else "runners")
    assert expected.busy["driver"] == pytest.approx(simulated.driver_busy, rel=0.15)


def test_a_server_serves_in_turn_and_cores_are_shared():
    clock, ends = Clock(), []
    server = Server(clock)
    server.serve(1.0, lambda: ends.append(clock.now))
    server.serve(2.0, lambda: ends.append(clock.now))
    cores = Cores(clock, 1.5)
    for seconds in (1.5, 3.0):
        cores.work(seconds, lambda: ends.append(clock.now))
    for _ in range(5):
        clock.step()
    # Each has 3/4 of a core until the first is done, after 2 s; the other then has its own for what is left, 1.5 s.
    assert sorted(ends) == pytest.approx([1.0, 2.0, 3.0, 3.5])


@pytest.fixture
def torchs_products():
    """torch counts the FLOP of its own products only."""
    matrix_products.use((False,) * len(matrix_products.PROBES))
    yield
    matrix_products.use(None)


@pytest.mark.usefixtures("torchs_products")
@pytest.mark.parametrize(("kind", "pessimism"), [("full", 0.0), ("embedded", 0.0), ("full", 1.0)])
def test_work_of_a_plan_is_what_torch_multiplies(kind, pessimism):
    model = RSSM(17, 6, ensemble=5)
    settings = {"kind": kind, "horizon": 5, "num_samples": 20, "num_elites": 4, "num_iterations": 3, "latent_size": 16}
    settings["pessimism"] = pessimism
    numbers = {key: settings[key] for key in ("num_samples", "num_elites", "num_iterations")}
    decoder = ActionDecoder(16, 5, 6)
    controller = FullSpaceController(5, 6, **numbers) if kind == "full" else EmbeddedController(decoder, **numbers)
    controller.score = Score(pessimism=pessimism)
    belief = Belief(torch.zeros(2, 200), torch.zeros(2, 30))
    with FlopCounterMode(display=False) as counter:  # with a graph: the other rollout is not made of torch's products
        controller.plan(model, belief)
    assert plan_flop(settings, {"ensemble": 5}, CHEETAH, 2) == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.usefixtures("torchs_products")
@pytest.mark.parametrize("steps", [1, 12])
def test_work_of_an_update_is_what_torch_multiplies(steps):
    B, T = 10, 25
    changes = {"loss.overshooting_steps": steps, "batch_size": B, "batch_length": T}
    phase = load_spec("cheetah_run", [f"phases.planet.{key}={value}" for key, value in changes.items()]).phase("planet")
    sequence = ReplaySequence(
        obs=torch.zeros(B, T, 17),
        action=torch.zeros(B, T, 6),
        reward=torch.zeros(B, T),
        is_first=torch.zeros(B, T, dtype=torch.bool),
        terminated=torch.zeros(B, T, dtype=torch.bool),
    )
    with FlopCounterMode(display=False) as counter:
        RSSM(17, 6).loss(sequence, LossWeights(overshooting_steps=steps))[0].backward()
    assert update_flop(phase, CHEETAH) == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_the_quick_spec_on_two_cores_is_as_fast_as_it_was_measured():
    """76 environment steps a second with two runners (docs/results/speed.md), with torch's own matrix_products."""
    then = Constants(plan_flops=86e9, plan_step_s=0.1e-3, update_flops=68e9, update_s=25e-3)
    phase_2_then = ("decoder_proposals=null", "decoder_beliefs=14", "decoder_initial_beliefs=2")
    changes = ["phases.planet.stop.env_steps=20000", *(f"phases.embed.{key}" for key in phase_2_then)]
    spec = load_spec("cheetah_run_quick", changes)
    (planet, embed, finetune) = estimate_phases(spec, then, 2, 0, CHEETAH)
    assert planet.steps_per_s == pytest.approx(76, rel=0.05)
    assert planet.bottleneck == "cores"
    assert embed.bottleneck == "learner"  # its decoder's updates
    assert 3600 * (planet.hours + embed.hours + finetune.hours) == pytest.approx(480, rel=0.2)


def test_one_runner_on_two_cores_is_as_fast_as_it_was_measured():
    """95 environment steps a second (docs/results/speed.md)."""
    spec = load_spec("cheetah_run_quick", ["resources.num_env_runners=1"])
    alone = stage_of(spec, spec.phases[0], CHEETAH, CONSTANTS)._replace(cores=2)
    assert load(alone, CONSTANTS).steps_per_s == pytest.approx(95, rel=0.05)


def test_more_runners_help_until_the_learner_is_busy():
    def rate(runners):
        spec = load_spec("cheetah_run", ["phases.planet.train_ratio=0.02"])
        spec.resources.num_env_runners = runners
        return load(stage_of(spec, spec.phases[0], CHEETAH, CONSTANTS), CONSTANTS)

    loads = [rate(runners) for runners in (1, 2, 4, 8, 16, 32, 64)]
    assert loads[0].bottleneck == "runners"
    assert loads[1].steps_per_s == pytest.approx(2 * loads[0].steps_per_s, rel=0.02)
    assert loads[-1].bottleneck == "learner"
    assert loads[-1].steps_per_s == pytest.approx(loads[-2].steps_per_s, rel=0.02)


def test_a_gpu_is_counted_and_its_speed_asked_for():
    spec = load_spec("cheetah_run", ["resources.num_gpus_per_env_runner=0.5", "resources.num_gpus_per_learner=1"])
    with pytest.raises(UserError, match="--gpu-flops"):
        estimate_phases(spec, CONSTANTS, 8, 2, CHEETAH)
    fast = estimate_phases(spec, Constants(gpu_flops=1e13), 8, 2, CHEETAH)
    slow = estimate_phases(load_spec("cheetah_run"), CONSTANTS, 8, 2, CHEETAH)
    assert all(a.hours < b.hours / 5 for a, b in zip(fast, slow, strict=True))
    assert fast[0].gpu_hours == pytest.approx(2 * fast[0].hours)
    with pytest.raises(UserError, match="needs 3 CPUs and 2 GPUs, got 8 and 1"):
        estimate_phases(spec, Constants(gpu_flops=1e13), 8, 1, CHEETAH)


def test_trials_run_in_rounds():
    spec = load_spec("ablations/cheetah_run_phase2")
    assert [phase.num_trials for phase in spec.phases] == [1, 12]
    (_, few), (_, all_at_once) = (estimate_phases(spec, CONSTANTS, cpus, 0, CHEETAH) for cpus in (15, 36))
    assert (few.concurrent, all_at_once.concurrent) == (5, 12)
    assert few.hours == pytest.approx(3 * all_at_once.hours, rel=0.01)
    assert few.core_hours == pytest.approx(all_at_once.core_hours, rel=0.01)


def test_a_stop_after_some_time_is_kept():
    spec = load_spec("cheetah_run", ["phases.planet.stop.time_s=3600"])
    assert estimate_phases(spec, CONSTANTS, 3, 0, CHEETAH)[0].trial_hours == pytest.approx(1.0)
    assert math.isfinite(estimate_phases(load_spec("cheetah_run"), CONSTANTS, 3, 0, CHEETAH)[0].hours)


def test_evaluations_while_training_are_counted():
    keys = ["phases.planet.evaluation_every=100000", "phases.planet.evaluation_episodes=5", "evaluate.episodes=100"]
    without, spec = load_spec("cheetah_run"), load_spec("cheetah_run", keys)
    assert spec.phases[0].stop.conditions["env_steps"] == 2_000_000  # 20 evaluations: 100 episodes, as at the end
    hours, more = (estimate_phases(s, CONSTANTS, 3, 0, CHEETAH)[0].trial_hours for s in (without, spec))
    assert more - hours == pytest.approx(evaluation_s(spec, spec.phases[0], CHEETAH, CONSTANTS) / 3600, rel=0.01)
    # Where it is due more often than there are results, each result has one.
    stage, *often = (
        stage_of(s, s.phases[0], CHEETAH, CONSTANTS)
        for s in (spec, *(load_spec("cheetah_run", [*keys, f"phases.planet.evaluation_every={n}"]) for n in (1, 100)))
    )
    assert stage.fragment_steps * stage.per_iteration > 100
    assert (
        often[0].evaluation_s
        == often[1].evaluation_s
        == pytest.approx(100_000 / (stage.fragment_steps * stage.per_iteration) * stage.evaluation_s)
    )
    stopped = load_spec("cheetah_run", [*keys, "phases.planet.stop.time_s=3600"])
    assert estimate_phases(stopped, CONSTANTS, 3, 0, CHEETAH)[0].trial_hours == pytest.approx(1.0)


def test_the_command(capsys):
    assert cli.main(["capacity", "cheetah_run_quick", "--cpus", "2"]) == 0
    shown = capsys.readouterr().out
    assert "cores" in shown.splitlines()[1]
    assert "num_cpus_per_env_runner" in shown
    assert "at 220 GFLOP/s" in shown.splitlines()[-1]
    assert "--calibrate" in shown.splitlines()[-1]
    assert cli.main(["capacity", "cheetah_run_quick", "--cpus", "2", "--calibrate"]) == 0
    assert "scaled to this machine's core" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cheetah_run_quick", "--cpus", "1"], ["needs 2 CPUs", "--cpus"]),
        (["cheetah_run_quick", "--cpus", "-1"], ["--cpus", "must be a number of 0 or more", "'-1'"]),
        (["cheetah_run_quick", "--cpus", "nan"], ["must be a number of 0 or more", "'nan'"]),
        (["cheetah_run_quick", "--set", "resources.num_gpus_per_learner=1", "--gpus", "1"], ["--gpu-flops"]),
        (["cheetah_run_quick", "--set", "env.id=Nowhere-v0"], ["env.id", "'Nowhere-v0'"]),
        (["energy_regression"], ["energy_regression has no environment"]),
        (
            [str(PLUGGED)],
            ["phases.planet.controller.kind 'parsec_example.random_shooting:RandomShooting'", "without module:name"],
        ),
        (
            [str(PLUGGED), "--set", "phases.planet.controller={kind: full}"],
            ["phases.planet.world_model.kind 'parsec_example.gru_model:GRUModel'"],
        ),
    ],
)
def test_what_cannot_be_estimated_is_said_in_a_sentence(arguments, words, capsys):
    try:
        code = cli.main(["capacity", *arguments])
    except SystemExit as ended:  # argparse's way
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words)


def test_a_core_of_half_the_rate_takes_twice_as_long_for_plans_and_updates():
    spec, half = load_spec("cheetah_run"), scaled(CONSTANTS, CONSTANTS.matrix_flops / 2)
    for phase in spec.phases:
        fast, slow = (stage_of(spec, phase, CHEETAH, constants) for constants in (CONSTANTS, half))
        acting = fast.fragment_steps / 4 * (4 * CONSTANTS.env_step_s + CONSTANTS.decision_s)  # not scaled
        assert slow.gather_s - acting == pytest.approx(2 * (fast.gather_s - acting))
        assert 1.9 * fast.learn_s < slow.learn_s <= 2 * fast.learn_s


def test_the_rate_of_this_machine_is_measured():
    threads = torch.get_num_threads()
    assert 1e9 < matrix_rate(0.05) < 1e12
    assert torch.get_num_threads() == threads


def test_the_model_needs_no_ray():
    code = "import sys; sys.modules['ray'] = sys.modules['torch'] = None; import parsecrl.platform.capacity"
    subprocess.run([sys.executable, "-c", code], check=True)
