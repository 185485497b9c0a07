"""What a spec costs and what limits it: a model of throughput, hours and memory in closed form.

docs/capacity.md has the formulas, how far they are from a simulation of the same queues and from runs, and what to do
at each bottleneck. Seconds are of one core.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

from parsecrl.algorithms.registry.workload import Constants, Sizes, Stage, Workplace
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import Spec
from parsecrl.platform.terminal import text_table

KEPT_CHECKPOINTS = 5  # of a trial: the three best, the latest two; runs/stored_checkpoints.py
EVALUATION_BATCH = 8  # evaluation/episodes.py
EPISODE_STEPS = 1000  # simulator steps of dm_control's tasks
REFERENCE = "an AMD EPYC with AVX-512"  # the machine of `Constants`


class Load(NamedTuple):
    """One trial among `concurrent` ones, in the long run."""

    stage: Stage
    trials: int
    concurrent: int
    fragments_per_s: float  # of a trial
    bottleneck: str
    busy: dict[str, float]  # resource -> the share of its capacity that is used

    @property
    def steps_per_s(self) -> float:
        """Environment steps of a trial."""
        return self.fragments_per_s * self.stage.fragment_steps

    @property
    def updates_per_s(self) -> float:
        """Updates of a trial."""
        return self.steps_per_s * self.stage.updates_per_step

    @property
    def trial_hours(self) -> float:
        """Hours of one trial, its start and its evaluations among them."""
        fragment_s = 1 / self.fragments_per_s + self.stage.evaluation_s
        return (self.stage.overhead_s + self.stage.fragments * fragment_s) / 3600

    @property
    def hours(self) -> float:
        """All trials, in rounds of `concurrent`."""
        return math.ceil(self.trials / self.concurrent) * self.trial_hours

    @property
    def core_hours(self) -> float:
        """Of all trials: hours times cores."""
        return self.trials * self.trial_hours * self.stage.cores

    @property
    def gpu_hours(self) -> float:
        """Of all trials: hours times GPUs."""
        return self.trials * self.trial_hours * self.stage.gpus


# --- queues --------------------------------------------------------------------------------------------------------


def load(stage: Stage, constants: Constants, trials: int = 1, concurrent: int = 1) -> Load:
    """The long run of some trials of a stage at a time.

    Each resource needs some time for what lies between two checkpoints of every trial; the slowest sets the pace.

    Args:
        stage: The queues' view of a trial.
        constants: Times and sizes that were measured.
        trials: That the driver knows, at least 1.
        concurrent: Of these, at a time.

    Returns:
        The pace of a trial, and what limits it.
    """
    s, c, k = stage, constants, stage.iterations_per_checkpoint
    n = k * s.per_iteration  # fragments between two checkpoints
    write_s = s.checkpoint_bytes / c.storage_bytes_per_s
    pause = s.checkpoint_s + write_s + c.driver_checkpoint_s  # of the main process
    learner = n * s.learn_s + pause + k * c.result_s
    cores = (n * (s.gather_core_s + s.learn_core_s) + s.checkpoint_s) / s.cores
    if s.overlaps:
        runners = n * s.gather_s / s.runners + _lost(pause, s.gather_s) + k * _lost(c.result_s, s.gather_s)
    else:  # a round of gathering and the learning from it take turns
        R = max(s.runners, 1)
        runners = n / R * max(s.gather_s, R * s.gather_core_s / s.cores) + learner
    saving = trials * c.state_s
    events = concurrent * (k * c.result_s + c.driver_checkpoint_s)
    seconds = {
        "runners": runners,
        "learner": learner,
        "cores": cores,
        "driver": events * (1 + saving / c.state_period_s),
        "storage": concurrent * write_s,
    }
    bottleneck = max(seconds, key=lambda name: seconds[name])
    cycle = seconds[bottleneck]
    busy = {name: time / cycle for name, time in seconds.items()}
    busy["driver"] = events / cycle + saving / (c.state_period_s + saving)
    return Load(stage, trials, concurrent, n / cycle, bottleneck, busy)


def _lost(pause: float, gather: float) -> float:
    """What a pause of the main process costs a runner on average: it first ends the fragment that it is in."""
    return pause**2 / (2 * gather) if pause < gather else pause - gather / 2


# --- a spec ----------------------------------------------------------------------------------------------------------

REMEDIES = {
    "runners": "more num_env_runners, or a GPU for the plans; without one, more environments a runner gain nothing",
    "learner": "a GPU for the learner, a smaller train_ratio; more runners change nothing",
    "cores": "more CPUs for the trial (num_cpus_per_env_runner, num_cpus_for_main_process), or fewer trials at a time",
    "driver": "a larger decisions_per_iteration, so that results come less often, or several runs side by side",
    "storage": "a larger checkpoint_every, a smaller replay_capacity, or a faster storage",
}


def stage_of(spec: Spec, phase: Any, sizes: Sizes, constants: Constants) -> Stage | None:
    """The queues' view of a phase's trial, with the first value of each searched key.

    Args:
        spec: Of the phase.
        phase: One of its phases.
        sizes: Of the environment.
        constants: Times and sizes that were measured.

    Returns:
        The stage; None of an algorithm whose work is not known.

    Raises:
        UserError: Of these settings it is not known, or a GPU's speed is not.
    """
    try:
        stage = phase.entry.stage(phase, _workplace(spec, sizes, constants), {p.name: p for p in spec.phases})
    except ValueError as error:
        raise UserError(str(error)) from None
    every = getattr(phase, "evaluation_every", None)
    if stage is None or every is None:
        return stage
    seconds = phase.evaluation_episodes * _episode_s(spec, phase, sizes, constants)
    share = min(stage.fragment_steps / every, 1 / stage.per_iteration)  # at most one at each result
    return stage._replace(evaluation_s=share * seconds)


def evaluation_s(spec: Spec, phase: Any, sizes: Sizes, c: Constants) -> float:
    """How long a phase's evaluation at the end takes.

    Args:
        spec: Of the phase.
        phase: One whose `stage_of` is known.
        sizes: Of the environment.
        c: Times and sizes that were measured.

    Returns:
        Seconds.
    """
    return spec.evaluate.episodes * _episode_s(spec, phase, sizes, c)


def evaluations_s(spec: Spec, loads: list[Load], sizes: Sizes, c: Constants) -> float:
    """How long all evaluations at the end take.

    Args:
        spec: Of the phases.
        loads: Of those whose work is known; others are left out.
        sizes: Of the environment.
        c: Times and sizes that were measured.

    Returns:
        Seconds.
    """
    known = {x.stage.name for x in loads} & set(spec.evaluate.phases or ())
    return sum(evaluation_s(spec, phase, sizes, c) for phase in spec.phases if phase.name in known)


def _episode_s(spec: Spec, phase: Any, sizes: Sizes, c: Constants) -> float:
    """An evaluated episode's seconds, where as many workers play as a trial has runners."""
    work = _workplace(spec, sizes, c)
    decision_s = phase.entry.decision_s(phase, work, EVALUATION_BATCH, {p.name: p for p in spec.phases})
    return sizes.episode_decisions * decision_s / max(spec.resources.num_env_runners, 1)


