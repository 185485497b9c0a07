"""A simulation, event by event, of what platform/capacity describes by formulas: runners, processes, driver, storage.

Each trial is the loop of `Planet.training_step` and of Tune around it. Runners gather fragments; the main process
fetches those that are ready, asks their runners for new ones with the weights of that moment, and learns from them;
every so many fragments it reports a result to the driver, and waits for it; every so many results it writes a
checkpoint to the storage. Driver and storage serve all trials, one after the other; a trial's
processes share its cores.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from parsecrl.algorithms.registry.workload import Constants, Stage


class Outcome(NamedTuple):
    """Of the second half of the simulated time, in which the start is forgotten."""

    fragments_per_s: float  # of a trial, mean over the trials
    driver_busy: float  # share of the time
    storage_busy: float


class Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def step(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()


class Server:
    """Serves one request at a time, in the order of arrival."""

    def __init__(self, clock: Clock):
        self.clock, self.free, self.busy_s = clock, 0.0, 0.0

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        self.free = max(self.free, self.clock.now) + seconds
        self.busy_s += seconds
        self.clock.after(self.free - self.clock.now, then)


class Cores:
    """Work of several processes, each on one core at most; they share alike where there are fewer cores."""

    def __init__(self, clock: Clock, cores: float):
        self.clock, self.cores = clock, cores
        self._left: dict[int, tuple[float, Callable[[], None]]] = {}  # process -> core seconds, what follows
        self._since, self._version = 0.0, 0
        self._names = itertools.count()

    def work(self, seconds: float, then: Callable[[], None]) -> None:
        self._advance()
        self._left[next(self._names)] = (seconds, then)
        self._plan()

    @property
    def _speed(self) -> float:
        return min(1.0, self.cores / max(len(self._left), 1))

    def _advance(self) -> None:
        done = (self.clock.now - self._since) * self._speed
        self._left = {name: (left - done, then) for name, (left, then) in self._left.items()}
        self._since = self.clock.now

    def _plan(self) -> None:
        self._version += 1
        if self._left:
            name, (left, _) = min(self._left.items(), key=lambda item: item[1][0])
            version = self._version
            self.clock.after(max(0.0, left) / self._speed, lambda: self._finish(name, version))

    def _finish(self, name: int, version: int) -> None:
        if version == self._version:  # otherwise something has begun or ended since
            self._advance()
            _, then = self._left.pop(name)
            self._plan()
            then()


class Trial:
    """One trial's runners and main process."""

    def __init__(self, stage: Stage, constants: Constants, shared: Shared, rng: np.random.Generator):
        self.stage, self.constants, self.shared, self.rng = stage, constants, shared, rng
        self.clock, self.cores = shared.clock, Cores(shared.clock, stage.cores)
        self.ready, self.fragments, self.results, self.fetching = 0, 0, 0, True
        self.since_result = 0
        for _ in range(max(stage.runners, 1)):
            self.gather(first=True)

    def spread(self, seconds: float) -> float:
        """A duration, varied by the spread: gamma distributed, of that mean."""
        spread = self.shared.spread
        return seconds * self.rng.gamma(spread**-2, spread**2) if spread else seconds

    def gather(self, first: bool = False) -> None:
        # Runners begin at different moments, and a device's part of the work needs no core.
        share = self.rng.random() if first and self.stage.overlaps else 1.0
        seconds = self.spread(self.stage.gather_s) * share
        on_cores = seconds * self.stage.gather_core_s / self.stage.gather_s
        self.clock.after(seconds - on_cores, lambda: self.cores.work(on_cores, self.gathered))

    def gathered(self) -> None:
        self.ready += 1
        if self.fetching:
            self.fetch()

    def fetch(self) -> None:
        needed = 1 if self.stage.overlaps else max(self.stage.runners, 1)
        self.fetching = self.ready < needed
        if self.fetching:
            return
        count, self.ready = self.ready, 0
        if self.stage.overlaps:
            for _ in range(count):
                self.gather()
        seconds = sum(self.spread(self.stage.learn_s) for _ in range(count))
        on_cores = seconds * self.stage.learn_core_s / self.stage.learn_s
        self.clock.after(seconds - on_cores, lambda: self.cores.work(on_cores, lambda: self.learned(count)))

    def learned(self, count: int) -> None:
        self.fragments += count
        self.since_result += count
        if self.since_result < self.stage.per_iteration:
            self.go_on()
            return
        self.since_result = 0
        self.results += 1
        due = self.results % self.stage.iterations_per_checkpoint == 0
        self.shared.driver.serve(self.shared.event_s(self.constants.result_s), self.save if due else self.go_on)

    def save(self) -> None:
        c, s = self.constants, self.stage
        write_s = s.checkpoint_bytes / c.storage_bytes_per_s
        self.cores.work(
            s.checkpoint_s,
            lambda: self.shared.storage.serve(
                write_s, lambda: self.shared.driver.serve(self.shared.event_s(c.driver_checkpoint_s), self.go_on)
            ),
        )

    def go_on(self) -> None:
        if not self.stage.overlaps:
            for _ in range(max(self.stage.runners, 1)):
                self.gather()
        self.fetch()


class Shared:
    """What all trials share."""

    def __init__(self, constants: Constants, trials: int, spread: float):
        self.clock, self.spread = Clock(), spread
        self.driver, self.storage = Server(self.clock), Server(self.clock)
        self.constants, self.state_s = constants, trials * constants.state_s
        self.saved = 0.0

    def event_s(self, seconds: float) -> float:
        """An event of the driver; every few seconds it also saves the state of all trials."""
        if self.clock.now - self.saved < self.constants.state_period_s:
            return seconds
        self.saved = max(self.driver.free, self.clock.now) + seconds + self.state_s
        return seconds + self.state_s


def simulate(
    stage: Stage,
    constants: Constants,
    trials: int = 1,
    concurrent: int = 1,
    *,
    spread: float = 0.1,
    seed: int = 0,
    checkpoints: int = 20,
) -> Outcome:
    """Simulate `concurrent` trials until each has written about `checkpoints` checkpoints.

    spread: standard deviation of a fragment's and of an update's duration, relative to its mean.
    """
    shared = Shared(constants, trials, spread)
    rng = np.random.default_rng(seed)
    running = [Trial(stage, constants, shared, rng) for _ in range(concurrent)]
    wanted = concurrent * checkpoints * stage.iterations_per_checkpoint * stage.per_iteration
    marks: list[Any] = []
    for share in (0.5, 1.0):
        while (done := sum(trial.fragments for trial in running)) < share * wanted:
            for _ in range(concurrent):
                shared.clock.step()
        marks.append((shared.clock.now, done, shared.driver.busy_s, shared.storage.busy_s))
    seconds, fragments, driver, storage = np.subtract(marks[1], marks[0])
    return Outcome(fragments / seconds / concurrent, driver / seconds, storage / seconds)
