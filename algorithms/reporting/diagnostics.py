"""Rules that tell when a run is worse than nothing: pure functions of logged results, each with what to try.

A series has one value for each result of a trial, in their order, NaN where a result has none. Returns are sums of
rewards over an episode, as a result has them: the mean of the last episodes, or the one episode's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RETURNS = ("episode_return_mean", "task_score")  # the first that results have
UPDATES = "num_updates"
REWARD_LOW, REWARD_HIGH, AT_BOUNDS = "reward_low", "reward_high", "actions_at_bounds"
EXPLAINED = "losses/reward_explained_variance"
ENV_STEPS = "env_steps"
PREDICTED, ACHIEVED = "predicted_reward", "achieved_reward"  # of a decision, means over a plan's horizon
RANDOM_MEAN, RANDOM_STD, RANDOM_EPISODES = "random_return_mean", "random_return_std", "random_episodes"
KEYS = (
    *(*RETURNS, ENV_STEPS, UPDATES, REWARD_LOW, REWARD_HIGH, AT_BOUNDS, EXPLAINED, PREDICTED, ACHIEVED),
    *(RANDOM_MEAN, RANDOM_STD, RANDOM_EPISODES),
)

ERRORS = 3.0  # standard errors by which a mean must lie below the random policy's
FEWEST_RESULTS = 3  # after the first update, before anything is said of them
WINDOWS = 6  # of a series that may fall, each of two results or more
FALL = 0.25  # of what was gained, that must be lost
FALL_DEVIATIONS = 3.0  # of single results around their windows' means, by which the fall must exceed noise
EQUAL_RESULTS = 10  # equal returns in a row, where results tell no rewards
EXPLAINED_SHARE = 0.05  # of the rewards' variance
EXPLAINED_UPDATES = 200  # before which a reward head need explain nothing
BOUNDS_SHARE = 0.9  # of the entries of actions
PROMISED = 1.5  # times the achieved return, from which on a predicted one is too high
PROMISED_SHARE = 0.02  # of the span of rewards, by which a predicted reward must exceed an achieved one besides


class Finding(NamedTuple):
    """A rule that a run breaks. label: for a status line. text: what was found. remedy: what to try."""

    rule: str
    label: str
    text: str
    remedy: str

    @property
    def sentence(self) -> str:
        """Text and remedy."""
        return f"{self.text}; {self.remedy}"


class Returns(NamedTuple):
    """Mean and standard deviation of some episodes' returns."""

    mean: float
    std: float
    episodes: float

    @classmethod
    def of(cls, returns: Sequence[float] | np.ndarray) -> Returns | None:
        """Those of single episodes; None of fewer than two, whose spread is not known."""
        known = np.asarray(returns, float)
        return cls(float(known.mean()), float(known.std(ddof=1)), known.size) if known.size > 1 else None

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.std / math.sqrt(self.episodes)


Series = Mapping[str, np.ndarray]
REMEDIES = {
    "worse_than_random": "look at its rewards with parsec doctor --env, plan further ahead, or train longer",
    "no_better_than_random": "train longer, plan further ahead, or see whether random actions reach any reward",
    "falling": "the best checkpoint is kept; lower the learning rate, or make fewer updates a step (train_ratio)",
    "no_reward": "random actions may never reach a reward: begin nearer to it, or reward progress towards it",
    "unexplained_reward": "raise loss.reward_weight or world_model.hidden_size; observe what rewards depend on",
    "overrated_plans": "gather more before learning (seed_episodes), look less far ahead (controller.horizon), or set "
    "world_model.ensemble and controller.pessimism",
    "actions_at_bounds": "widen the bounds of the task's actions, or penalise large ones in its reward",
}


def diagnose(series: Series, random: Returns | None = None) -> list[Finding]:
    """All that the rules find in the results of one trial so far.

    Args:
        series: By the keys of `KEYS`, those that the results have; all of the same length.
        random: The random policy's returns in the same task; by default those of the results themselves.

    Returns:
        The findings, the gravest first.
    """
    random = random or random_returns(series)
    found = (
        no_reward(series),
        worse_than_random(series, random),
        falling(series, random),
        unexplained_reward(series),
        overrated_plans(series),
        actions_at_bounds(series),
    )
    return [finding for finding in found if finding is not None]


def random_returns(series: Series) -> Returns | None:
    """The random policy's returns that the results themselves tell: those of the episodes before the first update.

    Args:
        series: Has `RANDOM_MEAN`, `RANDOM_STD` and `RANDOM_EPISODES` where the trial began with random actions.

    Returns:
        The last result's; None where results tell none, or of fewer than two episodes.
    """
    mean, std, episodes = (_known(series, key) for key in (RANDOM_MEAN, RANDOM_STD, RANDOM_EPISODES))
    if not (mean.size and std.size and episodes.size) or episodes[-1] < 2:
        return None
    return Returns(float(mean[-1]), float(std[-1]), float(episodes[-1]))


