"""The project's metrics: one table, from which come the results' `metrics/...`, Prometheus, the dashboard and the docs.

A trial's process takes the values from each result of its algorithm, adds them to that result as `metrics`, which Tune
hands to every logger, and sets Ray's metrics, which the node exports to Prometheus as `ray_parsecrl_<name>`. Algorithms
know nothing of it: `source` says where in a result a value is found, and a result without it goes without the metric.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parsecrl.algorithms.registry.algorithm import EVALUATED_RETURN
from parsecrl.algorithms.training.measurements import PlanTime

PREFIX = "parsecrl_"
# Of every metric: run folder (with its chain's, RUN/variant-seed0), the spec's phase, Tune's trial folder, whose name
# says the searched values.
LABELS = ("run", "phase", "trial")
CHAINS = "chains"  # the folder of a run's chains
# Ray drops a gauge that was not set for two report intervals (of 10 s), and an iteration may last longer.
REFRESH_SECONDS = 1.0
MEASURED = "measured"  # what algorithms put into a result for this table alone


@dataclass(frozen=True)
class Metric:
    """A metric: what it is called, what it counts, and where in a result it is."""

    name: str  # under `metrics/` in results
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    source: str  # path in the algorithm's result; below it one level of keys for each label
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds, of a histogram

    @property
    def summary(self) -> str:
        """The meaning's first sentence."""
        return self.meaning.partition(". ")[0].rstrip(".") + "."

    @property
    def ray_name(self) -> str:
        """Its name in Ray."""
        return PREFIX + self.name

    @property
    def prometheus_name(self) -> str:
        """As Prometheus shows it; of a histogram there are `_bucket`, `_count` and `_sum`."""
        return f"ray_{self.ray_name}" + ("_total" if self.kind == "counter" else "")


METRICS = (
    Metric(
        "env_steps",
        "counter",
        "simulator steps",
        "Environment steps of the phase: decisions times action repeat. Prometheus counts those that a process made, "
        "so that steps repeated after a failure count again; results go on from the checkpoint.",
        "env_steps",
    ),
    Metric(
        "episode_return",
        "gauge",
        "reward",
        "Mean return of the last 10 episodes that ended. Absent before the first.",
        "episode_return_mean",
    ),
    Metric(
        "evaluation_return",
        "gauge",
        "reward",
        "Mean return of the last evaluation while training, with `evaluation_every`. Absent before the first.",
        EVALUATED_RETURN,
    ),
    Metric(
        "planning_seconds",
        "histogram",
        "s",
        "Wall time of planning, per decision: a planner's call over the number of environments that it decided for, "
        "the belief's update included. Random actions do not count. In results: mean, p50 and p95 of the iteration. "
        "In Prometheus `_sum` is Ray's estimate from the buckets' middles.",
        "measured/planning_seconds",
        # 0.1 ms to 5 s; a CPU's are 5 to 200 ms
        buckets=tuple(round(m * 10.0**e, 6) for e in (-4, -3, -2, -1, 0) for m in (1, 2, 5)),
    ),
    Metric(
        "trajectories",
        "counter",
        "candidate plans",
        "Candidates that the model rolled out to decide: those of all iterations of each decision. What a "
        "learner plans is not counted.",
        "trajectories",
    ),
    Metric(
        "time_share",
        "gauge",
        "share of wall time",
        "Since the last result, sum 1 for each process. runner (mean of the runners that reported): planning; "
        "stepping, everything else that a rollout takes; waiting for the next request. main: learning; waiting for "
        "rollouts, or for batches of images; other, such as replay, results and checkpoints. Without remote runners "
        "main gathers them itself, as its waiting. latent_planning: main plans too.",
        "measured/time_shares",
        ("process", "activity"),
    ),
    Metric(
        "loss",
        "gauge",
        "of the term",
        "The learner's losses. planet: model_loss and its terms observation, reward, kl (nats) and overshooting_kl, "
        "before their weights, a mean of the last 100 updates; decoder_loss, the predicted cost of the decoded "
        "plans, and decoder_distance from replayed actions; critic_loss and actor_loss, in the critic's unit. "
        "unified: these, and policy_loss, minus the value of the planner's first action, in the rewards' unit. "
        "dcem_ppo: policy_loss, value_loss, entropy of the policy (nats). "
        "latent_sac: actor_loss, critic_loss and dynamics_loss, means of the last 20 updates. "
        "cartpole_embedding: planned_cost. The other studies: loss and its terms. "
        "Of these two means since the last result.",
        "measured/losses",
        ("term",),
    ),
    Metric(
        "soft_top_k_entropy",
        "gauge",
        "nats",
        "Entropy of the last iteration's selection weights as a distribution over candidates, a mean over plans; exp "
        "of it is an effective number of elites. log(num_elites) for the hard selection of full-space CEM, or at "
        "temperature 0; more for a softer one, up to log(num_samples).",
        "measured/soft_top_k_entropy",
    ),
    Metric(
        "replay_decisions",
        "gauge",
        "decisions",
        "Size of the replay buffer, of algorithms that have one.",
        "replay_decisions",
    ),
    Metric(
        "gradient_norm",
        "gauge",
        "of the gradient",
        "Norm of the gradient before clipping, per optimiser. planet, unified: model, decoder, "
        "critic, actor. dcem_ppo: fine_tuned, std. "
        "open_loop: model.",
        "measured/gradient_norms",
        ("optimizer",),
    ),
)


