"""World models, controllers and planning costs of users' own: made as a spec says, and tried before use.

What is tried has a batch of two, so that a wrong shape or a NaN is an error of the spec and not of an hour's training.

Axes: B beliefs, N candidates, n solver variables, T steps, H horizon, O observation, A action, D and S of a belief.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.controller import Controller, Plan
from parsecrl.algorithms.controllers.planning import EmbeddedController, FullSpaceController
from parsecrl.algorithms.controllers.score import Objective, Score, predicted_cost
from parsecrl.algorithms.controllers.trajectory_searches import ICEMController, MPPIController
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief, LossWeights, ReplaySequence, WorldModel
from parsecrl.algorithms.registry.user_functions import RAISED, call_with_options, one_line, own_function

B, N, T = 2, 3, 4  # of what is tried
FINE_TUNED = ("reward", "transition", "decoder")  # the parts that PPO knows
REMEDY = "correct it; `parsec docs plugins` has the protocol"
OVER_ACTIONS = {"full": FullSpaceController, "icem": ICEMController, "mppi": MPPIController}


def make_world_model(obs_size: int, action_size: int, settings: Mapping[str, Any]) -> WorldModel:
    """The model that a spec's `world_model` group describes.

    Args:
        obs_size: O.
        action_size: A.
        settings: `kind`, `rssm` (the default) or module:name; the sizes of an RSSM, or the `options` of one's own.

    Returns:
        The model, with new weights.

    Raises:
        ValueError: There is no such model, or it does not meet `WorldModel`.
    """
    own = dict(settings)
    kind = own.pop("kind", "rssm")
    if kind == "rssm":
        return RSSM(obs_size, action_size, **own)
    key = "world_model.kind"
    model = _make(kind, key, ("rssm",), (obs_size, action_size), own)
    trial = _Trial(key, kind)
    trial.check_parts(model, WorldModel)
    with torch.random.fork_rng(devices=[]):
        _try_world_model(copy.deepcopy(model), obs_size, action_size, trial)
    return model


def make_controller(model: WorldModel, settings: Mapping[str, Any], decoder: Mapping[str, Any]) -> Controller:
    """The controller that a spec's `controller` and `decoder` groups describe, to plan in a model.

    Args:
        model: To plan in.
        settings: `kind`, `full` (the default), `icem`, `mppi`, `embedded` or module:name; horizon, objective, and the
            kind's own keys, or the `options` of one's own.
        decoder: Sizes of the decoder of an embedded controller.

    Returns:
        The controller, its score set.

    Raises:
        ValueError: There is no such controller or objective, or it does not meet its protocol.
    """
    own = dict(settings)
    kind, horizon = own.pop("kind", "full"), own.pop("horizon", 12)
    latent_size, name = own.pop("latent_size", 16), own.pop("objective", None)
    score = Score(pessimism=own.pop("pessimism", 0.0))
    if score.pessimism and getattr(model, "ensemble", None) is None:
        raise ValueError(
            f"controller.pessimism needs a world model with an ensemble, got {type(model).__name__} without one; set "
            f"world_model.ensemble to 5, or pessimism to 0"
        )
    controller: Controller
    if kind in OVER_ACTIONS:
        if kind == "full":
            for key in ("temperature", "normalize"):
                own.pop(key, None)
        controller = OVER_ACTIONS[kind](horizon, model.action_size, **own)
    elif kind == "embedded":
        net = ActionDecoder(latent_size, horizon, model.action_size, belief_size=model.belief_size, **decoder)
        controller = EmbeddedController(net, **own)
    else:
        sizes = (horizon, model.action_size, model.belief_size)
        controller = _make(kind, "controller.kind", (*OVER_ACTIONS, "embedded"), sizes, own)
        trial = _Trial("controller.kind", kind)
        trial.check_parts(controller, Controller)
        with torch.random.fork_rng(devices=[]):
            _try_controller(controller, model, horizon, trial)
        if score.pessimism and not _asks_score(controller, model):
            raise trial.error("must minimise predicted_cost(model, belief, actions, self.score) for pessimism")
    if name is not None:
        score = replace(score, objective=make_objective(name, model, controller))
    controller.score = score
    return controller


def make_objective(name: str, model: WorldModel, controller: Controller) -> Objective:
    """The planning cost that `controller.objective` names; see `Objective`.

    Args:
        name: module:function.
        model: Whose predictions the cost is of.
        controller: That is to minimise it.

    Returns:
        The function.

    Raises:
        ValueError: There is none, it does not give a finite cost [B, N], a decoder is to be trained and the cost has
            no gradient, or the controller does not ask it.
    """
    objective = own_function(name, "controller.objective", ())
    trial = _Trial("controller.objective", name)
    draw, H = torch.Generator().manual_seed(0), controller.horizon
    obs = torch.randn(B, N, H, model.obs_size, generator=draw)
    rewards, actions = torch.randn(B, N, H, generator=draw), _uniform((B, N, H, model.action_size), draw)
    for x in (obs, rewards, actions):
        x.requires_grad_(controller.decoder is not None)
    cost = trial.call("the function", objective, obs, rewards, actions)
    trial.check("the function", cost, "costs [B, N]", (B, N))
    if controller.decoder is not None and not cost.requires_grad:
        raise trial.error("must be differentiable, since a decoder is trained through it, and returned no gradient")

    if not trial.call("a plan with it", _asks_score, controller, model, objective):
        raise ValueError(
            f"controller.objective {name!r} is never asked by {type(controller).__name__}, whose plan must minimise "
            f"predicted_cost(model, belief, actions, self.score); correct the controller, or leave objective out"
        )
    return objective


def _make(kind: Any, key: str, known: tuple[str, ...], arguments: tuple[Any, ...], own: dict[str, Any]) -> Any:
    """What module:name makes; `own` are the keys beside kind."""
    function = own_function(kind, key, known)
    options = own.pop("options", {})
    if own:
        raise ValueError(
            f"{key.replace('kind', next(iter(own)))} is not a key of {key} {kind!r}; put what it takes under options"
        )
    return call_with_options(function, kind, key, arguments, options)


def _asks_score(controller: Controller, model: WorldModel, objective: Objective | None = None) -> bool:
    """Whether a plan asks for an objective that the controller's score names: one of its own, or the rewards."""
    asked = []

    def counted(observations: Tensor, rewards: Tensor, actions: Tensor) -> Tensor:
        asked.append(True)
        return -rewards.sum(-1) if objective is None else objective(observations, rewards, actions)

    before, controller.score = controller.score, Score(counted)
    try:
        controller.plan(model, model.initial_belief(B), generator=torch.Generator().manual_seed(0))
    finally:
        controller.score = before
    return bool(asked)


