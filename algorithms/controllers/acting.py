"""Acting with a trained agent: the task's own observations in, the task's own actions out, numpy alone.

Axes: B environments, O observation, A action. Whoever acts needs neither Ray nor the environment: the agent knows the
task's spaces.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from torch import Tensor

from parsecrl.algorithms.controllers.agent import PlanningAgent

State = dict[str, NDArray[Any]]
Generator = np.random.Generator

NOISES_KEPT = 32  # of seeds: a noise may take megabytes
NOISE_ROLE = 0xE0A2  # in a seed sequence: (seed, role) gives a stream of its own


class Policy(Protocol):
    """Decides for B environments at once."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """Tensors [B, ...] by name, at least one of them."""

    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: Generator | None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """obs [B, O] -> an action for each environment [B, ...], and the next state."""

    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """As `act` without rng, with the draws of a seed [B] for each environment."""


class Decision(NamedTuple):
    """What one environment is told, and what its next decision begins with."""

    action: NDArray[Any]
    state: State


class ControlPolicy(Policy, Protocol):
    """A policy of a control task, which an evaluation can play."""

    @property
    def kind(self) -> str:
        """What the column `controller` says."""

    @property
    def sizes(self) -> tuple[int, int]:
        """O and A: entries of an observation and of an action."""

    def to(self, device: str) -> ControlPolicy:
        """The policy itself, which decides on this device from now on."""

    def begin(self, envs: Mapping[int, Any]) -> None:
        """Episodes begin in these environments, by row: for one that looks at more than the observations."""


class TrainedAgent:
    """A trained policy between a task's own observations and actions; one environment, or a batch of them.

    `state` is a dict of arrays: those of a batch have a leading axis B, those of one environment have not. Copy the
    rows of an `initial_state` into a batch's to begin these environments' episodes anew.

    Args:
        policy: Between flat observations and actions.
        observation_space: The task's own, as the policy was trained.
        action_space: The task's own.
        read: Makes a float32 vector [O] of an observation; ValueError says what of it does not fit.
        convert: Makes an action of the task of one of the policy.
        description: What the checkpoint says of itself.
    """

    def __init__(
        self,
        policy: Policy,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        read: Callable[[Any], NDArray[np.float32]],
        convert: Callable[[Any], Any],
        description: Mapping[str, Any],
    ):
        self.observation_space, self.action_space = observation_space, action_space
        self.description = dict(description)
        self._policy, self._read, self._convert = policy, read, convert

    @property
    def policy(self) -> Policy:
        """Between vectors of observations and actions of the policy's own."""
        return self._policy

    def initial_state(self, batch_size: int | None = None) -> State:
        """The state before an episode's first observation.

        Args:
            batch_size: B, at least 1; None for one environment, whose observations have no batch axis.

        Returns:
            Arrays by name, with a leading axis B of a batch.

        Raises:
            ValueError: batch_size is less than 1.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for one environment, got {batch_size}")
        return _arrays(self._policy.initial_state(batch_size or 1), batch_size is not None)

    def act(self, obs: Any, state: State, generator: Generator | None = None) -> tuple[NDArray[Any], State]:
        """One decision.

        Args:
            obs: As the task returns it; of B environments as gymnasium's vector environments stack it.
            state: What `initial_state` or the last `act` returned.
            generator: For actions that differ from call to call: a planner draws its candidates anew, a policy over
                discrete actions draws its action. None: the same observations always lead to the same actions, those of
                `parsec evaluate` with this seed, one episode at a time; a policy takes its most probable action.

        Returns:
            The action, as the task takes it (its bounds, shape and dtype; stacked for a batch), and the next state.

        Raises:
            ValueError: obs is not one of the task's, or not finite, or state is of another batch size or agent.
        """
        batch_size = self._batch_size(state)
        rows = [obs] if batch_size is None else self._rows(obs, batch_size)
        vectors = np.stack([self.vector(row) for row in rows])
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        if batch_size is None:
            tensors = {name: value[None] for name, value in tensors.items()}
        action, after = self._policy.act(tensors, torch.from_numpy(vectors), generator)
        actions = [self._convert(row) for row in action]
        return np.stack(actions) if batch_size is not None else actions[0], _arrays(after, batch_size is not None)

    def act_apart(self, obs: Sequence[Any], states: Sequence[State], seeds: Sequence[int]) -> list[Decision]:
        """Decisions of environments that have nothing in common but the agent, planned in one batch.

        Each is that of `load_agent(path, seed)` acting alone, up to the rounding of larger matrix products.

        Args:
            obs: An observation of each environment, as the task returns it.
            states: Of one environment each, without a batch axis.
            seeds: Of each environment's candidates, at least 0.

        Returns:
            Action and next state of each.

        Raises:
            ValueError: As `act`.
        """
        vectors = np.stack([self.vector(row) for row in obs])
        for state in states:
            if self._batch_size(state) is not None:
                raise ValueError("each state must be of one environment, got a batch; begin with agent.initial_state()")
        stacked = {name: torch.from_numpy(np.stack([state[name] for state in states])) for name in states[0]}
        actions, after = self._policy.act_seeded(stacked, torch.from_numpy(vectors), seeds)
        parts = _arrays(after, True)
        return [
            Decision(self._convert(action), {name: value[row] for name, value in parts.items()})
            for row, action in enumerate(actions)
        ]

    def vector(self, obs: Any) -> NDArray[np.float32]:
        """An observation of the task as the policy sees it.

        Args:
            obs: As the task returns it.

        Returns:
            float32 [O].

        Raises:
            ValueError: The observation is not one of the task's, or not finite.
        """
        try:
            return self._read(obs)
        except ValueError as error:
            raise ValueError(
                f"obs{error}; give it as the task returns it, and those of a batch after "
                f"agent.initial_state(batch_size)"
            ) from error

    def _batch_size(self, state: State) -> int | None:
        one = self._policy.initial_state(1)
        if not isinstance(state, Mapping) or state.keys() != one.keys():
            got = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must hold {', '.join(one)}, got {got}; begin with agent.initial_state()")
        shapes = {name: np.shape(value) for name, value in state.items()}
        own = {name: tuple(value.shape[1:]) for name, value in one.items()}
        if shapes == own:
            return None
        sizes = {shape[0] for name, shape in shapes.items() if shape[1:] == own[name] and len(shape) > len(own[name])}
        if len(sizes) != 1 or any(len(shape) <= len(own[name]) for name, shape in shapes.items()):
            raise ValueError(f"state must have the shapes {own}, or these with a batch axis, got {shapes}")
        return sizes.pop()

    def _rows(self, obs: Any, batch_size: int) -> list[Any]:
        try:
            rows = list(iterate(batch_space(self.observation_space, batch_size), obs))
        except (TypeError, ValueError, KeyError, IndexError):
            rows = []
        if len(rows) != batch_size:
            raise ValueError(
                f"obs must be those of {batch_size} environments, as state is, stacked in {self.observation_space}; "
                f"begin with agent.initial_state(batch_size)"
            )
        return rows


class PlanningPolicy:
    """A PlanningAgent as a Policy.

    Args:
        agent: Set to evaluation.
        seed: Of the planner's candidates, as in `parsec evaluate`.
    """

    def __init__(self, agent: PlanningAgent, seed: int = 0):
        self.agent, self._noise = agent.eval(), planning_noise(agent, seed)
        self._noises: dict[int, Any] = {}  # by seed

    def _noise_of(self, seed: int) -> Any:
        if seed not in self._noises:
            while len(self._noises) >= NOISES_KEPT:
                del self._noises[next(iter(self._noises))]
            self._noises[seed] = planning_noise(self.agent, seed)
        return self._noises[seed]

    @property
    def kind(self) -> str:
        """The controller's: full, embedded or module:name."""
        return self.agent.kind

    @property
    def sizes(self) -> tuple[int, int]:
        """O and A, of the world model."""
        return self.agent.model.obs_size, self.agent.model.action_size

    def to(self, device: str) -> PlanningPolicy:
        """The policy itself, which plans on this device from now on."""
        self.agent, self._noise = self.agent.to(device), self._noise.to(device)
        return self

    def begin(self, envs: Mapping[int, Any]) -> None:
        """Nothing: the observations are all that it looks at."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The state before the first observations, of batch_size environments."""
        return self.agent.initial_state(batch_size)

    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """obs [B, O] -> actions [B, A] in [-1, 1], and the state after; rng draws the candidates anew."""
        noise = self._noise
        if rng is not None:
            noise = torch.from_numpy(rng.standard_normal(tuple(noise.shape), dtype=np.float32)).to(noise.device)
        action, after = self.agent.act(state, obs, noise=noise)
        return action.cpu().numpy(), after

    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """As `Policy.act_seeded`; rows of one seed share its noise."""
        noises = [self._noise_of(seed) for seed in (seeds if len(set(seeds)) > 1 else seeds[:1])]
        action, after = self.agent.act(state, obs, noise=torch.cat(noises, 1))
        return action.numpy(), after