def metric(name: str) -> Metric:
    """Find a metric.

    Args:
        name: Of one of METRICS.

    Returns:
        The metric.
    """
    return next(m for m in METRICS if m.name == name)


def values(m: Metric, result: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], float]]:
    """Each finite value that a result holds of a counter or gauge.

    Args:
        m: The metric.
        result: Of a trial.

    Yields:
        Labels of the metric's own, and the value.
    """
    found: Any = result
    for key in m.source.split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    for keys, value in _leaves(found, len(m.labels)):
        if isinstance(value, int | float) and math.isfinite(value):
            yield dict(zip(m.labels, keys, strict=True)), float(value)


def _leaves(tree: Any, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if depth == 0:
        yield (), tree
    elif isinstance(tree, Mapping):
        for key, branch in tree.items():
            for keys, value in _leaves(branch, depth - 1):
                yield (str(key), *keys), value


def as_results(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `metrics` of a result holds.

    Args:
        result: Of a trial.

    Returns:
        Name -> value, or name -> label -> value; of a histogram mean, p50 and p95.
    """
    metrics: dict[str, Any] = {}
    for m in METRICS:
        if m.kind == "histogram":
            summary = result.get(MEASURED, {}).get(m.source.rpartition("/")[2])
            if summary:
                metrics[m.name] = dict(summary)
            continue
        for labels, value in values(m, result):
            place, *last = (m.name, *labels.values())
            group = metrics
            for key in last:
                group, place = group.setdefault(place, {}), key
            group[place] = value
    return metrics


def counters(result: Mapping[str, Any]) -> dict[str, float]:
    """The counters, which have no labels of their own.

    Args:
        result: Of a trial.

    Returns:
        Value by name.
    """
    return {m.name: value for m in METRICS if m.kind == "counter" for _, value in values(m, result)}


def increments(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """What was counted in between, where it is something.

    Args:
        before: Value by name; none counts as 0.
        now: The same, later.

    Returns:
        Differences above 0, by name.
    """
    made = {name: value - before.get(name, 0.0) for name, value in now.items()}
    return {name: value for name, value in made.items() if value > 0}


class Exporter:
    """Sets Ray's metrics for one trial; made and used in the trial's own process.

    Args:
        labels: Run, phase and trial.
    """

    def __init__(self, labels: Mapping[str, str]):
        from ray.util.metrics import Counter, Gauge, Histogram

        self.labels = dict(labels)
        self.counted: dict[str, float] = {}
        self.gauges: list[tuple[Any, float, dict[str, str]]] = []  # replaced as a whole, so that no lock is needed
        self.ray_metrics: dict[str, Any] = {}
        for m in METRICS:
            keys = (*LABELS, *m.labels)
            if m.kind == "histogram":
                self.ray_metrics[m.name] = Histogram(m.ray_name, m.summary, list(m.buckets), keys)
            else:
                self.ray_metrics[m.name] = (Counter if m.kind == "counter" else Gauge)(m.ray_name, m.summary, keys)
            self.ray_metrics[m.name].set_default_tags(self.labels)
        self._stopped = threading.Event()
        threading.Thread(target=self._refresh, name="parsecrl-metrics", daemon=True).start()

    def _refresh(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            self._set_gauges()

    def _set_gauges(self) -> None:
        for gauge, value, labels in self.gauges:
            gauge.set(value, labels)

    def stop(self) -> None:
        """End the thread that sets the gauges again."""
        self._stopped.set()

    def begin(self, result: Mapping[str, Any]) -> None:
        """What the counters stand at before this process did anything: a checkpoint's values."""
        self.counted = counters(result)

    def export(self, result: Mapping[str, Any], plans: Iterable[PlanTime]) -> None:
        """Set the metrics by a result, and observe each plan's time."""
        gauges = []
        for m in METRICS:
            ray_metric = self.ray_metrics[m.name]
            if m.kind == "histogram":
                for plan in plans:
                    for _ in range(plan.decisions):
                        ray_metric.observe(plan.seconds)
                continue
            if m.kind == "gauge":
                gauges += [(ray_metric, value, labels) for labels, value in values(m, result)]
        now = counters(result)
        for name, made in increments(self.counted, now).items():
            self.ray_metrics[name].inc(made)
        self.counted |= now
        self.gauges = gauges
        self._set_gauges()


class CountsNothing:
    """Put behind an algorithm whose results have no counters and no plans."""

    plans: Iterable[PlanTime] = ()

    def phase_results(self) -> dict[str, Any]:
        """No counters."""
        return {}


class ReportsMetrics:
    """Put before an algorithm that Tune trains: adds `metrics` to its results and exports them."""

    _exporter: Exporter | None = None

    def step(self) -> dict[str, Any]:
        """The algorithm's step, its result with `metrics`."""
        if self._exporter is None:
            self._exporter = Exporter(labels_of(self))
            self._exporter.begin(self.phase_results())  # type: ignore[attr-defined]
        result = super().step()  # type: ignore[misc]
        self._exporter.export(result, self.plans)  # type: ignore[attr-defined]
        result["metrics"] = as_results(result)
        result.pop(MEASURED, None)
        return result

    def __repr__(self) -> str:
        """run/phase/trial, by which the Ray dashboard and Ray's logs call the trial's actor."""
        return "/".join(filter(None, labels_of(self).values())) or super().__repr__()

    def cleanup(self) -> None:
        """End the exporter, then as the algorithm does."""
        if self._exporter is not None:
            self._exporter.stop()
        super().cleanup()  # type: ignore[misc]


def labels_of(trainable: Any) -> dict[str, str]:
    """Run, phase and trial, from where Tune stores the trial: <run>/<phase>/<trial>.

    Args:
        trainable: Of the trial.

    Returns:
        The labels; empty texts outside of Tune.
    """
    from parsecrl.platform.cluster.tune_private import storage_path  # Ray: `parsec` lists metrics without it

    path = storage_path(trainable)
    if path is None:
        return dict.fromkeys(LABELS, "")
    labels = dict(zip(LABELS, path.parts[-3:], strict=True))
    if len(path.parts) > 4 and path.parts[-4] == CHAINS:
        labels["run"] = f"{path.parts[-5]}/{labels['run']}"
    return labels