def worse_than_random(series: Series, random: Returns | None) -> Finding | None:
    """The mean of the last third of the results is more than ERRORS standard errors below the random policy's mean.

    Args:
        series: As `diagnose` takes it.
        random: The random policy's returns; without them nothing is found.

    Returns:
        The finding, or None. Results before the first update do not count.
    """
    last = _last_third(_trained(series, returns_of(series)))
    if last.size < 1 or random is None:
        return None
    spread = float(last.std(ddof=1)) if last.size > 1 else random.std
    return compared(Returns(float(last.mean()), spread, last.size), random, "training returns")


def compared(own: Returns, random: Returns, what: str = "its returns") -> Finding | None:
    """The mean of some episodes is more than ERRORS standard errors of the difference below the random policy's.

    Args:
        own: The agent's returns.
        random: The random policy's, in the same task.
        what: Whose returns they are, for the message.

    Returns:
        The finding, of the rule `worse_than_random`, or None.
    """
    error = math.hypot(own.error, random.error)
    if not own.mean < random.mean - max(ERRORS * error, 1e-9 * abs(random.mean)):
        return None
    text = f"{what} are worse than the random policy's ({own.mean:,.4g} against {random.mean:,.4g})"
    return _finding("worse_than_random", "worse than random", text)


def evaluated(own: Returns, random: Returns) -> Finding | None:
    """Judge evaluated episodes by the random policy's: worse, or at most a standard error of the difference above.

    Args:
        own: The agent's returns.
        random: The random policy's, in the same task.

    Returns:
        The finding, or None.
    """
    worse = compared(own, random, "evaluated returns")
    if worse is not None or own.mean > random.mean + math.hypot(own.error, random.error):
        return worse
    text = f"evaluated returns are no better than the random policy's ({own.mean:,.4g} against {random.mean:,.4g})"
    return _finding("no_better_than_random", "no better than random", text)


def falling(series: Series, random: Returns | None) -> Finding | None:
    """The last two of WINDOWS equal pieces both lie far below the best of the others.

    Far is more than FALL of what the best piece is above the random policy's mean, more than FALL_DEVIATIONS standard
    deviations of single results around their pieces' means, and more than the standard deviation of the random
    policy's episodes. The last one counts because results are means of overlapping episodes: their own scatter is
    small, and they wander.

    Args:
        series: As `diagnose` takes it.
        random: The random policy's returns; without them nothing is found.

    Returns:
        The finding, or None. Fewer than 2 * WINDOWS results after the first update are too few.
    """
    values = _trained(series, returns_of(series))
    if values.size < 2 * WINDOWS or random is None:
        return None
    pieces = np.array_split(values, WINDOWS)
    means = np.array([piece.mean() for piece in pieces])
    noise = math.sqrt(sum(((piece - piece.mean()) ** 2).sum() for piece in pieces) / (values.size - WINDOWS))
    best, now = means[:-2].max(), means[-2:].max()
    if not best - now > max(FALL * (best - random.mean), FALL_DEVIATIONS * noise, random.std, 1e-9 * abs(best)):
        return None
    text = f"training returns fall ({means[-1]:,.4g} in the last sixth, {best:,.4g} in the best)"
    known = np.isfinite(returns_of(series))
    steps = series.get(ENV_STEPS, np.empty(0))
    steps = _trained(series, np.where(known, steps, np.nan)) if steps.size == known.size else np.empty(0)
    if steps.size == values.size:
        last_of_best = sum(piece.size for piece in pieces[: int(means[:-2].argmax()) + 1]) - 1
        fallen = f"{steps[-1] - steps[last_of_best]:,.0f} steps"
        text = f"training returns have fallen for {fallen} (from {best:,.4g} to {means[-1]:,.4g})"
    return _finding("falling", "returns fall", text)


def no_reward(series: Series) -> Finding | None:
    """All rewards so far are equal, and so are all returns or all rewards are 0.

    A reward of 1 for each step tells something where episodes end early. Where results tell no rewards, EQUAL_RESULTS
    equal returns stand for them.

    Args:
        series: As `diagnose` takes it.

    Returns:
        The finding, or None.
    """
    returns, low, high = returns_of(series), _known(series, REWARD_LOW), _known(series, REWARD_HIGH)
    returns = returns[np.isfinite(returns)]
    same = returns.size > 0 and float(np.ptp(returns)) == 0.0
    if low.size >= FEWEST_RESULTS and high.size:
        if low.min() != high.max() or not (low.min() == 0.0 or same):
            return None
        text = f"there is no reward signal: every reward so far is {low.min():.4g}"
    elif not low.size and same and returns.size >= EQUAL_RESULTS:
        text = f"there is no reward signal: every return so far is {returns[0]:.4g}"
    else:
        return None
    return _finding("no_reward", "no reward signal", text)