def planning_noise(agent: PlanningAgent, seed: int, device: str | torch.device = "cpu") -> Tensor:
    """The solver's standard normal draws [num_iterations, 1, N, n], the same for every decision of every episode.

    They make the controller a deterministic function of the belief. Drawn on the CPU: every device gets the same.

    Args:
        agent: Whose controller plans.
        seed: Of the draws.
        device: Where they are needed.

    Returns:
        [num_iterations, 1, N, n] on the device.
    """
    num_iterations, num_samples, size = agent.controller.noise_shape
    shape = (num_iterations, 1, num_samples, size)
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, NOISE_ROLE]).generate_state(1)[0]))
    return torch.randn(shape, generator=generator).to(device)


def _arrays(state: dict[str, Tensor], batched: bool) -> State:
    return {name: (value if batched else value[0]).numpy().copy() for name, value in state.items()}


# Spaces as agent.json holds them.


def describe_space(space: spaces.Space) -> dict[str, Any]:
    """The space as JSON holds it; `space_of` is the way back.

    Args:
        space: Of a task's observations or actions.

    Returns:
        Plain data with `kind`, and what makes a space of that kind.

    Raises:
        ValueError: It is of a kind that has no flat vector of a fixed size.
    """
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {name: describe_space(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [describe_space(part) for part in space.spaces]}
    if isinstance(space, spaces.Box):
        bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": np.array(space.n).tolist()}
    raise ValueError(f"an agent can act in spaces that flatten to a vector, got {space}; wrap the task")


def space_of(description: Mapping[str, Any]) -> spaces.Space:
    """The space that `describe_space` described.

    Args:
        description: As JSON holds it.

    Returns:
        The space.

    Raises:
        ValueError: The kind is unknown.
    """
    d = dict(description)
    kind = d.pop("kind", None)
    if kind == "Dict":
        return spaces.Dict(OrderedDict((name, space_of(part)) for name, part in d["spaces"].items()))  # not sorted
    if kind == "Tuple":
        return spaces.Tuple([space_of(part) for part in d["spaces"]])
    if kind == "Box":
        dtype: Any = np.dtype(d["dtype"])
        read: Any = np.float64 if dtype.kind == "f" else dtype  # float64 reads "inf", and holds no large whole number
        low, high = (np.broadcast_to(np.array(d[side], read).astype(dtype), d["shape"]) for side in ("low", "high"))
        return spaces.Box(low, high, tuple(d["shape"]), dtype)
    makers: dict[Any, Any] = {
        "Discrete": spaces.Discrete,
        "MultiDiscrete": _multi_discrete,
        "MultiBinary": spaces.MultiBinary,
    }
    if kind not in makers:
        raise ValueError(f"the kind of a space must be one of Dict, Tuple, Box, {', '.join(makers)}, got {kind!r}")
    return makers[kind](**d)


def _multi_discrete(nvec: Any, start: Any) -> spaces.MultiDiscrete:
    return spaces.MultiDiscrete(np.array(nvec), start=np.array(start))


def _numbers(bound: NDArray[Any]) -> Any:
    """One number where all are the same, otherwise a nested list; what is infinite as text, which JSON cannot say."""
    values = np.unique(bound).tolist()
    if len(values) == 1:
        return _number(values[0])
    return np.vectorize(_number, otypes=[object])(bound.astype(object)).tolist()


def _number(x: float) -> float | str:
    return x if math.isfinite(x) else str(x)
