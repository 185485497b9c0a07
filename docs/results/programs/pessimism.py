"""The table of pessimism.md: what plans promise and what they bring, with and without a penalty on disagreement.

An ensemble is fitted to a checkpoint's replay but for the last episodes; the model stays as it is. iCEM and CEM plan
with several weights of the penalty. So does an embedded controller whose decoder was trained in the model alone, on the
replay, with that weight: phase 2's offline case.

python docs/results/programs/pessimism.py CHECKPOINT [--pessimism 0 1 4] [--episodes 4] [--decisions 250]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from closed_loop import agent_like, play, replay, slices

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.controllers import cost_scale, predicted_cost
from parsecrl.algorithms.models import Belief

HORIZON, HELD_OUT = 12, 2
SEARCH = {"horizon": HORIZON, "num_samples": 30, "num_elites": 4, "num_iterations": 3, "warm_start": True}
ICEM = {**SEARCH, "num_samples": 36}
EMBEDDED = {"horizon": HORIZON, "latent_size": 16, "num_samples": 30, "num_elites": 4, "num_iterations": 3}
DECODER = {"conditioning": "belief"}


def fit(model: Any, data: Any, updates: int) -> None:
    """Train the ensemble alone: its loss reaches no other part."""
    optimizer, generator = (
        torch.optim.Adam(model.ensemble.parameters(), 1e-3, eps=1e-4),
        torch.Generator().manual_seed(0),
    )
    for _ in range(updates):
        sequence = slices(data, 50, 50, generator)
        with torch.no_grad():
            belief, _, posterior = model.observe(
                sequence, torch.randn(50, 50, model.stochastic_size, generator=generator)
            )
        reward = model.reward_norm(sequence.reward[..., None]).squeeze(-1)
        loss = model.ensemble.loss(*belief, posterior.mean, reward, (~sequence.is_first).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def judge(model: Any, data: Any) -> tuple[float, float, float]:
    """Disagreement on plans that were executed, on others, and its correlation with the reward's error."""
    generator = torch.Generator().manual_seed(1)
    sequence = slices(data, 64, 10 + HORIZON, generator)
    past = type(sequence)(*(x[:, :10] for x in sequence))
    filtered = model.filter_sequence(past, generator)
    belief = Belief(filtered.h[:, -1], filtered.s[:, -1])
    executed = sequence.action[:, 9 : 9 + HORIZON][:, None]
    known = model.predict_outcome(belief, executed, judged=True)
    strange = model.predict_outcome(belief, executed.roll(1, 0).sign(), judged=True)
    error = (known.rewards[:, 0] - sequence.reward[:, 10 : 10 + HORIZON]).abs().mean(1)
    correlation = np.corrcoef(known.disagreement[:, 0].mean(1).numpy(), error.numpy())[0, 1]
    return known.disagreement.mean().item(), strange.disagreement.mean().item(), float(correlation)


def train_decoder(agent: Any, data: Any, updates: int) -> None:
    """Algorithm 3's loss in the model, on beliefs of the replay."""
    agent.model.requires_grad_(False)
    optimizer, generator = torch.optim.Adam(agent.decoder.parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(updates):
        with torch.no_grad():
            filtered = agent.model.filter_sequence(slices(data, 8, 10, generator), generator)
        belief = Belief(filtered.h[:, -1], filtered.s[:, -1])
        plan = agent.controller.plan(agent.model, belief, generator=generator)
        cost = predicted_cost(agent.model, belief, plan.actions[:, None], agent.controller.score).mean()
        optimizer.zero_grad()
        (cost / cost_scale(agent.model)).backward()
        optimizer.step()


def main() -> None:
    """Print what the ensemble says, what a plan costs with it, and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--pessimism", type=float, nargs="+", default=[0.0, 1.0, 4.0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--decisions", type=int, default=250)
    parser.add_argument("--ensemble-updates", type=int, default=300)
    parser.add_argument("--decoder-updates", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agent, described = load_agent(arguments.checkpoint)
    data = replay(arguments.checkpoint)
    train, test = (tuple(x[part] for x in data) for part in (slice(None, -HELD_OUT), slice(-HELD_OUT, None)))
    judged = agent_like(agent, {"kind": "full", **SEARCH}, {}, ensemble=5)
    start = time.process_time()
    fit(judged.model, train, arguments.ensemble_updates)
    seen, unseen, correlation = judge(judged.model, test)
    print(
        f"ensemble: {time.process_time() - start:.0f} s of the processor, held-out disagreement {seen:.3f} on executed"
    )
    print(f"plans, {unseen:.3f} on others; correlation with the reward's error {correlation:.2f}\n")
    print(
        "| controller | pessimism | promised | achieved | gap | return | ms a decision |\n|---|---|---|---|---|---|---|"
    )
    for kind, search in (("icem", ICEM), ("full", SEARCH), ("embedded", EMBEDDED)):
        for pessimism in arguments.pessimism:
            group = {"kind": kind, **search, "pessimism": pessimism}
            made = agent_like(judged, group, DECODER if kind == "embedded" else {}, ensemble=5)
            if kind == "embedded":
                train_decoder(made, train, arguments.decoder_updates)
            played = play(made, described["env"], list(range(2000, 2000 + arguments.episodes)), arguments.decisions)
            ahead = np.lib.stride_tricks.sliding_window_view(played.rewards, HORIZON, axis=1).sum(-1)
            promised, achieved = played.predicted[:, : ahead.shape[1]].mean(), ahead.mean()
            returns = played.rewards.sum(1)
            spread = returns.std(ddof=1) / len(returns) ** 0.5
            print(
                f"| {kind} | {pessimism:g} | {promised:.2f} | {achieved:.2f} | {promised - achieved:.2f} "
                f"| {returns.mean():.0f} ± {spread:.0f} | {1000 * played.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