def _workplace(spec: Spec, sizes: Sizes, constants: Constants) -> Workplace:
    assert spec.env is not None
    return Workplace(sizes, spec.env.action_repeat, spec.resources, constants)


def within_time(stage: Stage, phase: Any, constants: Constants) -> Stage:
    """The stage, shortened where stop.time_s ends it first.

    Args:
        stage: Of the phase.
        phase: Of a spec.
        constants: Times and sizes that were measured.

    Returns:
        The stage, with as many fragments as there is time for.
    """
    seconds = phase.stop.conditions.get("time_s", math.inf)
    if math.isinf(seconds):
        return stage
    fragment_s = 1 / load(stage, constants).fragments_per_s + stage.evaluation_s
    return stage._replace(fragments=min(stage.fragments, max(0.0, seconds - stage.overhead_s) / fragment_s))


def estimate_phases(spec: Spec, constants: Constants, cpus: float, gpus: float, sizes: Sizes) -> list[Load]:
    """The phases whose work is known, on a cluster.

    Args:
        spec: As `load_spec` returns it.
        constants: Times and sizes that were measured.
        cpus: Cores of the cluster.
        gpus: GPUs of the cluster.
        sizes: Of the environment.

    Returns:
        A load for each such phase.

    Raises:
        UserError: A trial does not fit, names code of a user's own, or wants a GPU whose speed is not known.
    """
    loads: list[Load] = []
    for phase in spec.phases:
        stage = stage_of(spec, phase, sizes, constants)
        if stage is None:
            continue
        stage = within_time(stage, phase, constants)
        fitting = min(cpus / stage.cores if stage.cores else math.inf, gpus / stage.gpus if stage.gpus else math.inf)
        if fitting < 1 - 1e-6:
            raise UserError(
                f"a trial of phase {phase.name} needs {stage.cores:g} CPUs and {stage.gpus:g} GPUs, got {cpus:g} and "
                f"{gpus:g}; give more with --cpus and --gpus, or lower resources in the spec"
            )
        trials = phase.num_trials
        loads.append(load(stage, constants, trials, min(trials, int(fitting + 1e-6))))
    return loads


