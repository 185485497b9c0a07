"""One phase as a Tune experiment: start it, or go on where it stopped, until its stop conditions are met."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler

from parsecrl.algorithms.training.user_errors import sentence_of
from parsecrl.platform.cluster.tune_private import restore_tuner, staged_apart, stored_by
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.running import interruption, tune_state
from parsecrl.platform.running.configs import env_of, phase_config
from parsecrl.platform.running.fault_rules import FaultRules
from parsecrl.platform.running.loggers import logger_callbacks
from parsecrl.platform.running.progress import PhaseProgress, StopWhenReached, trial_name
from parsecrl.platform.running.schedulers import SchedulerState, scheduler_of
from parsecrl.platform.running.search_space import param_space
from parsecrl.platform.running.searches import search_of
from parsecrl.platform.running.summary import random_policy_of
from parsecrl.platform.running.time_left import rest_of_run
from parsecrl.platform.running.trainables import trainable_of
from parsecrl.platform.runs import inner_paths, stored_checkpoints
from parsecrl.platform.runs.results import ERROR_FILE, FAILURE
from parsecrl.platform.runs.run_folder import FAILED, FINISHED, RUNNING, RunFolder
from parsecrl.platform.specs import Phase
from parsecrl.platform.specs.pretrained import is_pretrained
from parsecrl.platform.storage import Location, for_tune, remove_tree
from parsecrl.platform.terminal import StatusLine


def run_phase(folder: RunFolder, phase: Phase, dashboard: str, line: StatusLine) -> dict[str, Any]:
    """Run a phase to its end, or go on where it stopped.

    Args:
        folder: Of the run; open.
        phase: Of its spec.
        dashboard: Address of Ray's, or empty.
        line: Says how far it is.

    Returns:
        The outcome, which the run folder then holds too: best trial and checkpoint, what was counted, failed trials.

    Raises:
        RunFailed: No trial got to its end, or none told a result in time.
        UserError: The phase was begun by a version with other settings.
        Interrupted: The run was asked to stop; the trials have written checkpoints.
    """
    path = folder.path / phase.name
    before = folder.state(phase.name)
    reopened = bool(before.get("reopened"))
    origin = before.get("start_from")  # where its trials began, wherever the phase before it has got since
    config = phase_config(folder, phase)
    trainable: Any = trainable_of(phase.algorithm)
    trainable.driven = folder.path
    if isinstance(config, dict):
        processes = phase.entry.processes(phase, env_of(folder.spec) or None, folder.spec.resources.model_dump())
        trainable = tune.with_resources(trainable, tune.PlacementGroupFactory(processes))
    space = inner_paths.relative(param_space(config, phase), folder.path)
    goals, known = phase.stop.conditions, phase.stop_conditions
    progress = PhaseProgress(phase.name, path, goals, known, phase.checkpoint_every, dashboard, phase.search)
    progress.max_checkpoint_age_s = folder.spec.resources.max_checkpoint_age_s
    rules = FaultRules(phase.name, folder.spec.resources.max_failures, folder.spec.resources.no_progress_timeout_s)
    # A trial that ended goes on if its end was moved, or if every trial failed.
    moved = before.get("status") == FAILED or before.get("stop") not in (None, phase.stop.conditions)
    scheduler = scheduler_of(phase)
    keeper = SchedulerState(scheduler, anew=moved)
    callbacks = [progress, rules, keeper, *logger_callbacks(folder.spec.loggers, folder.path.name, phase.name)]
    stop = StopWhenReached(goals, known)
    if tune_state.repair(path):
        reopened |= moved
        where, filesystem = for_tune(path)
        try:
            tuner = restore_tuner(
                *(where, reopened, stop, callbacks, search_of(folder, phase), scheduler),
                **{"trainable": trainable, "param_space": space, "storage_filesystem": filesystem},
            )
        except ValueError as error:
            if "param_space" not in str(error):
                raise
            raise UserError(
                f"phase {phase.name} of {folder.path} was begun by a version with other settings; "
                f"continue it with that version, or start over with --fresh"
            ) from None
        tune_state.bring_up_to_date(path, space, phase.search)
        for trial_folder, number in _last_known_checkpoints(tuner, path).items():
            stored_checkpoints.forget_after(trial_folder, number)
    else:
        _set_aside(path)
        tuner = _new_tuner(folder, phase, trainable, space, stop, callbacks, scheduler)
        earlier = phase.start_from if not is_pretrained(phase.start_from) else None
        origin = folder.state(earlier)["checkpoint"] if earlier else None
    progress.line, progress.check_lock, rules.line = line, folder.check_lock, line
    progress.reason_of = rules.reason_of
    cluster = ray.cluster_resources()
    progress.rest = rest_of_run(folder.spec, phase, cluster.get("CPU", 0.0), cluster.get("GPU", 0.0))
    progress.random = random_policy_of(folder, phase)
    progress.protected = _begun_from(folder)
    progress.settings_change = phase.search_alg == "pbt"
    state = {**_lasting(before), "status": RUNNING, "stop": phase.stop.conditions, "reopened": reopened}
    if origin is not None:
        state["start_from"] = origin
    folder.record(phase.name, state)
    with interruption.awaiting_checkpoints(), rules.judged(), stored_by(tune_state.Store()), staged_apart():
        results = tuner.fit()
    return _conclude(folder, phase, results, rules)


def _new_tuner(
    folder: RunFolder,
    phase: Phase,
    trainable: Any,
    space: dict[str, Any],
    stop: Any,
    callbacks: list[Any],
    scheduler: TrialScheduler,
) -> tune.Tuner:
    storage_path, storage_filesystem = for_tune(folder.path)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=phase.num_samples,
            scheduler=scheduler,
            search_alg=search_of(folder, phase),
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=phase.name,
            storage_path=storage_path,
            storage_filesystem=storage_filesystem,
            stop=stop,
            callbacks=callbacks,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=folder.spec.resources.max_failures),
            # PhaseProgress asks for checkpoints, and `checkpoints` prunes them.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _last_known_checkpoints(tuner: tune.Tuner, folder: Location) -> dict[Location, int]:
    """Trial folder -> number of the checkpoint that the trial will go on from, -1 for none."""
    try:
        results = tuner.get_results()
    except RuntimeError:
        return {}
    known = {}
    for result in _each(results):
        checkpoint, own = result.checkpoint and PurePosixPath(result.checkpoint.path), PurePosixPath(result.path).name
        if checkpoint is None or checkpoint.parent.name == own:  # else it took over another trial's
            known[folder / own] = stored_checkpoints.number_of(checkpoint) if checkpoint else -1
    return known


def _lasting(state: dict[str, Any]) -> dict[str, Any]:
    """Of a phase's recorded state what holds while it goes on: its checkpoint, and the one that it began from."""
    return {key: state[key] for key in ("checkpoint", "start_from") if key in state}


