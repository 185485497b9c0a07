"""The models of latent dynamics by their names in a spec."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from torch import nn

from parsecrl.algorithms.latent_study.worlds import World, space_sizes, world_of
from parsecrl.algorithms.models import (
    BetaVAE,
    EncoderOnly,
    LatentDynamics,
    ParsimoniousDynamics,
    ParsimonyObjective,
    RecurrentDynamics,
    StateSpaceModel,
    TrueDynamics,
)

STOCHASTIC = "parsimonious_stochastic"  # parsimonious with stochastic: true, so that kinds can be searched over
MODELS = ("parsimonious", STOCHASTIC, "encoder_only", "beta_vae", "rnn", "ssm", "true_dynamics")

SIZES = ("latent_size", "hidden_size", "num_layers")
PARSIMONIOUS = ("transformation", "code_size", "stochastic", "period")
OBJECTIVE = (
    *("beta", "constraint", "target", "diversity", "diversity_weight", "transition_weight", "movement_weight"),
    *("similarity_scale_obs", "similarity_scale_latent", "rollout_steps"),
)


def make_model(
    settings: dict[str, Any],
    obs_size: int,
    num_actions: int,
    seed: int,
    world: World | None = None,
    encoder: nn.Module | None = None,
) -> LatentDynamics:
    """Make the model that a spec's `model` group describes.

    Args:
        settings: `kind`, one of MODELS, and the arguments of the model's class. Those of another kind are left aside,
            so that kinds can be searched over. `beta` is parsimonious's, `vae_beta` that of beta_vae and ssm;
            `baseline_transformation` that of what parsimonious is compared with, where it is another.
        obs_size: O, at least 1.
        num_actions: A, at least 1.
        seed: Of the initial weights.
        world: Whose dynamics `true_dynamics` are.
        encoder: In place of a feed-forward network, as the classes take it.

    Returns:
        The model on torch's default device.

    Raises:
        ValueError: The kind is unknown, its class refuses an argument, or `true_dynamics` has no world.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    kind = given.pop("kind", "parsimonious")
    if kind not in MODELS:
        raise ValueError(f"model.kind must be one of {', '.join(MODELS)}, got {kind!r}; choose one of them")
    if kind == STOCHASTIC:
        kind, given["stochastic"] = "parsimonious", True
    if kind == "true_dynamics":
        if world is None:
            raise ValueError("model.kind true_dynamics needs a grid world, got another environment; choose another")
        return TrueDynamics(*(torch.from_numpy(t) for t in (world.observations, world.transitions, world.distances)))

    def pick(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    options: dict[str, Any] = {**pick(*SIZES), "encoder": encoder}
    if kind == "parsimonious":
        objective = pick(*OBJECTIVE)
        if given.get("stochastic"):
            objective.setdefault("diversity", "reconstruction")
        options |= {**pick(*PARSIMONIOUS), "objective": ParsimonyObjective(**objective)}
    elif kind != "encoder_only":
        if "baseline_transformation" in given:
            given["transformation"] = given["baseline_transformation"]
        options |= pick("transformation", "movement_weight")
        if kind in ("beta_vae", "ssm") and "vae_beta" in given:
            options["beta"] = given["vae_beta"]
    classes: dict[str, Any] = {
        "parsimonious": ParsimoniousDynamics,
        "encoder_only": EncoderOnly,
        "beta_vae": BetaVAE,
        "rnn": RecurrentDynamics,
        "ssm": StateSpaceModel,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return classes[kind](obs_size, num_actions, **options)


def check_model(settings: dict[str, Any], env: gymnasium.Env) -> None:
    """Check settings as `make_model` does, without making weights.

    Args:
        settings: As for `make_model`.
        env: The environment that the model is for.

    Raises:
        ValueError: Where `make_model` would.
    """
    with torch.device("meta"):
        make_model(settings, *space_sizes(env), seed=0, world=world_of(env))
