"""What trained embeddings show (DCEM paper, figures 3, 5, 9 and 10; figure 7 of its earlier version), as tables.

Every table of a trial has the columns latent_size, temperature and seed. Torch alone. Searches in the analysis are
seeded: the same checkpoints give the same tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from parsecrl.algorithms.cartpole_embedding.checkpoint import FILES, load_embedding
from parsecrl.algorithms.cartpole_embedding.control import Episode, control
from parsecrl.algorithms.cartpole_embedding.dynamics import make_dynamics
from parsecrl.algorithms.cartpole_embedding.embedding import (
    EmbeddingLearner,
    make_expert,
    plan_costs,
    validation_states,
)
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.controllers import Plan
from parsecrl.algorithms.models.known_dynamics import KnownDynamics
from parsecrl.algorithms.models.layers import mlp
from parsecrl.algorithms.registry.algorithm import ParallelMap
from parsecrl.algorithms.reporting.study_report import Tables, stacked
from parsecrl.algorithms.training.seeding import derive_seed

SEARCHES = 5  # per state: a cost is a mean over them
SHOWN_STATE = 0  # of the validation states
SHOWN_STATES = 4
GRID = 41  # points a side of a cost surface
ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}
SCALES = (1.0, 2.0, 4.0, 8.0)


def analyse_all(checkpoints: Sequence[Any], parallel_map: ParallelMap = map) -> Tables:
    """The tables of several checkpoints, each below the other.

    convergence: num_updates, loss, validation_cost (figure 9)
    improvement: dynamics; num_updates; best_at, the update of the lowest validation cost, whose decoder all tables
        show; cost, expert_cost, factor = cost / expert_cost, means over the validation states and over searches with
        other draws than the validation's (figure 5); last_cost, by validation after the last update
    control: mean cost accumulated over an episode of receding-horizon control by each controller; "cold": each
        search starts where the first did, and not at the last solution; "untrained": a decoder as it is drawn
    episodes: controller, episode, step, cost, action_*, state_*, of the first trial of each pair of parameters
    samples: controller, iteration, sample, step, action, cost: what CEM and the best embedding try for one state
        (figure 3); sample -1 is the mean after the iteration
    surfaces: state, z_1, z_2, cost of two-dimensional embeddings (figure 10), and solutions: state, z_1, z_2
    decoders: activation, scale, sample, step, output: untrained decoders (figure 7 of the earlier version)

    Args:
        checkpoints: Their folders, of one system and of settings that differ in what was searched over.
        parallel_map: As the built-in map, in order.

    Returns:
        The tables by name; none without checkpoints.
    """
    if not checkpoints:
        return {}
    first = FILES.read_description(checkpoints[0])
    dynamics, settings = make_dynamics(first["dynamics"]), EmbeddingSettings.checked(first["settings"])
    tables = stacked(parallel_map(analyse, checkpoints))
    expert_cost = expert_costs(dynamics, settings).mean().item()
    tables["improvement"]["expert_cost"] = expert_cost
    tables["improvement"]["factor"] = tables["improvement"]["cost"] / expert_cost
    # The shown trial: the lowest validation cost of those at the highest temperature and the smallest size.
    order = tables["improvement"].assign(hot=-tables["improvement"]["temperature"])
    best = checkpoints[order.sort_values(["hot", "latent_size", "cost"]).index[0]]
    tables["samples"] = sample_table(best)
    others = {
        "CEM": control_episodes(dynamics, settings, make_expert(dynamics, settings)),
        "CEM, cold": control_episodes(dynamics, settings, make_expert(dynamics, settings), warm=False),
        "random": control_episodes(dynamics, settings, None),
    }
    rows = [{"controller": name, "cost": _accumulated(episode)} for name, episode in others.items()]
    for size in sorted(set(tables["improvement"]["latent_size"])):
        controller = settings.controller.model_copy(update={"latent_size": size})
        untrained = EmbeddingLearner(dynamics, settings.model_copy(update={"controller": controller}), seed=0)
        episode = control_episodes(dynamics, settings, untrained.controller, warm=False)
        rows.append({"controller": "untrained, cold", "latent_size": size, "cost": _accumulated(episode)})
    tables["control"] = pd.concat([pd.DataFrame(rows), tables["control"]], ignore_index=True)
    episodes = tables["episodes"].drop_duplicates(["controller", "latent_size", "temperature", "episode", "step"])
    common = [_episode_table(name, episode) for name, episode in others.items()]
    tables["episodes"] = pd.concat([*common, episodes], ignore_index=True)
    tables["decoders"] = initial_decoders(settings)
    return tables


def analyse(checkpoint: Any) -> Tables:
    """The tables of one trial, by its best decoder.

    Args:
        checkpoint: Its folder.

    Returns:
        convergence, improvement, control and episodes of `analyse_all`, and with two latent dimensions surfaces and
        solutions; each with latent_size, temperature and seed as its first columns.
    """
    learner, description = load_trial(checkpoint)
    dynamics, settings = learner.dynamics, learner.settings
    trial = {key: getattr(settings.controller, key) for key in ("latent_size", "temperature")} | {"seed": settings.seed}
    tables = {"convergence": pd.DataFrame(description["curve"])}
    curve = tables["convergence"]
    found = {
        "dynamics": description["dynamics"],
        "num_updates": description["num_updates"],
        "best_at": int(curve["num_updates"].to_numpy()[curve["validation_cost"].argmin()]),
        "cost": search_costs(dynamics, settings, learner.controller, "embedded").mean().item(),
        "last_cost": curve["validation_cost"].iloc[-1],
    }
    tables["improvement"] = pd.DataFrame([found])
    own = {
        name: control_episodes(dynamics, settings, learner.controller, warm)
        for name, warm in (("embedded DCEM", True), ("embedded DCEM, cold", False))
    }
    rows = [{"controller": name, "cost": _accumulated(episode)} for name, episode in own.items()]
    tables["control"] = pd.DataFrame(rows)
    tables["episodes"] = pd.concat([_episode_table(*item) for item in own.items()], ignore_index=True)
    if settings.controller.latent_size == 2:
        tables["surfaces"], tables["solutions"] = surface_tables(learner)
    for table in tables.values():
        for position, (name, value) in enumerate(trial.items()):
            table.insert(position, name, value)
    return tables


def load_trial(checkpoint: Any) -> tuple[EmbeddingLearner, dict[str, Any]]:
    """Read a trial with its best decoder, without gradients.

    Args:
        checkpoint: Its folder.

    Returns:
        The learner and the description.
    """
    description = FILES.read_description(checkpoint)
    learner = EmbeddingLearner(
        make_dynamics(description["dynamics"]), EmbeddingSettings.checked(description["settings"]), seed=0
    )
    load_embedding(checkpoint, learner)
    learner.controller.decoder.load_state_dict(learner.best_decoder)
    learner.controller.requires_grad_(False)
    return learner, description


@torch.no_grad()
def search_costs(dynamics: KnownDynamics, settings: EmbeddingSettings, controller: Any, role: str) -> Tensor:
    """What a controller's plans cost from each validation state, the mean over several searches.

    Args:
        dynamics: The system.
        settings: How many states there are.
        controller: What plans.
        role: Seeds the searches.

    Returns:
        [num_states], in units of the dynamics' cost.
    """
    states = validation_states(dynamics, settings.validation_states)
    belief = dynamics.belief(states)
    costs = [
        plan_costs(dynamics, states, controller.plan(dynamics, belief, generator=_generator(role, i)).actions)
        for i in range(SEARCHES)
    ]
    return torch.stack(costs).mean(0)


def expert_costs(dynamics: KnownDynamics, settings: EmbeddingSettings) -> Tensor:
    """`search_costs` of CEM in the full space.

    Args:
        dynamics: The system.
        settings: Of the states and of CEM.

    Returns:
        [num_states], in units of the dynamics' cost.
    """
    return search_costs(dynamics, settings, make_expert(dynamics, settings), "expert")


def control_episodes(
    dynamics: KnownDynamics, settings: EmbeddingSettings, controller: Any, warm: bool = True
) -> Episode:
    """Receding-horizon control from the first validation states.

    Args:
        dynamics: The system.
        settings: How many states and steps.
        controller: What plans; None for random actions.
        warm: Whether each search starts at the last plan, moved on by a step.

    Returns:
        An episode from each state.
    """
    states = validation_states(dynamics, settings.validation_states)[: settings.control_states]
    return control(dynamics, controller, states, settings.control_steps, _generator("control"), warm)


def _episode_table(controller: str, episode: Episode) -> pd.DataFrame:
    """One row an episode and step; costs, actions in the system's bounds [-1, 1], and states."""
    B, T = episode.costs.shape
    index = {
        "controller": controller,
        "episode": torch.arange(B).repeat_interleave(T).tolist(),
        "step": list(range(T)) * B,
        "cost": episode.costs.flatten().tolist(),
    }
    columns: dict[str, Any] = {}
    for prefix, values in (("action", episode.actions), ("state", episode.states)):
        columns |= {f"{prefix}_{i}": values[..., i].flatten().tolist() for i in range(values.shape[-1])}
    return pd.DataFrame({**index, **columns}).round(5)


