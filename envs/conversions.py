"""Between a task's own spaces and plain numbers: observations to vectors or pictures, actions to the task's own.

Axes: O entries of a vector observation, A dimensions of an action.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces


class Misfit(ValueError):
    """What does not fit its space; the text says which part of it, the rule and the value."""


class Leaf(NamedTuple):
    """A part of an observation that has a place of its own in the vector."""

    where: str  # such as ['position']
    start: int
    shape: tuple[int, ...]
    write: Callable[[np.ndarray, Any], None]  # (vector, the whole observation)


class Vectors:
    """Observations of a space as float32 vectors [O], in the order of `gymnasium.spaces.flatten`; always a new array.

    A Dict comes in the order of its space, each Box in C order, what is Discrete one-hot. Numbers are cast to float32:
    a float64 observation keeps what 24 bits hold, 1e6 plus 0.01 becomes 1e6.

    Args:
        space: Of the observations, one of `is_vector`.
    """

    def __init__(self, space: spaces.Space):
        flat = spaces.flatten_space(space)
        assert isinstance(flat, spaces.Box)
        with np.errstate(over="ignore"):  # a bound of float64 that float32 has not is none
            low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
        self.space = spaces.Box(low, high, dtype=np.float32)
        self._size, self._zeros = len(low), np.zeros(len(low), np.float32)
        self._leaves: list[Leaf] = []
        self._add(space, "", 0, lambda obs: obs)

    @np.errstate(invalid="ignore", over="ignore")  # Misfit tells of both; a block costs twice as much
    def read(self, obs: Any) -> np.ndarray:
        """Turn one observation into a vector.

        Args:
            obs: Of the space.

        Returns:
            float32 [O], finite.

        Raises:
            Misfit: A part is missing, has another shape, is no number, lies outside a Discrete space, or is not finite.
        """
        vector = np.zeros(self._size, np.float32)
        for leaf in self._leaves:
            leaf.write(vector, obs)
        if vector.dot(self._zeros) != 0.0:  # the fastest look at every entry: nan and infinity times 0 are nan
            raise self._misfit(vector)
        return vector

    def _misfit(self, vector: np.ndarray) -> Misfit:
        index = int(np.flatnonzero(~np.isfinite(vector))[0])
        leaf = next(leaf for leaf in reversed(self._leaves) if leaf.start <= index)
        place = np.unravel_index(index - leaf.start, leaf.shape) if leaf.shape else ()
        entry = f"{leaf.where}[{', '.join(str(int(i)) for i in place)}]" if leaf.shape else leaf.where
        return Misfit(f"{entry} must be a finite number in float32, got {vector[index]}")

    def _add(self, space: spaces.Space, where: str, start: int, part: Callable[[Any], Any]) -> int:
        """Add the leaves of a space from an entry on; returns the entry behind them."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
            count = len(space.spaces) if isinstance(space, spaces.Tuple) else None
            for key, inner in items:
                start = self._add(inner, f"{where}[{key!r}]", start, _part(part, key, where, count))
            return start
        size = spaces.flatdim(space)
        shape = space.shape if isinstance(space, spaces.Box | spaces.MultiBinary) else (size,)
        write = _writer(space, where, slice(start, start + size), part)
        self._leaves.append(Leaf(where, start, shape or (), write))
        return start + size


def is_vector(space: Any) -> bool:
    """Say whether a space is made of Box, Discrete, MultiDiscrete and MultiBinary, with one number at the least.

    Args:
        space: Of anything.

    Returns:
        Whether `Vectors` takes it.
    """
    return _is_made_of_numbers(space) and spaces.flatdim(space) > 0


def _is_made_of_numbers(space: Any) -> bool:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return all(map(_is_made_of_numbers, parts))
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _part(whole: Callable[[Any], Any], key: Any, where: str, count: int | None) -> Callable[[Any], Any]:
    """Take a key of a dict, or an item of a tuple of `count`, out of what `whole` takes."""

    def take(obs: Any) -> Any:
        group = whole(obs)
        if count is not None and (not isinstance(group, tuple | list) or len(group) != count):
            raise Misfit(f"{where} must be a tuple of {count}, got {_short(group)}")
        if count is None and (not isinstance(group, Mapping) or key not in group):
            raise Misfit(f"{where} must be a dict with the key {key!r}, got {_short(group)}")
        return group[key]

    return take


def _writer(
    space: spaces.Space, where: str, span: slice, part: Callable[[Any], Any]
) -> Callable[[np.ndarray, Any], None]:
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        shape = space.shape

        def write(vector: np.ndarray, obs: Any) -> None:
            vector[span] = numbers(part(obs), where, shape).ravel()

    elif isinstance(space, spaces.Discrete):
        first, count = int(space.start), int(space.n)

        def write(vector: np.ndarray, obs: Any) -> None:
            value = numbers(part(obs), where, ()).item()
            if value != value or math.isinf(value) or int(value) != value or not 0 <= int(value) - first < count:
                raise Misfit(f"{where} must be a whole number from {first} to {first + count - 1}, got {value!r}")
            vector[span.start + int(value) - first] = 1.0

    else:
        assert isinstance(space, spaces.MultiDiscrete)
        shape, sizes, firsts = space.shape, space.nvec.ravel(), np.asarray(space.start).ravel()
        offsets = span.start + np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)

        def write(vector: np.ndarray, obs: Any) -> None:
            values = numbers(part(obs), where, shape).ravel()
            index = values.astype(np.int64) - firsts
            if (values != values.astype(np.int64)).any() or (index < 0).any() or (index >= sizes).any():
                raise Misfit(f"{where} must lie in {space}, got {_short(values)}")
            vector[offsets + index] = 1.0

    return write


