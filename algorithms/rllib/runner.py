"""Runners of a baseline: what an environment raises in one of another process reaches the trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from parsecrl.algorithms.training.user_errors import Failure


class BaselineEnvRunner(SingleAgentEnvRunner):
    """RLlib's EnvRunner, which keeps what was raised in it.

    RLlib takes an exception of a remote runner for a lost runner: it logs the exception, has the process wait for a
    minute and end, and asks the next one again.

    Args:
        **kwargs: RLlib's.
    """

    failure: Failure | None = None

    def sample(self, **kwargs: Any) -> Any:
        """As RLlib's."""
        try:
            return super().sample(**kwargs)
        except Exception as error:  # whatever the task or the module raises
            self.failure = Failure.of(error)
            raise

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As RLlib's, less the end of the process: what was raised is asked for."""
        return func(self, *args, **kwargs)


def failure_of(runner: Any) -> Failure | None:
    """What was raised in a runner.

    Args:
        runner: Any EnvRunner; a process that was started again knows of nothing.

    Returns:
        The failure, or None.
    """
    return getattr(runner, "failure", None)