def sample_table(checkpoint: Any) -> pd.DataFrame:
    """What both controllers try from one state, first action variable; four iterations each (figure 3).

    Args:
        checkpoint: Folder of the trial whose embedding is shown.

    Returns:
        Columns controller, iteration, sample (-1 is the mean after the iteration), step, action, cost.
    """
    learner, _ = load_trial(checkpoint)
    dynamics, settings = learner.dynamics, learner.settings
    belief = dynamics.belief(learner.validation_states[SHOWN_STATE : SHOWN_STATE + 1])
    parts = []
    for name, controller in (("CEM", make_expert(dynamics, settings)), ("embedded DCEM", learner.controller)):
        plan: Plan = controller.plan(dynamics, belief, generator=_generator("samples"), keep_history=True)
        assert plan.history is not None
        total = len(plan.history)
        for number in sorted({1, max(1, total // 3), max(1, 2 * total // 3), total}):
            iteration = plan.history[number - 1]
            tried = controller.decode(iteration.samples, belief)[0, ..., 0]  # [N, H]
            mean = controller.decode(iteration.mean, belief)[0, ..., 0]  # [H]
            mean_cost = plan_costs(dynamics, belief.h, controller.decode(iteration.mean, belief))
            for sample, (actions, cost) in enumerate(
                zip([mean, *tried], [mean_cost[0], *iteration.costs[0]], strict=True), start=-1
            ):
                parts.append(
                    pd.DataFrame(
                        {
                            "controller": name,
                            "iteration": number,
                            "sample": sample,
                            "step": range(1, settings.controller.horizon + 1),
                            "action": actions.tolist(),
                            "cost": float(cost),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True).round(5)


@torch.no_grad()
def surface_tables(learner: EmbeddingLearner) -> tuple[pd.DataFrame, pd.DataFrame]:
    """C(z) over the latent plane for several states, and where the search ends (figure 10).

    Args:
        learner: With a latent of two dimensions.

    Returns:
        Columns state, z_1, z_2, cost of the surfaces, and state, z_1, z_2 of the solutions.
    """
    axis = torch.linspace(-1.0, 1.0, GRID)
    z = torch.cartesian_prod(axis, axis)  # [GRID * GRID, 2]
    states = learner.validation_states[:SHOWN_STATES]
    belief = learner.dynamics.belief(states)
    costs = learner.controller.cost(learner.dynamics, belief, z.expand(states.shape[0], -1, -1))
    found = learner.plan(states, _generator("validation_noise")).mean
    surfaces = pd.concat(
        pd.DataFrame({"state": i, "z_1": z[:, 0].tolist(), "z_2": z[:, 1].tolist(), "cost": row.tolist()})
        for i, row in enumerate(costs)
    )
    solutions = pd.DataFrame({"state": range(len(states)), "z_1": found[:, 0].tolist(), "z_2": found[:, 1].tolist()})
    return surfaces.round(4), solutions.round(4)


@torch.no_grad()
def initial_decoders(settings: EmbeddingSettings, num_samples: int = 40) -> pd.DataFrame:
    """Outputs of untrained decoders without biases for z ~ N(0, I), before the sigmoid, by activation and scale.

    The scale multiplies the weights of Xavier's initialisation; weights and z are the same for all.

    Args:
        settings: Sizes of the decoder.
        num_samples: Draws of z.

    Returns:
        Columns activation, scale, sample, step, output.
    """
    parts = []
    for name, activation in ACTIVATIONS.items():
        for scale in SCALES:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(0, "initial_decoders"))
                hidden = [settings.decoder.hidden_size] * settings.decoder.num_layers
                net = mlp([settings.controller.latent_size, *hidden, settings.controller.horizon], activation)
                for layer in net:
                    if isinstance(layer, nn.Linear):
                        nn.init.xavier_normal_(layer.weight).mul_(scale)
                        nn.init.zeros_(layer.bias)
                outputs = net(torch.randn(num_samples, settings.controller.latent_size))
            parts.append(
                pd.DataFrame(
                    {
                        "activation": name,
                        "scale": scale,
                        "sample": torch.arange(num_samples).repeat_interleave(settings.controller.horizon).tolist(),
                        "step": list(range(1, settings.controller.horizon + 1)) * num_samples,
                        "output": outputs.flatten().tolist(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True).round(5)


def _accumulated(episode: Episode) -> float:
    return float(episode.costs.sum(1).mean())


def _generator(role: str, *index: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(0, role, *index))