def _begun_from(folder: RunFolder) -> set[str]:
    """The checkpoints that phases began from, or would now: a trial that starts again reads its own once more."""
    states = [folder.state(phase.name) for phase in folder.spec.phases]
    return {str(folder.path / checkpoint) for state in states for checkpoint in _lasting(state).values()}


def _set_aside(path: Location) -> None:
    """Clear the place for a new experiment: a start that was cut short is removed, anything more is renamed."""
    if not path.exists():
        return
    if not stored_checkpoints.stored_checkpoints(path):
        remove_tree(path)
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    path.rename(aside)  # type: ignore[arg-type]  # both on disk, or neither


def _conclude(folder: RunFolder, phase: Phase, results: tune.ResultGrid, rules: FaultRules) -> dict[str, Any]:
    problems = [problem for result in _each(results) if (problem := _problem(folder.path / phase.name, result))]
    best = stored_checkpoints.best_checkpoint(folder.path / phase.name)
    if len(problems) == len(results) or best is None:
        lasting = _lasting(folder.state(phase.name))
        folder.record(phase.name, {**lasting, "status": FAILED, "stop": phase.stop.conditions})
        why = problems[0] if problems else "no checkpoint was written"
        kept = f"; the last good checkpoint is {_latest(folder, phase)}" if best else ""
        raise RunFailed(f"phase {phase.name} stopped: {why}{kept}{rules.lost_nodes()}")
    own = {PurePosixPath(result.path).name: result for result in _each(results)}
    metrics = (own[best.trial].metrics if best.trial in own else None) or best.metrics
    outcome = {
        **_lasting(folder.state(phase.name)),
        "status": FINISHED,
        "stop": phase.stop.conditions,
        "trial": best.trial,
        "checkpoint": f"{phase.name}/{best.trial}/{best.path.name}",
        "checkpoint_metrics": best.metrics,
        "env_steps": metrics.get("env_steps"),
        "wall_time_s": metrics.get("time_total_s"),
        "failed_trials": len(problems),
        **({"first_failure": problems[0]} if problems else {}),
        "trials": len(results),
    }
    folder.record(phase.name, outcome)
    return outcome


def _each(results: tune.ResultGrid) -> list[tune.Result]:
    return [results[i] for i in range(len(results))]


def _latest(folder: RunFolder, phase: Phase) -> Location:
    return max(stored_checkpoints.stored_checkpoints(folder.path / phase.name), key=lambda c: c.written).path


def _problem(path: Location, result: tune.Result) -> str | None:
    """Why a trial failed, when, and where its traceback lies."""
    metrics = result.metrics or {}
    after = f" after {metrics['env_steps']:,} environment steps" if metrics.get("env_steps") else ""
    if result.error is None:
        return f"{metrics[FAILURE]}{after}" if FAILURE in metrics else None
    file = path / PurePosixPath(result.path).name / ERROR_FILE
    return f"{sentence_of(result.error)}{after}; the traceback is in {file}"
