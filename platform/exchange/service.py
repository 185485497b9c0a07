"""The deployment of `parsec serve`: one replica that plans for all its clients in batches.

A request that is cut off, or fails, leaves its session's belief as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from ray import serve

from parsecrl.algorithms.controllers.acting import Decision, describe_space
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.exchange.http_app import STATUS, make_app
from parsecrl.platform.exchange.limits import Limits
from parsecrl.platform.exchange.sessions import Sessions, SessionsFull

BATCH_WAIT_S = 0.002  # for more clients to come, once one is there
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class _Work(NamedTuple):
    observation: Any
    state: dict[str, Any]
    seed: int


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: Any = {"registry": self.registry}
        self.requests = Counter("parsec_serve_requests", "Decisions that were asked for, by status", ["status"], **of)
        self.seconds = Histogram("parsec_serve_request_seconds", "From request to action", **of)
        self.planning = Histogram("parsec_serve_plan_seconds", "Of a batch", **of)
        self.batch = Histogram("parsec_serve_batch_size", "Plans of a batch", buckets=BATCH_SIZES, **of)
        self.sessions = Gauge("parsec_serve_sessions", "Sessions in use", **of)
        self.waiting = Gauge("parsec_serve_waiting", "Requests that wait for their action", **of)


class AgentService:
    """The agent, its clients' beliefs, and a thread that plans.

    Args:
        checkpoint: As `load_agent` takes it.
        token: That requests must show.
        limits: See `Limits`.
        trust: As `load_agent` has it.
        num_threads: Of torch.
    """

    def __init__(self, checkpoint: str, token: str, limits: Limits, trust: bool, num_threads: int):
        torch.set_num_threads(num_threads)
        self.agent = load_agent(checkpoint, trust=trust)
        self.limits, self._token = limits, token
        self.sessions = Sessions(limits.max_sessions, limits.session_idle_s)
        self.metrics = _Metrics()
        self.waiting = 0
        self._thread = ThreadPoolExecutor(1, "planner")  # the loop goes on answering while it plans
        self.plan.set_max_batch_size(limits.max_batch_size)

    def __serve_build_asgi_app__(self) -> Any:  # Serve's name
        return make_app(self, self._token)

    def describe(self) -> dict[str, Any]:
        """The agent's spaces and task, and the limits of the service."""
        described = self.agent.description
        return {
            "observation_space": describe_space(self.agent.observation_space),
            "action_space": describe_space(self.agent.action_space),
            **{key: described.get(key) for key in ("algorithm", "env", "version")},
            "limits": self.limits._asdict(),
        }

    def measured(self) -> bytes:
        """The metrics in Prometheus' text format."""
        self.metrics.sessions.set(len(self.sessions))
        return generate_latest(self.metrics.registry)

    def begin(self, seed: int) -> str:
        """Begin a session; its name. Raises SessionsFull."""
        return self.sessions.begin(self.agent.initial_state(), seed)

    async def act(self, name: str, observation: Any, first: bool = False) -> tuple[Any, int]:
        """Decide.

        Args:
            name: Of the session.
            observation: As the task returns it, or as JSON has it.
            first: Whether it begins a new episode.

        Returns:
            The action as JSON takes it, and the number of the decision in the session.

        Raises:
            ValueError: The observation is not one of the task's.
            SessionGone: There is no session of the name.
            SessionBusy: The session's last decision is not made yet.
            SessionsFull: As many requests wait as may.
        """
        begun, status = time.perf_counter(), "cancelled"  # as it stays where the client goes away
        try:
            answer = await self._act(name, observation, first)
            status = "200"
        except tuple(STATUS) as error:
            status = str(next(code for kind, code in STATUS.items() if isinstance(error, kind)))
            raise
        finally:
            self.metrics.requests.labels(status).inc()
        self.metrics.seconds.observe(time.perf_counter() - begun)
        return answer

    async def _act(self, name: str, observation: Any, first: bool) -> tuple[Any, int]:
        with self.sessions.taken(name) as session:
            self.agent.vector(observation)
            if self.waiting >= self.limits.max_waiting:
                raise SessionsFull(f"{self.waiting} requests wait for a plan, as many as may; try again in a second")
            state = self.agent.initial_state() if first else session.state
            with self._counted():
                decision = await self.plan(_Work(observation, state, session.seed))
            if isinstance(decision, ValueError):
                raise decision
            session.state = decision.state
            session.decisions += 1
            return decision.action.tolist(), session.decisions - 1

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT_S)
    async def plan(self, works: list[_Work]) -> list[Any]:
        """The decisions of all who wait, or what is wrong with an observation."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._decide, works)

    def _decide(self, works: list[_Work]) -> list[Decision | ValueError]:
        begun = time.perf_counter()
        try:
            decisions: list[Any] = list(self.agent.act_apart(*zip(*works, strict=True)))
        except ValueError as error:  # of one row, such as costs that are not finite: the others shall not know of it
            decisions = [error] if len(works) == 1 else [self._decide([work])[0] for work in works]
        self.metrics.planning.observe(time.perf_counter() - begun)
        self.metrics.batch.observe(len(works))
        return decisions

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.waiting += 1
        self.metrics.waiting.set(self.waiting)
        try:
            yield
        finally:
            self.waiting -= 1
            self.metrics.waiting.set(self.waiting)
