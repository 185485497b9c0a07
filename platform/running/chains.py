"""The chains of a spec with seeds or variants: side by side as the cluster allows, each a run folder of its own.

    RUN/chains/<chain>/     as any run's folder
    RUN/state.json          which chains are done

A chain is driven by a Ray task, so that the loss of its process costs no more than that of a driver: the task is tried
again, and goes on where the folder says. What a chain shares with an earlier one is copied from there when that has it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError, last_line
from parsecrl.platform.metrics.table import CHAINS
from parsecrl.platform.running.configs import env_of
from parsecrl.platform.running.one_chain import opened, reporting, work_through
from parsecrl.platform.running.preflight import check_environment
from parsecrl.platform.runs.run_folder import CHAINS_FILE, FINISHED, RunFolder
from parsecrl.platform.specs import Chain, Spec
from parsecrl.platform.storage import Location, RemotePath, download, in_parallel, remove_tree, upload, write_atomically
from parsecrl.platform.terminal import StatusLine

POLL_S = 1.0  # between two looks at the chains that run
DRIVER_TRIES = 3  # of a chain whose process is lost
WITHOUT_EFFECT = {"resources", "runtime", "loggers"}  # keys of a spec that leave what a chain came to as it is


def chains_to_do(folder: RunFolder, chains: Sequence[Chain]) -> list[Chain]:
    """Those that are not done, were done under another spec, or whose checkpoints are there no more.

    Args:
        folder: Of the run.
        chains: All that its spec stands for.

    Returns:
        Chains, in their order.
    """
    return [chain for chain in chains if folder.state(_key(chain)) != _done(chain) or not _is_trained(folder, chain)]


def record_done(folder: RunFolder, chain: Chain) -> None:
    """Write down that a chain has run to its end.

    Args:
        folder: Of the run; open.
        chain: That has ended.
    """
    folder.record(_key(chain), _done(chain))


def run_chains(folder: RunFolder, chains: Sequence[Chain], line: StatusLine) -> None:
    """Run or continue the chains of a run.

    Args:
        folder: Of the run; open.
        chains: All that its spec stands for.
        line: Says how far they are.

    Raises:
        RunFailed: A chain failed. The others have been run to their ends before.
        Interrupted: The run was asked to stop; each chain's trials have written checkpoints.
    """
    import ray

    board: Any = ray.remote(_Board).options(num_cpus=0).remote()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    task, options = ray.remote(run_chain), {"num_cpus": 0, "max_retries": DRIVER_TRIES, "scheduling_strategy": here}
    records = [{key: value for key, value in chain._asdict().items() if key != "spec"} for chain in chains]
    write_atomically(folder.path / CHAINS_FILE, json.dumps(records, indent=1))
    waiting, limit = chains_to_do(folder, chains), side_by_side(chains, ray.cluster_resources())
    running: dict[Any, Chain] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            for chain in [chain for chain in waiting if not _begins_later(folder, chain, chains, failed)]:
                if len(running) < limit:
                    waiting.remove(chain)
                    drive = task.options(name=f"chain {chain.name}", **options)
                    storage = str(folder.path / CHAINS)
                    running[drive.remote(chain, storage, folder.trust, folder.new_code, board)] = chain
            for chain in [chain for chain in waiting if set(chain.shared.values()) & failed.keys()]:
                waiting.remove(chain)
                failed[chain.name] = f"{', '.join(set(chain.shared.values()) & failed.keys())} failed"
            ended, _ = ray.wait(list(running), timeout=POLL_S) if running else ([], [])
            for reference in ended:
                chain = running.pop(reference)
                if reason := _failure(reference):
                    failed[chain.name] = reason
                    line.note(f"{chain.name}: failed, because {reason}")
                else:
                    record_done(folder, chain)
                    line.note(f"{chain.name}: done")
            folder.check_lock()
            line.show(_said(chains, waiting, running, failed, ray.get(board.texts.remote())))
    except BaseException:  # interrupted, or the run's folder is lost
        for reference in running:
            ray.cancel(reference, force=False)  # as SIGINT: its trials write checkpoints
        ray.wait(list(running), num_returns=len(running)) if running else None
        raise
    if failed:
        name, reason = next(iter(failed.items()))
        raise RunFailed(
            f"{len(failed)} of {len(chains)} chains failed, the first, {name}, because {reason}; "
            f"the same command continues them"
        )


def report_on_chains(folder: RunFolder, line: StatusLine) -> None:
    """The page and summary.json of a run with seeds or variants.

    Args:
        folder: Of the run; open.
        line: Says how far it is.
    """
    from parsecrl.platform.reports import build_report

    with reporting(folder, line):
        build_report(folder.path)
    line.show("done", final=True)


def run_chain(chain: Chain, storage: str, trust: bool, new_code: bool, board: Any) -> None:
    """Run or continue one chain; runs in a Ray task.

    Args:
        chain: What to run.
        storage: The folder of all chains.
        trust: As `run_spec`.
        new_code: As `run_spec`.
        board: Actor that is told how far the chain is.
    """
    folder = RunFolder.choose(chain.spec, storage, chain.name, trust=trust, new_code=new_code)
    line = StatusLine()
    with opened(folder, line, lambda text: board.tell.remote(chain.name, text)):
        take_over(folder, chain)
        work_through(folder, "", line, check_environment(chain.spec))


def take_over(folder: RunFolder, chain: Chain) -> None:
    """Copy the phases that the chain shares from the chains that have trained them.

    Args:
        folder: Of the chain; open.
        chain: Whose `shared` phases are finished in the others.
    """
    for phase in chain.spec.phases:
        owner = chain.shared.get(phase.name)
        if owner is None or folder.is_finished(phase):
            continue
        source = RunFolder(folder.path.parent / owner, chain.spec)
        for name in (phase.name, f"{phase.name}_data"):
            if (source.path / name).exists():
                copy_tree(source.path / name, folder.path / name)
        folder.record(phase.name, source.state(phase.name))


def copy_tree(source: Location, target: Location) -> None:
    """Copy a folder over another, on disk or in an object store.

    Args:
        source: Stays as it is.
        target: What is there is removed first.
    """
    remove_tree(target)
    if isinstance(source, Path) and isinstance(target, Path):
        shutil.copytree(source, target, symlinks=True)
        return
    with tempfile.TemporaryDirectory(prefix="parsec-copy-") as scratch:
        local = source if isinstance(source, Path) else target if isinstance(target, Path) else Path(scratch) / "copy"
        if isinstance(source, RemotePath):
            names = [str(file.relative_to(source)) for file in source.files()]
            in_parallel(lambda name: download(source / name, local / name), names)
        if isinstance(target, RemotePath):
            names = [file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file()]
            in_parallel(lambda name: upload(local / name, target / name), names)


def side_by_side(chains: Sequence[Chain], cluster: Mapping[str, float]) -> int:
    """How many chains can run at once.

    Args:
        chains: All.
        cluster: What the cluster has, by kind.

    Returns:
        As many as have a trial of their largest phase on the cluster together; at least 1.
    """
    needed = _largest_trial([chain.spec for chain in chains])
    fitting = [int(cluster.get(kind, 0.0) / amount + 1e-6) for kind, amount in needed.items() if amount > 0]
    return max(1, min(fitting, default=len(chains)))


def _largest_trial(specs: Sequence[Spec]) -> dict[str, float]:
    needed: dict[str, float] = {}
    for spec in specs:
        for phase in spec.phases:
            processes = phase.entry.processes(phase, env_of(spec) or None, spec.resources.model_dump())
            for kind in {kind for process in processes for kind in process}:
                total = sum(process.get(kind, 0.0) for process in processes)
                needed[kind] = max(needed.get(kind, 0.0), total)
    return {kind: amount for kind, amount in needed.items() if kind in {"CPU", "GPU"}}


class _Board:
    """What each chain last said of itself."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def tell(self, chain: str, text: str) -> None:
        self._texts[chain] = text

    def texts(self) -> dict[str, str]:
        return self._texts