class Pictures:
    """Observations that stay as they are: uint8 [height, width, channels]; always a new array.

    Args:
        space: Of the pictures.
    """

    def __init__(self, space: spaces.Box):
        self.space = space

    @np.errstate(invalid="ignore")
    def read(self, obs: Any) -> np.ndarray:
        """Copy one picture.

        Args:
            obs: Of the space, in any dtype whose numbers are whole and fit in 8 bits.

        Returns:
            uint8 of the space's shape.

        Raises:
            Misfit: It has another shape or other numbers.
        """
        array = numbers(obs, "", self.space.shape).reshape(self.space.shape)
        if array.dtype == np.uint8:
            return array.copy()
        picture = array.astype(np.uint8)
        if not (picture == array).all():
            raise Misfit(f" must hold whole numbers from 0 to 255, got {_short(array)}")
        return picture


def numbers(value: Any, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Check that a value is an array of numbers; a single number may come in any shape.

    Args:
        value: What came from the environment.
        where: What it is, for the message.
        shape: That it must have.

    Returns:
        The array, not copied; of one entry and any shape where that is asked for.

    Raises:
        Misfit: It holds other things, or has another shape.
    """
    try:
        array = np.asarray(value)
    except Exception as error:
        raise Misfit(f"{where} must be an array of numbers, got {_short(value)}") from error
    if array.dtype.kind not in "biuf":
        raise Misfit(f"{where} must be an array of numbers, got {_short(value)}")
    if array.shape != shape and not array.size == math.prod(shape) == 1:
        raise Misfit(f"{where} must have the shape {shape} of its space, got {array.shape}")
    return array


def action_of(space: spaces.Space) -> Callable[[Any], Any]:
    """Map actions of this side, in [-1, 1] or 0 ... n - 1, onto a task's own.

    Args:
        space: The task's, a bounded Box or Discrete.

    Returns:
        As `box_action` or `discrete_action`.
    """
    if isinstance(space, spaces.Discrete):
        return discrete_action(space)
    assert isinstance(space, spaces.Box)
    return box_action(space)


def box_action(box: spaces.Box) -> Callable[[Any], np.ndarray]:
    """Map [-1, 1]^A onto a bounded Box: -1 is its lower bound, 1 its upper one, exactly.

    A Box of whole numbers takes the nearest.

    Args:
        box: Of any shape and dtype.

    Returns:
        A function from an action [A] to a new one of the Box; it clips what is outside [-1, 1], and raises ValueError
        where the shape is another or an entry is nan.
    """
    dtype: Any = box.dtype
    own_low, own_high, shape = box.low.ravel(), box.high.ravel(), box.shape
    work = np.result_type(dtype, np.float64)
    low, high = own_low.astype(work), own_high.astype(work)
    middle, half = 0.5 * high + 0.5 * low, 0.5 * high - 0.5 * low
    # Where both bounds come out exactly, rounding, which is monotone, keeps all between them inside.
    is_plain = bool((middle + half == high).all() and (middle - half == low).all())
    size, is_whole = len(low), dtype.kind in "iu"
    one = np.ones(1, work)  # arrays: a Python number costs a step some time
    minus_one = -one
    if is_whole:  # the largest number of `work` that can be cast: 2**63 is one too many
        castable = np.nextafter(work.type(2.0 ** (8 * dtype.itemsize - (dtype.kind == "i"))), work.type(0.0))

    def convert(action: Any) -> np.ndarray:
        unit = np.asarray(action, work)
        if unit.shape != (size,):
            raise ValueError(f"an action must have the shape {(size,)}, got {unit.shape}")
        unit = np.minimum(np.maximum(unit, minus_one), one)
        if math.isnan(unit.dot(unit)):
            raise ValueError(f"an action must be of numbers, got {unit.tolist()}")
        if is_plain:
            value = unit * half + middle
        else:
            value = np.clip(0.5 * (one - unit) * low + 0.5 * (one + unit) * high, low, high)
        if dtype.kind != "f":
            value = np.rint(value)
        if is_whole:
            whole = np.minimum(value, castable).astype(dtype)
            whole = np.minimum(np.maximum(whole, own_low), own_high)  # float64 has not every number of 64 bits
            value = np.where(unit == one, own_high, np.where(unit == minus_one, own_low, whole))
        return value.astype(dtype).reshape(shape)

    return convert


def discrete_action(space: spaces.Discrete) -> Callable[[Any], np.integer]:
    """Map 0 ... n - 1 onto a Discrete space, whose numbers may begin elsewhere.

    Args:
        space: Of the actions.

    Returns:
        A function from a number to one of the space; it raises ValueError on any other number.
    """
    dtype: Any = space.dtype
    count, first, kind = int(space.n), int(space.start), dtype.type

    def convert(action: Any) -> np.integer:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < count:
            raise ValueError(f"an action must be a whole number from 0 to {count - 1}, got {action!r}")
        return kind(first + index)

    return convert


def _short(value: Any) -> str:
    """At most some characters of a value, on one line."""
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    said = " ".join(repr(value).split())
    return said if len(said) <= 80 else f"{said[:77]}..."