def unexplained_reward(series: Series) -> Finding | None:
    """In the last third the model's rewards explain less than EXPLAINED_SHARE of the variance, after enough updates.

    Args:
        series: As `diagnose` takes it.

    Returns:
        The finding, or None; None too before EXPLAINED_UPDATES updates, and where `no_reward` finds something.
    """
    updates, explained = _known(series, UPDATES), _known(series, EXPLAINED)
    if explained.size < FEWEST_RESULTS or not updates.size or updates[-1] < EXPLAINED_UPDATES or no_reward(series):
        return None
    share = float(np.median(_last_third(explained)))
    if share >= EXPLAINED_SHARE:
        return None
    text = f"the model's rewards explain {max(share, 0.0):.0%} of the rewards' variance, so that plans seek nothing"
    return _finding("unexplained_reward", "rewards unexplained", text)


def overrated_plans(series: Series) -> Finding | None:
    """In the last third plans promise far more than is achieved over their horizon.

    Far more is PROMISED times as much where both are positive, nearer to zero by that factor where both are negative,
    and a difference of PROMISED_SHARE of the span of all rewards for each decision.

    Args:
        series: As `diagnose` takes it.

    Returns:
        The finding, or None; None too before EXPLAINED_UPDATES updates, and where the results do not tell both returns.
    """
    predicted, achieved, updates = (_known(series, key) for key in (PREDICTED, ACHIEVED, UPDATES))
    if min(predicted.size, achieved.size) < FEWEST_RESULTS or not updates.size or updates[-1] < EXPLAINED_UPDATES:
        return None
    promise, result = (float(np.median(_last_third(values))) for values in (predicted, achieved))
    low, high = _known(series, REWARD_LOW), _known(series, REWARD_HIGH)
    span = float(high.max() - low.min()) if low.size and high.size else 0.0
    apart = promise - result
    if apart <= max((PROMISED - 1) * min(abs(result), abs(promise)), PROMISED_SHARE * span):
        return None
    if result > 0:
        text = f"the predicted return is {promise / result:.1f} times the achieved one"
    else:
        text = "the predicted return is far above the achieved one"
    numbers = f"{promise:,.3g} against {result:,.3g} a decision, over the horizon of plans"
    return _finding("overrated_plans", "plans overrated", f"{text} ({numbers})")


def actions_at_bounds(series: Series) -> Finding | None:
    """In the last third BOUNDS_SHARE or more of all entries of actions lie at their bounds.

    Args:
        series: As `diagnose` takes it.

    Returns:
        The finding, or None. Results before the first update do not count.
    """
    shares = _trained(series, series.get(AT_BOUNDS, np.empty(0)))
    if shares.size < FEWEST_RESULTS or (share := float(_last_third(shares).mean())) < BOUNDS_SHARE:
        return None
    return _finding("actions_at_bounds", "actions at bounds", f"{share:.0%} of all actions lie at their bounds")


def series_of(column: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Gather what `diagnose` takes.

    Args:
        column: A key of a result -> its values [n], a result each, NaN where a result has none.

    Returns:
        The values by each key of `KEYS`.
    """
    return {key: column(key) for key in KEYS}


def returns_of(series: Series) -> np.ndarray:
    """The returns, by whichever key the results have them.

    Args:
        series: As `diagnose` takes it.

    Returns:
        [n], of the first of `RETURNS` with a finite value; empty where none has one.
    """
    found = (series[key] for key in RETURNS if key in series and np.isfinite(series[key]).any())
    return next(found, np.empty(0))


def _finding(rule: str, label: str, text: str) -> Finding:
    return Finding(rule, label, text, REMEDIES[rule])


def _known(series: Series, key: str) -> np.ndarray:
    values = series.get(key, np.empty(0))
    return values[np.isfinite(values)]


def _trained(series: Series, values: np.ndarray) -> np.ndarray:
    """The finite values after the first update, of results that count updates; none where they are too few."""
    updates = series.get(UPDATES, np.empty(0))
    if updates.size == values.size and np.isfinite(updates).any():
        values = values[updates > 0]
    values = values[np.isfinite(values)]
    return values if values.size >= FEWEST_RESULTS else np.empty(0)


def _last_third(values: np.ndarray) -> np.ndarray:
    return values[-math.ceil(values.size / 3) :] if values.size else values
