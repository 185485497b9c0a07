"""A policy's decision as one program of torch.export, which torch alone runs.

A planner's program holds the whole plan: every iteration of its search, unrolled. Its inputs are those of
`PlanningAgent.act`:

    h [B, D], s [B, S], action [B, A], plan [B, n], obs [B, O], noise [T, B, N, n]
    -> action [B, A], and the next h, s, action and plan

A policy over discrete actions: obs [B, O] -> logits [B, A]. B is any number from 1 to MAX_BATCH.
"""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.acting import PlanningPolicy, TrainedAgent
from parsecrl.algorithms.controllers.agent import PlanningAgent

MAX_BATCH = 4096
CHECKED_SIZES = (1, 2, 5)  # of batches
EXAMPLE_SIZE = 7  # of the batch that is traced: where it equals another size, torch.export takes it for a constant
TOLERANCE = 1e-4  # of actions in [-1, 1]; a program multiplies in another order
STATE = ("h", "s", "action", "plan")


class _PlannedDecision(nn.Module):
    def __init__(self, agent: PlanningAgent):
        super().__init__()
        self.agent = agent

    def forward(
        self, h: Tensor, s: Tensor, action: Tensor, plan: Tensor, obs: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        decided, state = self.agent.act({"h": h, "s": s, "action": action, "plan": plan}, obs, noise=noise)
        return decided, *(state[name].clone() for name in STATE)


class _Logits(nn.Module):
    def __init__(self, policy: Any):
        super().__init__()
        self.model, self.network = policy.model, policy.network

    def forward(self, obs: Tensor) -> tuple[Tensor]:
        return (self.network(self.model.encode(obs)),)


def export_policy(agent: TrainedAgent, file: Path) -> float:
    """Write the program, after it was read again and compared with the agent.

    Args:
        agent: Of `load_agent`.
        file: FILE.pt2, in an existing folder.

    Returns:
        The largest difference from the agent's own actions, or logits, over batches of CHECKED_SIZES.

    Raises:
        ValueError: The policy cannot be exported, such as one with own code that torch.export does not follow, or the
            program differs from the agent.
    """
    policy: Any = agent.policy
    plans = isinstance(policy, PlanningPolicy)
    module = copy.deepcopy(_PlannedDecision(policy.agent) if plans else _Logits(policy)).eval()
    module.requires_grad_(False)  # a program keeps which parameters learn, and its actions would ask for gradients
    size = len(agent.vector(agent.observation_space.sample()))
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    axes = ({0: batch},) * 5 + ({1: batch},) if plans else ({0: batch},)
    try:
        with torch.no_grad():
            module(*_inputs(policy, plans, size, 1))  # a model may read a buffer once, which a trace cannot
            program = torch.export.export(module, _inputs(policy, plans, size, EXAMPLE_SIZE), dynamic_shapes=axes)
            stored = io.BytesIO()
            torch.export.save(program, stored)
    except Exception as error:  # of torch's many kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the decisions of this agent cannot be exported ({reason}); serve the agent, or load it by load_agent"
        ) from None
    again = torch.export.load(io.BytesIO(stored.getvalue())).module()
    difference = 0.0
    with torch.no_grad():
        for count in CHECKED_SIZES:
            inputs = _inputs(policy, plans, size, count)
            for own, other in zip(module(*inputs), again(*inputs), strict=True):
                difference = max(difference, float((own - other).abs().max()))
    if not difference <= TOLERANCE:
        raise ValueError(f"the program differs from the agent by {difference:.2g}, over {TOLERANCE}; serve the agent")
    file.write_bytes(stored.getvalue())
    return difference


def _inputs(policy: Any, plans: bool, size: int, count: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    obs = torch.randn(count, size, generator=generator)
    if not plans:
        return (obs,)
    iterations, samples, variables = policy.agent.controller.noise_shape
    noise = torch.randn(iterations, count, samples, variables, generator=generator)
    state = policy.initial_state(count)
    return (*(state[name] for name in STATE), obs, noise)
