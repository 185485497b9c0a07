"""The tables of searches.md: searches at equal evaluations in a known model, and in a trained one.

python docs/results/programs/searches.py pendulum [--evaluations 60 300]
python docs/results/programs/searches.py CHECKPOINT [--evaluations 60 300] [--episodes 4] [--decisions 250]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from closed_loop import agent_like, play, replay, slices

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.controllers import make_controller
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.models.pendulum import pendulum

ITERATIONS = 3
ICEM = {"kind": "icem", "decay": 1.25, "num_iterations": ITERATIONS}


def controllers(evaluations: int, horizon: int) -> dict[str, dict[str, Any]]:
    """Controllers of about so many evaluations for a decision."""
    N = evaluations // ITERATIONS
    elites = max(4, N // 10)
    plain = {"num_samples": N, "num_elites": elites, "num_iterations": ITERATIONS, "horizon": horizon}
    shrinking = round((evaluations - round(0.3 * elites) - 1) / (1 + 1 / 1.25 + 1 / 1.25**2))
    icem = {**ICEM, "num_samples": shrinking, "num_elites": elites, "horizon": horizon}
    equal = {**plain, "decay": 1.0, "num_samples": (evaluations - round(0.3 * elites) - 1) // ITERATIONS}
    return {
        "random": {
            "kind": "full",
            "num_samples": evaluations,
            "num_elites": 1,
            "num_iterations": 1,
            "horizon": horizon,
        },
        "CEM": {"kind": "full", **plain},
        "CEM, warm start": {"kind": "full", **plain, "warm_start": True},
        "MPPI": {"kind": "mppi", **plain, "num_elites": 2 * elites},
        "iCEM": icem,
        "iCEM, deviation 1": {**icem, "init_std": 1.0},
        "iCEM, white noise": {**icem, "noise_exponent": 0.0},
        "iCEM, no kept elites": {**icem, "kept_fraction": 0.0},
        "iCEM, mean returned": {**icem, "return_best": False},
        "iCEM, no decay": {"kind": "icem", **equal},
    }


@torch.no_grad()
def swing_up(evaluations: int, starts: int = 32, decisions: int = 60) -> None:
    """The known pendulum from the same random states for each search; its cost is its own."""
    system, horizon = pendulum(), 15
    for name, group in controllers(evaluations, horizon).items():
        controller: Any = make_controller(system, group, {})  # type: ignore[arg-type]  # has what a plan asks
        generator = torch.Generator().manual_seed(1)
        state, warm, costs = system.sample_states(starts, torch.Generator().manual_seed(0)), None, []
        promised, begin = [], time.process_time()
        for _ in range(decisions):
            belief = system.belief(state)
            plan = controller.plan(system, belief, warm if controller.warm_start else None, generator=generator)
            warm, action = controller.shift(plan, belief), system.scale(plan.actions[:, 0])
            promised.append(system.predict_rewards(belief, plan.actions[:, None]).sum(-1).mean())
            costs.append(system.cost(state, action))
            state = system.transition(state, action)
        seconds = (time.process_time() - begin) / decisions / starts
        row(
            controller.trajectories,
            name,
            float(torch.stack(promised).mean()),
            -torch.stack(costs).sum(0).numpy(),
            seconds,
        )


def row(evaluations: int, name: str, promised: float, returns: np.ndarray, seconds: float) -> None:
    """Print a line of the table: mean return and its standard error over episodes."""
    spread = returns.std(ddof=1) / len(returns) ** 0.5
    print(
        f"| {evaluations} | {name} | {promised:.2f} | {returns.mean():.1f} ± {spread:.1f} | {1000 * seconds:.1f} |",
        flush=True,
    )


def trained(arguments: argparse.Namespace) -> None:
    """A checkpoint's model: plans of 64 replayed beliefs, cold, and episodes."""
    agent, described = load_agent(arguments.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        filtered = agent.model.filter_sequence(slices(replay(arguments.model), 64, 20, generator), generator)
    fixed = Belief(filtered.h[:, -1], filtered.s[:, -1])  # [64]
    for evaluations in arguments.evaluations:
        for name, group in controllers(evaluations, 12).items():
            made = agent_like(agent, group, {})
            with torch.no_grad():
                plan = made.controller.plan(made.model, fixed, generator=torch.Generator().manual_seed(1))
                promised = made.model.predict_rewards(fixed, plan.actions[:, None]).sum(-1).mean()
            played = play(made, described["env"], list(range(1000, 1000 + arguments.episodes)), arguments.decisions)
            row(made.controller.trajectories, name, float(promised), played.rewards.sum(1), played.seconds)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="pendulum, or the folder of a checkpoint")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--decisions", type=int, default=250)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| evaluations | search | predicted | return | ms a decision |\n|---|---|---|---|---|")
    if arguments.model == "pendulum":
        for evaluations in arguments.evaluations:
            swing_up(evaluations)
    else:
        trained(arguments)


if __name__ == "__main__":
    main()
