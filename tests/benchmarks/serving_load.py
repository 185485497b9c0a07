"""How a service behaves under load, on the loopback interface alone.

    python tests/benchmarks/serving_load.py [AGENT] [SECONDS]

prints a table: clients, latency of a decision, plans a second, answers of status 503. Each client is a thread with an
episode of its own that asks for its next decision once it has the last; the last row has room for 16 requests alone.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

import numpy as np

import parsecrl
from parsecrl.platform.exchange.limits import Limits
from parsecrl.platform.exchange.serving import HOST, Service

CLIENTS = ((1, 128), (8, 128), (64, 128), (64, 16))  # and max_waiting


def ask(connection: http.client.HTTPConnection, service: Service, path: str, body: object) -> tuple[int, dict]:
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"{}")


def play(service: Service, observations: list, until: float, found: list[tuple[int, float]]) -> None:
    connection = http.client.HTTPConnection(HOST, service.port, timeout=120)
    _, begun = ask(connection, service, "/sessions", {"seed": 0})
    for observation in observations:
        start = time.perf_counter()
        if start > until:
            break
        status, _ = ask(connection, service, f"/sessions/{begun['session']}/act", {"observation": observation})
        found.append((status, time.perf_counter() - start))
        if status == 503:
            time.sleep(0.1)
    connection.close()


def measure(service: Service, observations: list, clients: int, seconds: float) -> tuple[float, float, float, int, set]:
    found: list[tuple[int, float]] = []
    begin = time.perf_counter()
    threads = [
        threading.Thread(target=play, args=(service, observations, begin + seconds, found)) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    good = 1e3 * np.array([latency for status, latency in found if status == 200])
    refused = sum(status == 503 for status, _ in found)
    p50, p99 = np.percentile(good, [50, 99])
    return p50, p99, len(good) / took, refused, {status for status, _ in found}


def main(agent: str = "pretrained:pendulum", seconds: float = 20.0) -> None:
    space = parsecrl.load_agent(agent).observation_space
    space.seed(0)
    observations = [space.sample().tolist() for _ in range(10_000)]  # a bound of its own on every client's requests
    print(
        "| clients | max_waiting | p50, ms | p99, ms | plans a second | 503 | statuses |\n|---|---|---|---|---|---|---|"
    )
    for clients, waiting in CLIENTS:
        with Service(agent, 0, limits=Limits(max_waiting=waiting)) as service:
            measure(service, observations, 1, 2.0)  # warm
            p50, p99, rate, refused, seen = measure(service, observations, clients, seconds)
        statuses = " ".join(map(str, sorted(seen)))
        print(f"| {clients} | {waiting} | {p50:.0f} | {p99:.0f} | {rate:.1f} | {refused} | {statuses} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
