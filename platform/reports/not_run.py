"""What a run has not done (yet), in sentences: the report says so rather than leave a gap."""

from __future__ import annotations

from parsecrl.platform.reports.loaded_run import Phase, Run
from parsecrl.platform.specs.phases import stop_conditions


def what_is_missing(run: Run) -> list[str]:
    """What a run has not done.

    Args:
        run: That was loaded.

    Returns:
        Sentences; none of a run that did all that its spec asks for.
    """
    if run.pooled_from:
        return [f"Only tables are here; the trials are in {', '.join(run.pooled_from)}."]
    evaluate = run.spec.get("evaluate")
    evaluate = evaluate if isinstance(evaluate, dict) else {}
    wanted = [str(name) for name in evaluate.get("phases") or [p.name for p in run.phases]]
    lines = [line for phase in run.phases for line in _of_phase(run, phase, evaluate, phase.name in wanted)]
    if run.acting and evaluate.get("random", True) and run.random.statistics is None:
        lines.append("The random policy was not evaluated.")
    if not run.summary:
        lines.append("summary.json is missing: the run has not finished or was interrupted; its machine is not known.")
    return lines


def _of_phase(run: Run, phase: Phase, evaluate: dict, wanted: bool) -> list[str]:
    lines = []
    if not phase.started and not phase.statistics:
        return [f"Phase {phase.name} was not run."]
    with_rows = [t for t in phase.trials if len(t.rows)]
    if phase.started and not with_rows:
        lines.append(f"Phase {phase.name} was started, but has no training result yet.")
    if phase.status == "failed":
        lines.append(f"Phase {phase.name} failed: no trial came to its end.")
    elif phase.status == "running":
        lines.append(f"Phase {phase.name} has not finished.")
    lines += [
        f"Phase {phase.name}: trial {trial.label} ended early: {trial.failure}"
        for trial in phase.trials
        if trial.failure
    ]
    lines += _short_of(phase)
    if not phase.acts:
        return lines
    if phase.statistics is None:
        lines.append(f"Phase {phase.name} was not evaluated." + ("" if wanted else " The spec does not ask for it."))
    else:
        episodes = evaluate.get("episodes")
        if isinstance(episodes, int) and wanted and phase.statistics.episodes < episodes:
            lines.append(
                f"Phase {phase.name} was evaluated on {phase.statistics.episodes} of the {episodes} episodes "
                f"that the spec asks for."
            )
    if evaluate.get("videos", True) and wanted and phase.video is None:
        lines.append(f"There is no video of phase {phase.name} (videos/{phase.name}.mp4).")
    if phase.checkpoint is None:
        lines.append(f"Phase {phase.name} has no checkpoint here, so its planning iterates could not be drawn.")
    return lines


def _short_of(phase: Phase) -> list[str]:
    """Stop conditions of the spec, where no trial reached any."""
    stop = phase.spec.get("stop")
    goals = {str(k): v for k, v in (stop if isinstance(stop, dict) else {}).items() if isinstance(v, int | float)}
    known = stop_conditions(phase.entry) if phase.entry else {}
    result_keys = {key: known[key].result_key if key in known else key for key in goals}
    lasts = {key: [trial.last(result_keys[key]) for trial in phase.trials] for key in goals}
    reached = {key: max((last for last in found if last is not None), default=None) for key, found in lasts.items()}
    if any(most is not None and most >= goals[key] for key, most in reached.items()):
        return []
    return [
        f"Phase {phase.name} stopped at {key} {most:,.0f}, short of the spec's {goals[key]:,.0f}."
        for key, most in reached.items()
        if most is not None
    ]
