"""What plans and updates of planet cost, by the work in them.

Axes and symbols are those of the modules whose work is counted: B a batch, H a horizon, A actions, D, S, K the model's
sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from parsecrl.algorithms.registry.search_sizes import trajectories
from parsecrl.algorithms.registry.user_functions import names_code
from parsecrl.algorithms.registry.workload import Sizes, Stage, Workplace

SEED_UPDATES = 100  # planet.py
Settings = Mapping[str, Any]
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
        phase: With planet's settings.
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
        flop += 2 * plan_flop(planner(phase), model_sizes, sizes, beliefs)
        if phase.decoder_proposals is not None:
            full = {"kind": "full", "horizon": phase.controller.horizon, **phase.decoder_proposals.model_dump()}
            flop += plan_flop(full, model_sizes, sizes, beliefs)
    return flop


def planner(phase: Any) -> dict[str, Any]:
    """The controller of a phase as `plan_flop` takes it.

    Args:
        phase: With planet's settings.

    Returns:
        The group of settings, that of `decoder` in it.
    """
    return {**phase.controller.model_dump(), "decoder": phase.decoder.model_dump()}


def planning_s(phase: Any, work: Workplace, batch: int, *, learner: bool = False) -> float:
    """How long a plan for several environments at once takes.

    Args:
        phase: With planet's settings.
        work: Where it is done.
        batch: Environments.
        learner: Whether the learner plans.

    Returns:
        Seconds.

    Raises:
        ValueError: A part is code of a user's own, whose work is not known, or a GPU's speed is not known.
    """
    for key in ("controller", "world_model"):
        kind = getattr(phase, key).kind
        if names_code(kind):
            raise ValueError(
                f"the estimate knows the work of parsecrl's own parts alone, got phases.{phase.name}.{key}.kind "
                f"{kind!r}; give a spec without module:name there"
            )
    controller = planner(phase)
    flop = plan_flop(controller, phase.world_model.model_dump(), work.sizes, batch)
    return work.plan_s(flop, controller["horizon"] * controller["num_iterations"], learner=learner)


def stage(phase: Any, work: Workplace, update_flop: float) -> Stage:
    """The queues' view of a trial, with the first value of each searched key.

    Args:
        phase: With planet's settings.
        work: Where it is done.
        update_flop: FLOP of an update.

    Returns:
        The stage.

    Raises:
        ValueError: A part is code of a user's own, whose work is not known, or a GPU's speed is not known.
    """
    r, c, sizes = work.resources, work.constants, work.sizes
    repeat, R, E = work.action_repeat, r.num_env_runners, r.num_envs_per_env_runner
    decisions = phase.rollout_fragment_length * E
    act_s = decisions * work.acting_s
    plan_s = phase.rollout_fragment_length * planning_s(phase, work, E)
    update_s = work.update_s(update_flop)
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
        gpus=work.gpus,
    )
