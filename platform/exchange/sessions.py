"""The beliefs of a service's clients: bounded in number, each forgotten once its client is silent for long."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from parsecrl.algorithms.controllers.acting import State


class SessionsFull(Exception):
    """As many sessions are in use, or as many requests wait, as may."""


class SessionGone(Exception):
    """There is no session of the name, or it has expired."""


class SessionBusy(Exception):
    """The session's last decision is not made yet."""


@dataclass
class Session:
    """One client's episode."""

    seed: int  # of the planner's candidates
    state: State
    used: float  # seconds of the clock
    decisions: int = 0
    busy: bool = False


class Sessions:
    """The sessions of one service, used from one thread.

    Args:
        most: How many there may be, at least 1.
        idle_s: Seconds without a decision after which a session is forgotten.
        clock: In seconds.
    """

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float] = time.monotonic):
        self.most, self.idle_s, self._clock = most, idle_s, clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the one used longest ago first

    def __len__(self) -> int:
        self._forget()
        return len(self._sessions)

    def begin(self, state: State, seed: int) -> str:
        """Begin a session.

        Args:
            state: Of one environment, before its first observation.
            seed: Of the planner's candidates.

        Returns:
            The name, which nobody can guess.

        Raises:
            SessionsFull: There are as many as there may be.
        """
        if len(self) >= self.most:
            raise SessionsFull(
                f"all {self.most} sessions are in use; end one, or wait: a session ends after {self.idle_s:g} s "
                f"without a decision"
            )
        name = secrets.token_urlsafe(16)
        self._sessions[name] = Session(seed, state, self._clock())
        return name

    @contextmanager
    def taken(self, name: str) -> Iterator[Session]:
        """A session for one decision.

        Args:
            name: Of the session.

        Yields:
            The session, which nobody else can take meanwhile.

        Raises:
            SessionGone: There is none.
            SessionBusy: Somebody has it.
        """
        self._forget()
        session = self._sessions.get(name)
        if session is None:
            raise SessionGone(
                f"there is no such session, or {self.idle_s:g} s passed without a decision; POST /sessions begins one"
            )
        if session.busy:
            raise SessionBusy("the session's last decision is not made yet; send one observation at a time")
        session.busy = True
        try:
            yield session
        finally:
            session.busy, session.used = False, self._clock()
            if name in self._sessions:
                self._sessions.move_to_end(name)

    def end(self, name: str) -> None:
        """Forget a session. Raises SessionGone where there is none."""
        with self.taken(name):
            del self._sessions[name]

    def _forget(self) -> None:
        oldest = self._clock() - self.idle_s
        for name in [name for name, session in self._sessions.items() if session.used < oldest and not session.busy]:
            del self._sessions[name]
