"""The two sentences that a run's page begins with: what was done, and what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.reports.loaded_run import Phase, Run
from parsecrl.platform.reports.over_seeds import Chains
from parsecrl.platform.runs.run_folder import FINISHED
from parsecrl.platform.terminal import duration


def opening(run: Run) -> str:
    """Say what a run did and what came out, as far as it got.

    Args:
        run: Finished or not.

    Returns:
        Two sentences.
    """
    return f"{_done(run)} {_outcome(run)}"


def opening_over_seeds(found: Chains, summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """As `opening`, of a run with seeds or variants; what came out is the reference's.

    Args:
        found: Of `load_chains`.
        summary: Of `summary_of`.

    Returns:
        Two sentences.
    """
    phases = list(dict.fromkeys(phase.name for run in found.runs.values() for phase in run.phases if phase.started))
    seeds = len({chain.seed for chain in found.chains})
    over = [_number(seeds, "seed")] + [_number(len(found.variants), "variant")] * found.several
    begun, total = len(found.runs), len(found.chains)
    rest = f"; {begun} of {total} chains have begun" if begun < total else ""
    done = f"This run trained {_listed(phases) or 'nothing yet'} over {_listed(over)}{rest}."
    reference = {
        name: variants[found.variants[0]]["median"]
        for name, variants in summary.items()
        if found.variants[0] in variants
    }
    random = reference.pop(RANDOM, None)
    if not reference:
        return f"{done} Its agents were not evaluated yet." if found.cells else f"{done} Its results are below."
    told = [f"{name} reached {median:,.4g}" for name, median in reference.items()]
    whose = f" of {found.variants[0]}" if found.several else ""
    against = f", against {random:,.4g} of the random policy" if random is not None else ""
    return f"{done} Over all seeds{whose} the median return of {_listed(told)}{against}."


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + "s" * (count != 1)


def _done(run: Run) -> str:
    begun = [phase for phase in run.phases if phase.started]
    if not begun:
        return f"No phase of {run.name} has begun."
    parts = [_part(phase) for phase in begun]
    waiting = len(run.phases) - len(begun)
    rest = f"; {waiting} more {'phase has' if waiting == 1 else 'phases have'} not begun" if waiting else ""
    where = f" on {run.task}" if run.acting else ""
    return f"This run trained {_listed(parts)}{where}{rest}."


def _part(phase: Phase) -> str:
    """planet (4 trials, 12,000 environment steps, 20 min)"""
    said = [f"{len(phase.trials)} trials"] if len(phase.trials) > 1 else []
    if phase.acts and phase.env_steps is not None:
        said.append(f"{phase.env_steps:,.0f} environment steps")
    seconds = phase.summary.get("wall_time_s")
    said += [duration(seconds)] if isinstance(seconds, int | float) else []
    said += [] if phase.status in ("", FINISHED) else [phase.status]
    return phase.name + (f" ({', '.join(said)})" if said else "")


def _outcome(run: Run) -> str:
    judged = [phase for phase in run.acting if phase.statistics]
    if not judged:
        return "Its agents were not evaluated yet." if run.acting else _studied(run)
    told = [f"{phase.name} reached {phase.statistics.median:,.4g}" for phase in judged if phase.statistics]
    random = run.random.statistics
    against = f", against {random.median:,.4g} of the random policy" if random else ""
    episodes = judged[-1].statistics.episodes if judged[-1].statistics else 0
    return f"Over {episodes} episodes the median return of {_listed(told)}{against}."


def _studied(run: Run) -> str:
    trials = [trial for phase in run.studies for trial in phase.trials]
    failed = sum(trial.failure is not None for trial in trials)
    lost = f", of which {failed} failed" if failed else ""
    return f"The results of its {len(trials)} {'trial' if len(trials) == 1 else 'trials'}{lost} are below."


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