def sizes_of(spec: Spec) -> Sizes:
    """The sizes of a spec's environment.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        Observation, action, and decisions of an episode.

    Raises:
        UserError: There is no environment, or it cannot be made.
    """
    if spec.env is None:
        raise UserError(
            f"{spec.name} has no environment, and the estimate is of phases that act in one; give a spec with an env"
        )
    from parsecrl.envs import make_env

    try:
        env = make_env(**spec.env.plain())
    except ValueError as error:
        raise UserError(f"env.id: {error}") from None
    try:
        (obs,), (action,) = env.observation_space.shape, env.action_space.shape  # type: ignore[misc]
    finally:
        env.close()
    steps = env.max_episode_steps or EPISODE_STEPS
    return Sizes(obs, action, math.ceil(steps / spec.env.action_repeat))


def matrix_rate(seconds: float = 0.5) -> float:
    """How fast one core of this machine is in a matrix product of a plan's size.

    Args:
        seconds: Of measuring, > 0.

    Returns:
        FLOP/s, the most that was measured.
    """
    import torch
    from torch.utils.benchmark import Timer

    from parsecrl.algorithms.models.matrix_products import linear

    rows, width, outputs = 500, 200, 600
    factors = {"linear": linear, "x": torch.rand(rows, width), "weight": torch.rand(outputs, width)}
    times = Timer("linear(x, weight)", globals=factors, num_threads=1).blocked_autorange(min_run_time=seconds).times
    return 2 * rows * width * outputs / min(times)


def scaled(c: Constants, matrix_flops: float) -> Constants:
    """The constants for a core that multiplies at another rate: plans and updates are quicker in proportion.

    Args:
        c: The constants.
        matrix_flops: The rate, FLOP/s.

    Returns:
        The constants of that core.
    """
    ratio = matrix_flops / c.matrix_flops
    rates = {name: ratio * getattr(c, name) for name in ("plan_flops", "update_flops")}
    times = {name: getattr(c, name) / ratio for name in ("plan_step_s", "update_s")}
    return replace(c, matrix_flops=matrix_flops, **rates, **times)


def capacity_table(
    spec: Spec, cpus: float, gpus: float = 0.0, gpu_flops: float | None = None, calibrate: bool = False
) -> str:
    """What `parsec capacity` prints.

    Args:
        spec: As `load_spec` returns it.
        cpus: Cores of the cluster.
        gpus: GPUs of the cluster.
        gpu_flops: FLOP/s that plans and updates reach on a GPU; None where it is not known.
        calibrate: Measure this machine's matrix products for half a second, and scale plans and updates with them.

    Returns:
        Lines.

    Raises:
        UserError: The spec has no environment, a trial does not fit, or a GPU's speed is not known.
    """
    sizes, constants = sizes_of(spec), Constants(gpu_flops=gpu_flops)
    reference = f"a core of {REFERENCE}, at {constants.matrix_flops / 1e9:.0f} GFLOP/s in matrix products"
    basis = f"times are of {reference}; hours scale with the machine: --calibrate measures this one"
    if calibrate:
        constants = scaled(constants, matrix_rate())
        here = f"this machine's core, at {constants.matrix_flops / 1e9:.0f} GFLOP/s"
        basis = f"times of plans and updates are scaled to {here}; all other times are of {reference}"
    loads = estimate_phases(spec, constants, cpus, gpus, sizes)
    hours = evaluations_s(spec, loads, sizes, constants) / 3600
    return f"{describe(loads, constants)}\n\nevaluation of all phases: {hours:.3g} hours\n{basis}"


def describe(loads: list[Load], constants: Constants) -> str:
    """A table, and what limits each phase.

    Args:
        loads: One a phase.
        constants: Of these.

    Returns:
        Lines.
    """
    headings = ("phase", "trials", "at a time", "env steps/s", "updates/s", "hours", "core-hours", "GPU-hours", "limit")
    rows = []
    for x in loads:
        of = f"{x.bottleneck} ({x.steps_per_s * x.concurrent:,.0f} in all)" if x.concurrent > 1 else x.bottleneck
        numbers = (x.steps_per_s, x.updates_per_s, x.hours, x.core_hours, x.gpu_hours)
        rows.append((x.stage.name, f"{x.trials}", f"{x.concurrent}", *(f"{n:.3g}" for n in numbers), of))
    lines = [text_table(headings, rows)]
    lines.append("env steps and updates a second are one trial's")
    for x in loads:
        busy = ", ".join(f"{name} {share:.0%}" for name, share in x.busy.items())
        lines.append(f"\n{x.stage.name}: busy: {busy}")
        lines.append(f"  faster: {REMEDIES[x.bottleneck]}")
        disk = x.trials * KEPT_CHECKPOINTS * x.stage.checkpoint_bytes
        driver = x.trials * constants.driver_bytes
        lines.append(
            f"  replay {_size(x.stage.replay_bytes)} in each trial's main process; object store "
            f"{_size(x.concurrent * x.stage.flight_bytes)}; driver {_size(driver)}; storage {_size(disk)}"
        )
    return "\n".join(lines)


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
