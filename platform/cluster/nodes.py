"""The nodes of the cluster: what they have, which were lost, and whether a spec fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parsecrl.platform.errors import RunFailed, UserError


class Cluster:
    """The nodes as they were when this process first looked, and what became of them."""

    def __init__(self) -> None:
        self.had: dict[str, float] = {}
        self.dead_before: set[str] = set()

    def look(self) -> None:
        """Remember what the cluster has now."""
        import ray

        self.had = ray.cluster_resources()
        self.dead_before = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}

    def lost(self) -> list[str]:
        """The nodes that died since then, each with its address and Ray's reason."""
        import ray

        dead = [node for node in ray.nodes() if not node["Alive"] and node["NodeID"] not in self.dead_before]
        return [f"node {node['NodeManagerAddress']} ({_reason(node)})" for node in dead]

    def describe(self) -> str:
        """What the cluster has and what it lost, in words."""
        import ray

        has = ray.cluster_resources()
        alive = sum(bool(node["Alive"]) for node in ray.nodes())
        text = f"the cluster has {resources(has)} on {alive} node{'s' * (alive != 1)}, "
        text += f"free of it: {resources(ray.available_resources())}"
        if self.had and resources(self.had) != resources(has):
            text += f" (it had {resources(self.had)})"
        if lost := self.lost():
            text += f", having lost {', '.join(lost)}"
        return text


def resources(amounts: Mapping[str, float]) -> str:
    """Amounts in words; not the memory, nor what Ray keeps for itself.

    Args:
        amounts: By the names of Ray's resources.

    Returns:
        "2 CPU, 1 GPU", say; "nothing" without any.
    """
    own = ("node:", "memory", "object_store_memory", "accelerator_type:", "bundle")
    named = {kind: amount for kind, amount in amounts.items() if not kind.startswith(own) and "_group_" not in kind}
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(named.items())) or "nothing"


def wait_for_any(references: list[Any], patience_s: float | None, what: str) -> tuple[Any, list[Any]]:
    """Wait for the first of some Ray tasks to end.

    Args:
        references: Of the tasks, one or more.
        patience_s: Longest wait, in seconds; None waits on.
        what: Waits, for the message.

    Returns:
        The one that has ended, and the others.

    Raises:
        RunFailed: None ends in time.
    """
    import ray

    ready, others = ray.wait(references, num_returns=1, timeout=patience_s)
    if not ready:
        cluster = Cluster()
        raise RunFailed(
            f"{what} got no result for resources.no_progress_timeout_s={patience_s:g} s: {len(references)} tasks "
            f"that ask for one CPU each (and the GPU share of a runner) have not ended; {cluster.describe()}; "
            f"the same command continues"
        )
    return ready[0], others


def _reason(node: Mapping[str, Any]) -> str:
    text = " ".join(str(node.get("DeathReasonMessage") or node.get("DeathReason") or "no reason known").split())
    return text[:120].rstrip(".")


def check_resources(
    processes: Sequence[Mapping[str, float]], what: str, nodes: Sequence[Mapping[str, float]] | None = None
) -> None:
    """See that the cluster can have what some processes need, so that none is waited for in vain.

    Args:
        processes: The resources of each, which have to be on one node.
        what: Needs them, for the message.
        nodes: What each node has; None: those of the joined cluster, which is not judged while an autoscaler may add
            nodes to it.

    Raises:
        UserError: The cluster will never have what they need.
    """
    if nodes is None:
        import ray

        from parsecrl.platform.cluster import ray_private

        if ray_private.may_grow():
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind in sorted({kind for process in processes for kind in process}):
        needed = sum(process.get(kind, 0.0) for process in processes)
        have = sum(node.get(kind, 0.0) for node in nodes)
        if needed > have + 1e-6:
            remedy = "resources.num_env_runners, num_learners" if kind == "CPU" else "resources.num_gpus_per_*"
            raise UserError(
                f"{what} needs {needed:g} {kind} and the Ray cluster has {have:g}; "
                f"lower {remedy} in the spec (or with --set), or use a larger --address"
            )
    for process in processes:
        if not any(all(amount <= node.get(kind, 0.0) + 1e-6 for kind, amount in process.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(process.items()) if amount)
            raise UserError(
                f"{what} needs {asked} on one node and no node of the Ray cluster has that; lower num_cpus_per_* and "
                f"num_gpus_per_* in the spec (or with --set), or use a larger --address"
            )
