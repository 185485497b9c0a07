"""What a trial of a phase asks of runners, cores, memory and storage, by the work in it.

Axes and symbols are those of the modules whose work is counted: B a batch, H a horizon, A actions, D, S, K the model's
sizes. Seconds are of one core, or of a GPU where the spec gives one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from parsecrl.algorithms.dcem_ppo.settings import DCEMPPOSettings
from parsecrl.algorithms.registry.search_sizes import trajectories
from parsecrl.algorithms.registry.user_functions import names_code
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import Spec
from parsecrl.platform.specs.spec import ResourcesSpec

SEED_UPDATES = 100  # planet.py
EVALUATION_BATCH = 8  # evaluation.py
DIFFERENTIATED = 3.7  # a plan with its gradient, in plans: docs/results, embedded, batch of 8
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Constants:
    """One machine. Measured on two cores of an AMD EPYC without a GPU, 20 November 2026; see docs/capacity.md."""

    matrix_flops: float = 220e9  # FLOP/s of a core in [500, 200] x [200, 600]
    plan_flops: float = 155e9  # FLOP/s of a core in the matrix products of plans
    plan_step_s: float = 0.22e-3  # a model step of a plan, besides its FLOP
    update_flops: float = 97e9  # FLOP/s of a core in an update
    update_s: float = 65e-3  # an update, besides its FLOP
    gpu_flops: float | None = None  # the same for a whole GPU; none was at hand
    gpu_step_s: float = 0.12e-3
    env_step_s: float = 0.035e-3  # a simulator step
    decision_s: float = 0.72e-3  # a decision in one environment, besides its plan and its simulator steps
    store_s: float = 0.01e-3  # a decision, to take it from a runner into the replay
    request_s: float = 4.2e-3  # a request to a runner: weights out, fragment back
    sample_s: float = 2.5e-3  # a batch from the replay
    replay_bytes: float = 354.0  # a decision in memory
    stored_bytes: float = 96.0  # a decision in replay.npz
    stored_s: float = 0.38e-6  # a decision, to write it there
    checkpoint_s: float = 0.015  # a checkpoint without a replay
    checkpoint_bytes: float = 4.1e6
    weights_bytes: float = 2.0e6
    decision_bytes: float = 1200.0  # a decision on its way through the object store
    start_s: float = 10.0  # a trial, from its grant to its first rollout
    result_s: float = 1.5e-3  # the driver, for one result
    driver_checkpoint_s: float = 1.6e-3  # the driver, for one checkpoint
    state_s: float = 0.6e-3  # the driver, for each trial whenever it saves the experiment's state
    state_period_s: float = 5.0  # between two of these
    state_bytes: float = 123e3  # a trial in that state
    driver_bytes: float = 0.24e6  # a trial in the driver's memory
    storage_bytes_per_s: float = 200e6  # what the storage takes from all trials together: set it, it is not measured


class Sizes(NamedTuple):
    """What the environment fixes."""

    obs_size: int
    action_size: int
    episode_decisions: int  # of an episode


class Stage(NamedTuple):
    """A trial of one phase, as the queues see it; times in seconds, all of one core unless a GPU does them.

    A runner gathers a fragment, the main process learns from it. They overlap unless the phase learns between rounds.
    """

    name: str
    runners: int  # 0: the main process gathers too
    cores: float  # granted to the trial
    gather_s: float  # a fragment, by one runner
    gather_core_s: float  # the part of it that needs a core and no GPU
    learn_s: float  # its updates, storing it and fetching it
    learn_core_s: float
    fragment_steps: float  # environment steps in it
    fragments: float  # in the whole trial
    overlaps: bool
    per_iteration: float  # fragments between two results
    iterations_per_checkpoint: int
    checkpoint_s: float  # mean over the trial
    checkpoint_bytes: float  # likewise
    updates_per_step: float  # per environment step
    overhead_s: float  # start, seed episodes, updates without rollouts
    replay_bytes: float  # at the trial's end
    flight_bytes: float  # in the object store
    gpus: float


# --- work of one plan, one update ----------------------------------------------------------------------------------


ENSEMBLE_UNITS = 64  # of a member's hidden layer, as `algorithms.models.ensemble` has them


def _products(*sizes: int) -> int:
    """Multiplications of a chain of linear layers, for a row."""
    return sum(a * b for a, b in itertools.pairwise(sizes))


def _model_products(world_model: Settings, sizes: Sizes) -> dict[str, int]:
    D, S, K = (
        int(world_model.get(f"{name}_size", default))
        for name, default in (("deterministic", 200), ("stochastic", 30), ("hidden", 200))
    )
    obs, A, members = sizes.obs_size, sizes.action_size, world_model.get("ensemble", 1)
    return {
        "action": 3 * D * A,
        "belief": 3 * D * (D + S),
        "prior_mean": _products(D, K, K, S),
        "prior": _products(D, K, K, 2 * S),
        "posterior": _products(D + obs, K, K, 2 * S),
        "obs": _products(D + S, K, K, obs),
        "reward": _products(D + S, K, K, 1),
        "ensemble": _products(D, ENSEMBLE_UNITS, S + 1) * members if members > 1 else 0,
    }


def plan_flop(controller: Settings, world_model: Settings, sizes: Sizes, batch: int) -> float:
    """FLOP of the matrix products of planning; the first step's with the belief are made once per belief.

    Args:
        controller: The group of settings, that of `decoder` in it.
        world_model: The group of settings.
        sizes: Of the environment.
        batch: Beliefs that are planned for together.

    Returns:
        FLOP of the whole batch; a multiplication and an addition count 2.
    """
    model, H = _model_products(world_model, sizes), controller["horizon"]
    per_step = model["action"] + model["prior_mean"] + model["reward"]
    if controller.get("pessimism"):
        per_step += model["ensemble"]
    candidate = H * per_step + (H - 1) * model["belief"]
    if controller["kind"] == "embedded":
        decoder = controller.get("decoder", {})
        hidden = [decoder.get("hidden_size", 200)] * decoder.get("num_layers", 2)
        candidate += _products(controller["latent_size"], *hidden, H * sizes.action_size)
    return 2 * batch * (trajectories(controller) * candidate + controller["num_iterations"] * model["belief"])


def update_flop(phase: Any, sizes: Sizes) -> float:
    """FLOP of an update: three times the forward pass; of a decoder's plans twice, as the model is frozen in them.

    Args:
        phase: Of planet or unified.
        sizes: Of the environment.

    Returns:
        FLOP.
    """
    model = _model_products(phase.world_model.model_dump(), sizes)
    gru = model["action"] + model["belief"]
    once = gru + sum(model[part] for part in ("prior", "posterior", "obs", "reward", "ensemble"))
    B, T = phase.batch_size, phase.batch_length
    far = sum(T - d + 1 for d in range(2, min(phase.loss.overshooting_steps, T - 1) + 1))  # predictions in a sequence
    flop = 3.0 * 2 * B * (T * once + far * (gru + model["prior"]))
    if phase.value != "none":
        net = model["reward"]  # critic and actor are about as large
        imagined = phase.value.imagined_beliefs * phase.value.imagined_steps
        # Through the frozen model and the slow critic twice, through critic and actor three times.
        flop += 2 * imagined * (2 * (gru + model["prior_mean"] + model["reward"] + net) + 3 * 2 * net)
    if phase.controller.kind == "embedded":
        model_sizes, beliefs = phase.world_model.model_dump(), phase.decoder_beliefs + phase.decoder_initial_beliefs
        flop += 2 * plan_flop(_controller(phase), model_sizes, sizes, beliefs)
        if phase.decoder_proposals is not None:
            full = {"kind": "full", "horizon": phase.controller.horizon, **phase.decoder_proposals.model_dump()}
            flop += plan_flop(full, model_sizes, sizes, beliefs)
        if "value_gradient" in getattr(phase, "losses", ()):
            # Forward, and backward through plans and the parts that they change.
            flop += 3 * plan_flop(_controller(phase), model_sizes, sizes, phase.value_gradient.beliefs)
    return flop


def _controller(phase: Any) -> dict[str, Any]:
    return {**phase.controller.model_dump(), "decoder": phase.decoder.model_dump()}


# --- a trial -------------------------------------------------------------------------------------------------------


def stage_of(spec: Spec, phase: Any, sizes: Sizes, constants: Constants) -> Stage:
    """The queues' view of a phase's trial, with the first value of each searched key.

    Args:
        spec: Of the phase.
        phase: Of planet or dcem_ppo.
        sizes: Of the environment.
        constants: Times and sizes that were measured.

    Returns:
        The stage.

    Raises:
        UserError: A part is code of a user's own, whose work is not known, or a GPU's speed is not known.
    """
    _check_known(_planner(spec, phase))
    if isinstance(phase, DCEMPPOSettings):
        return _ppo_stage(spec, phase, sizes, constants)
    return _planet_stage(spec, phase, sizes, constants)


def _check_known(phase: Any) -> None:
    for key in ("controller", "world_model"):
        kind = getattr(phase, key).kind
        if names_code(kind):
            raise UserError(
                f"the estimate knows the work of parsecrl's own parts alone, got phases.{phase.name}.{key}.kind "
                f"{kind!r}; give a spec without module:name there"
            )


def _planet_stage(spec: Spec, phase: Any, sizes: Sizes, c: Constants) -> Stage:
    r = spec.resources
    assert spec.env is not None
    repeat, R, E = spec.env.action_repeat, r.num_env_runners, r.num_envs_per_env_runner
    decisions = phase.rollout_fragment_length * E
    act_s = decisions * (repeat * c.env_step_s + c.decision_s)
    plan_s = phase.rollout_fragment_length * _plan_s(phase, sizes, E, r, c)
    update_s = _update_s(phase, sizes, r, c)
    updates = phase.train_ratio * repeat * decisions
    store_s = updates * c.sample_s + decisions * c.store_s + c.request_s
    seed_decisions = 0 if phase.start_from and phase.keep_replay else phase.seed_episodes * sizes.episode_decisions
    first_updates = phase.decoder_warmup_updates + SEED_UPDATES * (seed_decisions > 0)
    wanted = phase.stop.conditions.get("env_steps", math.inf) / repeat
    wanted = min(wanted, phase.stop.conditions.get("num_updates", math.inf) / (phase.train_ratio * repeat))
    fragments = max(0.0, wanted - seed_decisions) / decisions
    stored = min(phase.replay_capacity, seed_decisions + fragments * decisions)
    return Stage(
        name=phase.name,
        runners=R,
        cores=r.num_cpus_for_main_process + R * r.num_cpus_per_env_runner,
        gather_s=act_s + plan_s,
        gather_core_s=act_s + plan_s * (not r.num_gpus_per_env_runner),
        learn_s=updates * update_s + store_s,
        learn_core_s=updates * update_s * (not r.num_gpus_per_learner) + store_s,
        fragment_steps=decisions * repeat,
        fragments=fragments,
        overlaps=R > 0,
        per_iteration=max(1, math.ceil(phase.decisions_per_iteration / decisions)),
        iterations_per_checkpoint=phase.checkpoint_every,
        checkpoint_s=c.checkpoint_s + stored / 2 * c.stored_s,
        checkpoint_bytes=c.checkpoint_bytes + stored / 2 * c.stored_bytes,
        updates_per_step=phase.train_ratio,
        overhead_s=c.start_s + seed_decisions / decisions * act_s / max(R, 1) + first_updates * update_s,
        replay_bytes=stored * c.replay_bytes,
        flight_bytes=(R + 1) * (decisions * c.decision_bytes + c.weights_bytes),
        gpus=_gpus(r),
    )


def _ppo_stage(spec: Spec, phase: Any, sizes: Sizes, c: Constants) -> Stage:
    """A round: every runner gathers its share of the episodes, then the main process learns from all of them."""
    r, source = spec.resources, _planner(spec, phase)
    assert spec.env is not None
    R = max(r.num_env_runners, 1)
    share = phase.episodes_per_step / R
    E = min(r.num_envs_per_env_runner, math.ceil(share))
    decisions = share * sizes.episode_decisions
    act_s = decisions * (spec.env.action_repeat * c.env_step_s + c.decision_s)
    plan_s = decisions / E * _plan_s(source, sizes, E, r, c)
    minibatches = min(phase.minibatches, R * decisions)
    micro = min(phase.micro_batch, math.ceil(R * decisions / minibatches))
    per_decision = DIFFERENTIATED * _plan_s(source, sizes, micro, r, c, learner=True) / micro
    steps = phase.stop.conditions.get("ppo_steps", math.inf)
    wanted = phase.stop.conditions.get("env_steps", math.inf) / (spec.env.action_repeat * decisions)
    return Stage(
        name=phase.name,
        runners=r.num_env_runners,
        cores=r.num_cpus_for_main_process + r.num_env_runners * r.num_cpus_per_env_runner,
        gather_s=act_s + plan_s,
        gather_core_s=act_s + plan_s * (not r.num_gpus_per_env_runner),
        learn_s=phase.passes * decisions * per_decision + c.request_s,
        learn_core_s=phase.passes * decisions * per_decision * (not r.num_gpus_per_learner) + c.request_s,
        fragment_steps=decisions * spec.env.action_repeat,
        fragments=min(steps * R, wanted),
        overlaps=False,
        per_iteration=R,
        iterations_per_checkpoint=phase.checkpoint_every,
        checkpoint_s=c.checkpoint_s,
        checkpoint_bytes=c.checkpoint_bytes,
        updates_per_step=phase.passes * minibatches / (R * decisions * spec.env.action_repeat),
        overhead_s=c.start_s,
        replay_bytes=0.0,
        flight_bytes=R * (decisions * c.decision_bytes + c.weights_bytes),
        gpus=_gpus(r),
    )


def evaluation_s(spec: Spec, phase: Any, sizes: Sizes, c: Constants) -> float:
    """How long a phase's evaluation takes, in as many workers as a trial has runners.

    Args:
        spec: Of the phase.
        phase: Of planet or dcem_ppo.
        sizes: Of the environment.
        c: Times and sizes that were measured.

    Returns:
        Seconds.
    """
    r, batch = spec.resources, EVALUATION_BATCH
    assert spec.env is not None
    decision_s = spec.env.action_repeat * c.env_step_s + c.decision_s
    decision_s += _plan_s(_planner(spec, phase), sizes, batch, r, c) / batch
    return spec.evaluate.episodes * sizes.episode_decisions * decision_s / max(r.num_env_runners, 1)


def _planner(spec: Spec, phase: Any) -> Any:
    """The phase that has the controller of this one."""
    while isinstance(phase, DCEMPPOSettings):
        phase = spec.phase(phase.start_from)  # type: ignore[assignment]
    return phase


def _gpus(r: ResourcesSpec) -> float:
    return r.num_env_runners * r.num_gpus_per_env_runner + max(r.num_learners, 1) * r.num_gpus_per_learner


def _plan_s(phase: Any, sizes: Sizes, batch: int, r: ResourcesSpec, c: Constants, *, learner: bool = False) -> float:
    """A plan for `batch` environments at once."""
    controller = _controller(phase)
    flop = plan_flop(controller, phase.world_model.model_dump(), sizes, batch)
    steps = controller["horizon"] * controller["num_iterations"]
    share = r.num_gpus_per_learner if learner else r.num_gpus_per_env_runner
    if not share:
        return flop / c.plan_flops + steps * c.plan_step_s
    return flop / (_gpu_flops(c) * min(share, 1.0)) + steps * c.gpu_step_s


def _update_s(phase: Any, sizes: Sizes, r: ResourcesSpec, c: Constants) -> float:
    share = r.num_gpus_per_learner
    rate = _gpu_flops(c) * min(share, 1.0) if share else c.update_flops
    return update_flop(phase, sizes) / rate + c.update_s


def _gpu_flops(c: Constants) -> float:
    if not c.gpu_flops:
        raise UserError(
            "the speed of a GPU is needed, as the spec's resources ask for one, and none was measured; "
            "give --gpu-flops, such as what `make bench` prints there for a plan (FLOP a second)"
        )
    return c.gpu_flops
