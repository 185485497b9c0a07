"""A run with seeds or variants read back: every chain's run, and the returns of each phase by variant and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from parsecrl.algorithms.reporting.cells import NOT_EVALUATED, NOTHING, count, milliseconds, score
from parsecrl.algorithms.reporting.statistics import Difference, paired_difference, summarize_seeds
from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.metrics.table import CHAINS
from parsecrl.platform.reports.loaded_run import Phase, Run, load_run
from parsecrl.platform.reports.warnings import warnings_of
from parsecrl.platform.runs.run_folder import CHAINS_FILE
from parsecrl.platform.specs.spec import REFERENCE
from parsecrl.platform.storage import Location
from parsecrl.platform.terminal import text_table

HEADINGS = ("phase", "variant", "controller", "seeds", "episodes", "median [quartiles]", "IQM (95 %)", "plan ms")
IMPROVEMENT = "probability of improvement (95 %)"
COMPARED_HEADINGS = ("phase", "compared", "with", "seeds", "difference (95 %)", IMPROVEMENT, "verdict")
EXPLANATION = (
    "IQM: interquartile mean over seeds and episodes; its interval draws seeds, then episodes of each. difference: of "
    "mean returns, seed by seed, with Student's interval over seeds. probability of improvement: share of pairs of one "
    "seed and initial state with the higher return; its interval draws seeds. verdict: by the difference's interval."
)


Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # headings and rows


class ChainRecord(NamedTuple):
    """A chain, as CHAINS_FILE holds it; see `Chain`."""

    name: str
    variant: str
    seed: int
    shared: dict[str, str]


class Cell(NamedTuple):
    """A phase of a variant."""

    phase: str
    variant: str
    title: str
    returns: dict[int, np.ndarray]  # seed -> of its episodes
    planning_ms: float | None
    phases: dict[int, Phase]  # seed -> its run's


@dataclass(frozen=True)
class Chains:
    """The runs of the chains.

    Attributes:
        chains: As the spec has them.
        runs: Name of a chain -> its run, of those that have begun.
    """

    chains: Sequence[ChainRecord]
    runs: Mapping[str, Run]

    @property
    def variants(self) -> list[str]:
        """The reference first."""
        return list(dict.fromkeys(chain.variant for chain in self.chains))

    @property
    def several(self) -> bool:
        """Whether there are variants beside the reference."""
        return len(self.variants) > 1

    @cached_property
    def cells(self) -> list[Cell]:
        """Phases in their order, of each those variants that train them."""
        names = [RANDOM, *dict.fromkeys(phase.name for run in self.runs.values() for phase in run.acting)]
        found = [self._cell(name, variant) for name in names for variant in self.variants]
        return [cell for cell in found if cell.phases]

    def _cell(self, name: str, variant: str) -> Cell:
        mine: dict[int, Phase] = {}
        for chain in self.chains:
            run = self.runs.get(chain.name)
            if chain.variant != variant or name in chain.shared or run is None:
                continue
            for phase in run.rows:
                if phase.name == name and (name != RANDOM or phase.returns.size):
                    mine[chain.seed] = phase
        returns = {seed: phase.returns for seed, phase in mine.items() if phase.returns.size}
        times = [phase.planning_ms for phase in mine.values() if phase.planning_ms is not None]
        title = "random policy" if name == RANDOM else next((phase.title for phase in mine.values()), "")
        return Cell(name, variant, title, returns, float(np.median(times)) if times else None, mine)

    def _of_reference(self, phase: str) -> dict[int, np.ndarray]:
        """Seed -> returns of the reference, which trains all of its phases itself."""
        return next((cell.returns for cell in self.cells if (cell.phase, cell.variant) == (phase, REFERENCE)), {})

    def comparisons(self) -> list[tuple[str, str, str, Difference]]:
        """(phase, what, with what, difference): variants with the reference; phases with the one that they start from.

        A phase that starts from none is compared with the first one: so are baselines.

        The phases' comparisons are said of the reference alone where there are variants.
        """
        found = []
        for cell in self.cells:
            if cell.phase == RANDOM:
                continue
            what, against, other = cell.variant, REFERENCE, self._of_reference(cell.phase)
            if cell.variant == REFERENCE:
                first = next(cell.phase for cell in self.cells if cell.phase != RANDOM)
                started = next((phase.spec.get("start_from") for phase in cell.phases.values()), None) or first
                if started == cell.phase:
                    continue
                what, against, other = cell.phase, started, self._of_reference(started)
            if difference := paired_difference(cell.returns, other):
                found.append((cell.phase, what, against, difference))
        return found


def has_chains(folder: Location) -> bool:
    """Whether a folder is that of a run with seeds or variants.

    Args:
        folder: On disk or in an object store.

    Returns:
        True where it is.
    """
    return (folder / CHAINS_FILE).is_file()


def load_chains(folder: Location) -> Chains:
    """Read the chains of a run with seeds or variants, those that have begun.

    Args:
        folder: Of the run, on disk or in an object store.

    Returns:
        The chains and their runs.
    """
    records = [ChainRecord(**record) for record in json.loads((folder / CHAINS_FILE).read_text(encoding="utf-8"))]
    begun = [chain for chain in records if (folder / CHAINS / chain.name / "spec.yaml").is_file()]
    return Chains(records, {chain.name: load_run(folder / CHAINS / chain.name) for chain in begun})


def rows(found: Chains) -> list[tuple[str, ...]]:
    """What the evaluations found, a row for each phase and variant.

    Args:
        found: Of `load_chains`.

    Returns:
        Cells in the order of HEADINGS.
    """
    listed: list[tuple[str, ...]] = []
    for cell in found.cells:
        s = summarize_seeds(list(cell.returns.values())) if cell.returns else None
        listed.append(
            (
                cell.phase,
                NOTHING if cell.phase == RANDOM else cell.variant,
                cell.title,
                str(len(cell.returns)),
                count(s.episodes) if s else NOTHING,
                f"{score(s.median)} [{score(s.q25)}, {score(s.q75)}]" if s else NOT_EVALUATED,
                f"{score(s.iqm)} ({score(s.iqm_low)} to {score(s.iqm_high)})" if s else NOTHING,
                NOTHING if cell.phase == RANDOM else milliseconds(cell.planning_ms),
            )
        )
    return listed


def compared_rows(found: Chains) -> list[tuple[str, ...]]:
    """Differences of pairs of seeds, a row for each comparison.

    Args:
        found: Of `load_chains`.

    Returns:
        Cells in the order of COMPARED_HEADINGS.
    """
    return [
        (
            phase,
            what,
            against,
            str(d.seeds),
            score(d.mean, "+") + (f" ({score(d.low, '+')} to {score(d.high, '+')})" if d.seeds > 1 else ""),
            f"{100 * d.won:.0f} %" + (f" ({100 * d.won_low:.0f} to {100 * d.won_high:.0f})" if d.seeds > 1 else ""),
            d.verdict,
        )
        for phase, what, against, d in found.comparisons()
    ]


def without(
    headings: Sequence[str], listed: Sequence[Sequence[str]], heading: str
) -> tuple[list[str], list[list[str]]]:
    """A table less one column.

    Args:
        headings: Of the columns.
        listed: A cell for each heading.
        heading: Of the column that goes.

    Returns:
        Headings and rows.
    """
    kept = [i for i, name in enumerate(headings) if name != heading]
    return [headings[i] for i in kept], [[row[i] for i in kept] for row in listed]


def tables(found: Chains) -> list[Table]:
    """The tables of a page.

    Args:
        found: Of `load_chains`.

    Returns:
        Headings and rows of each that has some.
    """
    listed: list[Table] = []
    if found.cells:
        listed.append((HEADINGS, rows(found)) if found.several else without(HEADINGS, rows(found), "variant"))
    if compared := compared_rows(found):
        listed.append((COMPARED_HEADINGS, compared))
    return listed


def format_chains(name: str, found: Chains) -> str:
    """The tables that end a run with seeds or variants, as text.

    Args:
        name: Of the run.
        found: Of `load_chains`.

    Returns:
        Lines.
    """
    done = [text_table(headings, list(map(tuple, listed)), 3, "-") for headings, listed in tables(found)]
    return "\n\n".join(
        [f"{name}: {len(found.runs)} of {len(found.chains)} chains", *done, *([EXPLANATION] if done else [])]
    )


def warnings_over(found: Chains) -> list[str]:
    """What is wrong with the chains; the same of several chains is said once, with their names.

    Args:
        found: Of `load_chains`.

    Returns:
        A sentence each.
    """
    said: dict[str, list[str]] = {}
    shared = {chain.name: chain.shared for chain in found.chains}
    for name, run in found.runs.items():
        for warning in warnings_of(run):
            if warning.phase not in shared[name]:
                said.setdefault(warning.text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def summary_of(found: Chains) -> dict[str, Any]:
    """What summary.json says of the phases.

    Args:
        found: Of `load_chains`.

    Returns:
        Phase -> variant -> seeds, and statistics over seeds and episodes.
    """
    said: dict[str, Any] = {}
    for cell in found.cells:
        if cell.returns:
            statistics = summarize_seeds(list(cell.returns.values()))._asdict()
            said.setdefault(cell.phase, {})[cell.variant] = {"seeds": sorted(cell.returns), **statistics}
    return said
