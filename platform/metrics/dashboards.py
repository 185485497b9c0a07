"""What is generated from the table of metrics: the Grafana dashboard, and the table in docs/metrics.md.

python -m parsecrl.platform.metrics.dashboards [ROOT]      writes both, in the repository at ROOT (default: here)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from parsecrl.platform.metrics.table import LABELS, METRICS, Metric

DASHBOARD = Path("docker/grafana/dashboards/parsecrl.json")
DOCS = Path("docs/metrics.md")
BEGIN, END = "<!-- generated: python -m parsecrl.platform.metrics.dashboards -->", "<!-- end -->"
DATASOURCE = {"type": "prometheus", "uid": "parsecrl"}  # as docker/grafana/provisioning/datasources names it
GRAFANA_UNITS = {"s": "s", "share of wall time": "percentunit"}
SELECTED = ",".join(f'{label}=~"${label}"' for label in LABELS)
WIDTH, HEIGHT, COLUMNS = 12, 8, 24  # of a panel and of the page, in Grafana's grid


def queries(m: Metric) -> list[tuple[str, str]]:
    """What a panel shows of a metric.

    Args:
        m: The metric.

    Returns:
        (PromQL, legend) of each line.
    """
    by = ", ".join((*LABELS, *m.labels))
    legend = " ".join(f"{{{{{label}}}}}" for label in ("phase", "trial", *m.labels))
    series = f"{m.prometheus_name}{{{SELECTED}}}"
    if m.kind == "counter":
        return [(f"sum by ({by}) (rate({series}[$__rate_interval]))", f"{legend} a second")]
    if m.kind == "gauge":
        # A trial that was started again is a new process beside the old one for a few seconds.
        return [(f"max by ({by}) ({series})", legend)]
    buckets = f"{m.prometheus_name}_bucket{{{SELECTED}}}"
    return [
        (f"histogram_quantile({q}, sum by ({by}, le) (rate({buckets}[$__rate_interval])))", f"{legend} p{q * 100:.0f}")
        for q in (0.5, 0.95)
    ]


def dashboard() -> dict[str, Any]:
    """A Grafana dashboard: one panel a metric, in the table's order, for the chosen runs, phases and trials."""
    return {
        "uid": "parsecrl",
        "title": "parsecrl",
        "tags": ["parsecrl", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_variable(position) for position in range(len(LABELS))]},
        "panels": [_panel(position, m) for position, m in enumerate(METRICS)],
    }


def _variable(position: int) -> dict[str, Any]:
    """The values of a label, among those chosen of the labels before it."""
    label = LABELS[position]
    chosen = ",".join(f'{earlier}=~"${earlier}"' for earlier in LABELS[:position])
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({METRICS[0].prometheus_name}{{{chosen}}}, {label})", "refId": label},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(position: int, m: Metric) -> dict[str, Any]:
    rate = " per second" if m.kind == "counter" else ""
    per_row = COLUMNS // WIDTH
    return {
        "id": position + 1,
        "type": "timeseries",
        "title": m.name.replace("_", " ") + rate,
        "description": f"{m.meaning} Unit: {m.unit}{rate}.",
        "datasource": DATASOURCE,
        "gridPos": {"x": position % per_row * WIDTH, "y": position // per_row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": GRAFANA_UNITS.get(m.unit, "short")}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(queries(m))
        ],
    }


def dashboard_text() -> str:
    """The dashboard as JSON."""
    return json.dumps(dashboard(), indent=1) + "\n"


def docs_table() -> str:
    """The table of docs/metrics.md, a row a metric."""
    rows = ["| in results: `metrics/` | in Prometheus | kind, unit | labels | meaning |", "|---|---|---|---|---|"]
    for m in METRICS:
        name = f"`{m.name}" + "".join(f"/<{label}>" for label in m.labels) + "`"
        if m.kind == "histogram":
            name = ", ".join(f"`{m.name}/{part}`" for part in ("mean", "p50", "p95"))
        labels = ", ".join(m.labels) or "-"
        rows.append(f"| {name} | `{m.prometheus_name}` | {m.kind}, {m.unit} | {labels} | {m.meaning} |")
    return "\n".join(rows)


def docs_text(current: str) -> str:
    """docs/metrics.md with the table brought up to date.

    Args:
        current: Its text.

    Returns:
        Its new text.
    """
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{docs_table()}\n{END}{after}"


def write(root: Path) -> None:
    """Write the dashboard, and the table of docs/metrics.md.

    Args:
        root: Of the repository.
    """
    (root / DASHBOARD).parent.mkdir(parents=True, exist_ok=True)
    (root / DASHBOARD).write_text(dashboard_text(), encoding="utf-8")
    docs = root / DOCS
    docs.write_text(docs_text(docs.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