class _Trial:
    """The checks of one named part, and their messages."""

    def __init__(self, key: str, name: str):
        self.key, self.name = key, name

    def error(self, problem: str) -> ValueError:
        return ValueError(f"{self.key} {self.name!r} {problem}; {REMEDY}")

    def check_parts(self, made: Any, protocol: type) -> None:
        if not isinstance(made, nn.Module):
            raise self.error(f"must make a torch module, got {type(made).__name__}")
        lacking = [part for part in parts(protocol) if not hasattr(made, part)]
        if lacking:
            raise self.error(f"lacks {', '.join(lacking)} of the protocol {protocol.__name__}")

    def call(self, what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except RAISED as error:
            raise self.error(f"failed in a trial with a batch of {B}: {what} raised {one_line(error)}") from error

    def check(self, what: str, value: Any, wanted: str, shape: tuple[int, ...]) -> None:
        if not isinstance(value, Tensor) or value.shape != shape:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise self.error(f"must return {wanted} of shape {shape} from {what}, got {got}")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            got = "NaN or infinity" if value.is_floating_point() else str(value.dtype)
            raise self.error(f"must return finite {wanted} from {what}, got {got}")

    def check_equal(self, what: str, value: Any, wanted: Any) -> None:
        if value != wanted:
            raise self.error(f"must have {what} {wanted!r}, got {value!r}")

    def check_belief(self, what: str, belief: Any, sizes: tuple[int, int], *lead: int) -> None:
        if not isinstance(belief, Belief):
            raise self.error(f"must return a Belief from {what}, got {type(belief).__name__}")
        for part, value, size in zip("hs", belief, sizes, strict=True):
            self.check(what, value, f"a belief's {part}", (*lead, size))


def parts(protocol: type) -> list[str]:
    """The names of a protocol's attributes and methods, in its order.

    Args:
        protocol: The class.

    Returns:
        Names without those that begin with an underscore.
    """
    names = [*protocol.__annotations__, *vars(protocol)]
    return [name for name in names if not name.startswith("_")]


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1


def _try_world_model(model: WorldModel, obs_size: int, action_size: int, trial: _Trial) -> None:
    """Run every method of the protocol once, on a copy: `update_statistics` changes it."""
    trial.check_equal("obs_size", model.obs_size, obs_size)
    trial.check_equal("action_size", model.action_size, action_size)
    sizes = (model.deterministic_size, model.stochastic_size)
    trial.check_equal("belief_size", model.belief_size, sum(sizes))
    for name in ("transition_parameters", "reward_parameters"):
        found = trial.call(name, getattr(model, name))
        if not isinstance(found, list) or not all(isinstance(p, nn.Parameter) for p in found):
            raise trial.error(f"must return a list of torch parameters from {name}, got {type(found).__name__}")
    draw = torch.Generator().manual_seed(0)
    obs, actions = torch.randn(B, T, obs_size, generator=draw), _uniform((B, T, action_size), draw)
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[:, 0] = is_first[0, 2] = True
    terminated = torch.zeros_like(is_first)
    terminated[0, 1] = True
    sequence = ReplaySequence(obs, actions, torch.randn(B, T, generator=draw), is_first, terminated)
    with torch.no_grad():
        belief = trial.call("initial_belief", model.initial_belief, B)
        trial.check_belief("initial_belief", belief, sizes, B)
        belief = trial.call("update_belief", model.update_belief, belief, 0 * actions[:, 0], obs[:, 0])
        trial.check_belief("update_belief", belief, sizes, B)
        filtered = trial.call("filter_sequence", model.filter_sequence, sequence, draw)
        trial.check_belief("filter_sequence", filtered, sizes, B, T)
        plans = _uniform((B, N, T, action_size), draw)
        predicted = trial.call("predict", model.predict, belief, plans)
        if not isinstance(predicted, tuple) or len(predicted) != 2:
            raise trial.error(f"must return observations and rewards from predict, got {type(predicted).__name__}")
        trial.check("predict", predicted[0], "observations [B, N, H, O]", (B, N, T, obs_size))
        trial.check("predict", predicted[1], "rewards [B, N, H]", (B, N, T))
        rewards = trial.call("predict_rewards", model.predict_rewards, belief, plans)
        trial.check("predict_rewards", rewards, "rewards [B, N, H]", (B, N, T))
    trial.call("update_statistics", model.update_statistics, sequence)
    scale = getattr(model, "reward_scale", 1.0)
    if not float(scale) > 0:
        raise trial.error(f"must have a reward_scale above 0, or none, got {float(scale):g}")
    result = trial.call("loss", model.loss, sequence, LossWeights(), draw)
    if not isinstance(result, tuple) or len(result) != 3 or not isinstance(result[1], dict):
        raise trial.error("must return a loss, a dict of its terms and the beliefs from loss")
    loss, terms, beliefs = result
    trial.check("loss", loss, "a loss", ())
    if not loss.requires_grad:
        raise trial.error("must return a differentiable loss, got one without gradient")
    if "model_loss" not in terms:
        raise trial.error(f"must name the whole loss model_loss among its terms, got {', '.join(terms) or 'none'}")
    for name, term in terms.items():
        trial.check(f"loss ({name})", term, "a term", ())
    trial.check_belief("loss", beliefs, sizes, B, T)


def _try_controller(controller: Controller, model: WorldModel, horizon: int, trial: _Trial) -> None:
    """Plan once, as it will be done, and decode what the search tried."""
    sizes = (horizon, model.action_size)
    trial.check_equal("horizon", controller.horizon, horizon)
    trial.check_equal("action_size", controller.action_size, model.action_size)
    n, drawn, reached = controller.plan_size, controller.noise_shape, controller.differentiable_in
    if not isinstance(drawn, tuple) or len(drawn) != 3 or not all(isinstance(size, int) for size in drawn):
        raise trial.error(f"must have a noise_shape of three integers, got {drawn!r}")
    if not isinstance(reached, tuple) or set(reached) - set(FINE_TUNED):
        raise trial.error(f"must have differentiable_in a tuple of some of {', '.join(FINE_TUNED)}, got {reached!r}")
    if ("decoder" in reached) != (controller.decoder is not None):
        raise trial.error("must have a decoder where differentiable_in names one, and only there")
    draw, belief = torch.Generator().manual_seed(0), model.initial_belief(B)
    noise = torch.randn(drawn[0], 1, *drawn[1:], generator=draw)
    with torch.no_grad():
        plan = trial.call("plan", controller.plan, model, belief, generator=draw, keep_history=True)
        _check_plan(plan, n, sizes, trial)
        if not plan.history:
            raise trial.error("must return a history of one or more iterations from plan with keep_history=True")
        last = plan.history[-1]
        tried = len(last.samples[0])
        trial.check("plan (history)", last.samples, "samples [B, N, n]", (B, tried, n))
        trial.check("plan (history)", last.mean, "a mean [B, n]", (B, n))
        decoded = trial.call("decode", controller.decode, last.samples, belief)
        trial.check("decode", decoded, "actions [B, N, H, A]", (B, tried, *sizes))
        trial.check("decode", controller.decode(last.mean, belief), "actions [B, H, A]", (B, *sizes))
        warm = trial.call("shift", controller.shift, plan, belief)
        trial.check("shift", warm, "a warm start", (B, getattr(controller, "warm_start_size", n)))
        again = trial.call("plan", controller.plan, model, belief, warm, noise=noise, checkpoint=True)
        _check_plan(again, n, sizes, trial)
    if controller.decoder is not None:
        plan = trial.call("plan", controller.plan, model, belief, generator=draw)
        cost = predicted_cost(model, belief, plan.actions[:, None]).mean()
        parameters = list(controller.decoder.parameters())
        if not cost.requires_grad or not any(
            gradient is not None for gradient in torch.autograd.grad(cost, parameters, allow_unused=True)
        ):
            raise trial.error("must return plans with a gradient in its decoder, which is trained through them")


def _check_plan(plan: Any, n: int, sizes: tuple[int, int], trial: _Trial) -> None:
    if not isinstance(plan, Plan):
        raise trial.error(f"must return a Plan from plan, got {type(plan).__name__}")
    trial.check("plan", plan.actions, "actions [B, H, A]", (B, *sizes))
    trial.check("plan", plan.mean, "a mean [B, n]", (B, n))
    if float(plan.actions.abs().max()) > 1:
        raise trial.error(f"must plan actions in [-1, 1], got {float(plan.actions.abs().max()):g}")