def _key(chain: Chain) -> str:
    return f"chain {chain.name}"


def _done(chain: Chain) -> dict[str, str]:
    said = json.dumps([chain.spec.model_dump(exclude=WITHOUT_EFFECT), sorted(chain.shared.items())], default=str)
    return {"status": FINISHED, "of": hashlib.sha256(said.encode()).hexdigest()}


def _is_trained(folder: RunFolder, chain: Chain) -> bool:
    own = RunFolder(folder.path / CHAINS / chain.name, chain.spec)
    return all(own.is_finished(phase) for phase in chain.spec.phases)


def _begins_later(folder: RunFolder, chain: Chain, chains: Sequence[Chain], failed: Mapping[str, str]) -> bool:
    """Whether another chain still has to train what this one shares with it."""
    by_name = {other.name: other for other in chains}
    for owner in set(chain.shared.values()):
        owners = RunFolder(folder.path / CHAINS / owner, by_name[owner].spec)
        if not all(owners.is_finished(owners.spec.phase(name)) for name, of in chain.shared.items() if of == owner):
            return True
    return False


def _failure(reference: Any) -> str | None:
    """Why a chain's task failed; None of one that did not."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        own = isinstance(error.cause, UserError | RunFailed | StorageUnreachable)
        return str(error.cause) if own else last_line(error)
    except ray.exceptions.RayError as error:
        return f"its process was lost ({last_line(error)})"
    return None


def _said(
    chains: Sequence[Chain],
    waiting: Sequence[Chain],
    running: Mapping[Any, Chain],
    failed: Mapping[str, str],
    texts: Mapping[str, str],
) -> str:
    done = len(chains) - len(waiting) - len(running) - len(failed)
    parts = [f"{done} of {len(chains)} chains done"]
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{chain.name}: {texts.get(chain.name, 'starting')}" for chain in running.values()]
    return "; ".join(parts)
