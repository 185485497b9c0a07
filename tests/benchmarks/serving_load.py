"""How a service behaves under load, on the loopback interface alone.

    python tests/benchmarks/serving_load.py [AGENT] [SECONDS]

prints a table: clients, latency of a decision, plans a second, answers of status 503. Each client is a thread with an
episode of its own that asks for its next decision once it has the last. In one row there is room for 16 requests alone;
in two more somebody else sends requests and goes away before the answer, or sends what is no observation.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import parsecrl
from parsecrl.platform.exchange.limits import Limits
from parsecrl.platform.exchange.serving import HOST, Service

PAUSE_S = 0.05  # between two requests of somebody who disturbs
Statuses = list[int | None]  # None: nobody waited for the answer


class Result(NamedTuple):
    """Latencies in milliseconds; others: what those who disturb were answered."""

    p50: float
    p99: float
    rate: float
    refused: int
    statuses: set[int]
    others: Statuses


def ask(connection: http.client.HTTPConnection, service: Service, path: str, body: object) -> tuple[int, dict]:
    connection.request("POST", path, json.dumps(body), headers(service))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"{}")


def headers(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}


def connect(service: Service) -> tuple[http.client.HTTPConnection, str]:
    connection = http.client.HTTPConnection(HOST, service.port, timeout=120)
    _, begun = ask(connection, service, "/sessions", {"seed": 0})
    return connection, f"/sessions/{begun['session']}/act"


def play(service: Service, observations: list, until: float, found: list[tuple[int, float]]) -> None:
    connection, path = connect(service)
    for observation in observations:
        start = time.perf_counter()
        if start > until:
            break
        status, _ = ask(connection, service, path, {"observation": observation})
        found.append((status, time.perf_counter() - start))
        if status == 503:
            time.sleep(0.1)
    connection.close()


def go_away(service: Service, observations: list, until: float, found: Statuses) -> None:
    """Send whole requests, and close each connection before the answer."""
    connection, path = connect(service)
    connection.close()
    for observation in observations:
        if time.perf_counter() > until:
            break
        body = json.dumps({"observation": observation})
        lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers(service).items()]
        with socket.create_connection((HOST, service.port), timeout=60) as raw:
            raw.sendall("\r\n".join([*lines, "", body]).encode())
        found.append(None)
        time.sleep(PAUSE_S)


def send_nonsense(service: Service, observations: list, until: float, found: Statuses) -> None:
    """Send observations that have an entry too many."""
    connection, path = connect(service)
    for observation in observations:
        if time.perf_counter() > until:
            break
        status, _ = ask(connection, service, path, {"observation": [*observation, 0.0]})
        found.append(status)
        time.sleep(PAUSE_S)
    connection.close()


Disturb = Callable[[Service, list, float, Statuses], None]
ROWS: tuple[tuple[str, int, int, Disturb | None], ...] = (
    ("1 client", 1, 128, None),
    ("8 clients", 8, 128, None),
    ("64 clients", 64, 128, None),
    ("64 clients, beyond capacity", 64, 16, None),
    ("8 clients, another goes away", 8, 128, go_away),
    ("8 clients, another sends nonsense", 8, 128, send_nonsense),
)


def measure(
    service: Service, observations: list, clients: int, seconds: float, disturb: Disturb | None = None
) -> Result:
    found: list[tuple[int, float]] = []
    others: Statuses = []
    begin = time.perf_counter()
    until = begin + seconds
    threads = [threading.Thread(target=play, args=(service, observations, until, found)) for _ in range(clients)]
    if disturb is not None:
        threads.append(threading.Thread(target=disturb, args=(service, observations, until, others)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    good = 1e3 * np.array([latency for status, latency in found if status == 200])
    refused = sum(status == 503 for status, _ in found)
    p50, p99 = np.percentile(good, [50, 99])
    return Result(p50, p99, len(good) / took, refused, {status for status, _ in found}, others)


def main(agent: str = "pretrained:pendulum", seconds: float = 20.0) -> None:
    space = parsecrl.load_agent(agent).observation_space
    space.seed(0)
    observations = [space.sample().tolist() for _ in range(10_000)]  # a bound of its own on every client's requests
    print("| load | may wait | p50, ms | p99, ms | plans a second | 503 | statuses | of others |")
    print("|---|---|---|---|---|---|---|---|")
    for label, clients, waiting, disturb in ROWS:
        with Service(agent, 0, limits=Limits(max_waiting=waiting)) as service:
            measure(service, observations, 1, 2.0)  # warm
            found = measure(service, observations, clients, seconds, disturb)
        statuses = " ".join(map(str, sorted(found.statuses)))
        told = sorted({status for status in found.others if status is not None})
        others = f"{len(found.others)}: {' '.join(map(str, told)) or 'unanswered'}" if found.others else ""
        print(
            f"| {label} | {waiting} | {found.p50:.0f} | {found.p99:.0f} | {found.rate:.1f} | {found.refused} "
            f"| {statuses} | {others} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
