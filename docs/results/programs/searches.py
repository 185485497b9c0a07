"""The table of searches.md: searches at equal evaluations in one trained model, and the returns of their episodes.

python docs/results/programs/searches.py CHECKPOINT [--evaluations 60 300] [--episodes 4] [--decisions 250]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from closed_loop import agent_like, play, replay, slices

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.models import Belief

HORIZON, ITERATIONS = 12, 3
ICEM = {"kind": "icem", "decay": 1.25, "num_iterations": ITERATIONS}


def controllers(evaluations: int) -> dict[str, dict[str, Any]]:
    """Controllers of about so many evaluations for a decision."""
    N = evaluations // ITERATIONS
    elites = max(4, N // 10)
    plain = {"num_samples": N, "num_elites": elites, "num_iterations": ITERATIONS, "horizon": HORIZON}
    shrinking = round((evaluations - round(0.3 * elites) - 1) / (1 + 1 / 1.25 + 1 / 1.25**2))
    icem = {**ICEM, "num_samples": shrinking, "num_elites": elites, "horizon": HORIZON}
    equal = {**plain, "decay": 1.0, "num_samples": (evaluations - round(0.3 * elites) - 1) // ITERATIONS}
    return {
        "random": {
            "kind": "full",
            "num_samples": evaluations,
            "num_elites": 1,
            "num_iterations": 1,
            "horizon": HORIZON,
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


def main() -> None:
    """Print a table for each number of evaluations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--decisions", type=int, default=250)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agent, described = load_agent(arguments.checkpoint)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        filtered = agent.model.filter_sequence(slices(replay(arguments.checkpoint), 64, 20, generator), generator)
    fixed = Belief(filtered.h[:, -1], filtered.s[:, -1])  # [64]
    print("| evaluations | search | predicted | return | ms a decision |\n|---|---|---|---|---|")
    for evaluations in arguments.evaluations:
        for name, group in controllers(evaluations).items():
            made = agent_like(agent, group, {})
            with torch.no_grad():
                plan = made.controller.plan(made.model, fixed, generator=torch.Generator().manual_seed(1))
                promised = made.model.predict_rewards(fixed, plan.actions[:, None]).sum(-1).mean()
            played = play(made, described["env"], list(range(1000, 1000 + arguments.episodes)), arguments.decisions)
            returns = played.rewards.sum(1)
            spread = returns.std(ddof=1) / len(returns) ** 0.5
            print(
                f"| {made.controller.trajectories} | {name} | {promised:.2f} | {returns.mean():.0f} ± {spread:.0f} "
                f"| {1000 * played.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
