"""Planners of TorchRL and stable-worldmodel beside the project's, on one model of the paper's sizes, in turn.

The peers get the project's plain rollout as their batched cost, so that searches are compared and models are not.
Times are medians of processor time on one thread; ratios are to the project's plan of the same beliefs.
"""

import importlib.util
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.controllers import FullSpaceController
from parsecrl.algorithms.models import RSSM, Belief

OBS, A, H = 17, 6, 12  # cheetah.run; the paper's horizon
SAMPLES, ELITES, ITERATIONS = 1000, 100, 10
ROUNDS = 5

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_cost(model: RSSM, belief: Belief, actions: Tensor) -> Tensor:
    """Minus the rewards [B, N] of actions [B, N, H, A], by the plain rollout."""
    rewards = model.reward_net(model._roll_out(belief, actions)).view(H, *actions.shape[:2])
    return -rewards.sum(0)


def belief_of(model: RSSM, B: int) -> Belief:
    generator = torch.Generator().manual_seed(0)
    sizes = (model.deterministic_size, model.stochastic_size)
    return Belief(*(torch.randn(B, size, generator=generator).tanh() for size in sizes))


def torchrl_plan(model: RSSM, belief: Belief) -> Callable[[], object]:
    """A plan of TorchRL's CEMPlanner, which takes one state."""
    pytest.importorskip("torchrl")
    from tensordict import TensorDict
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs import EnvBase
    from torchrl.modules.planners import CEMPlanner

    D, S = belief.h.shape[-1], belief.s.shape[-1]

    class Latents(EnvBase):
        def __init__(self) -> None:
            super().__init__(batch_size=[])
            self.observation_spec = Composite(h=Unbounded((D,)), s=Unbounded((S,)))
            self.state_spec = self.observation_spec.clone()
            self.action_spec, self.reward_spec = Bounded(-1, 1, (A,)), Unbounded((1,))
            self._batch_locked = False

        def _reset(self, tensordict: Any = None, **options: Any) -> TensorDict:
            return TensorDict(h=belief.h[0], s=belief.s[0], batch_size=[])

        def _step(self, tensordict: TensorDict) -> TensorDict:
            lead = tensordict["h"].shape[:-1]
            inputs = torch.cat([tensordict["s"], tensordict["action"]], -1).flatten(0, -2)
            h = model.next_h(inputs, tensordict["h"].flatten(0, -2))
            s = model.prior(h).mean
            found = {"h": h, "s": s, "reward": model.reward_net(torch.cat([h, s], -1))}
            after = {name: value.view(*lead, -1) for name, value in found.items()}
            return TensorDict(after | {"done": torch.zeros(*lead, 1, dtype=torch.bool)}, batch_size=lead)

        def _set_seed(self, seed: int | None) -> None:
            torch.manual_seed(seed or 0)

    env = Latents()
    planner = CEMPlanner(env, planning_horizon=H, optim_steps=ITERATIONS, num_candidates=SAMPLES, top_k=ELITES)
    start = env.reset()
    return lambda: planner(start.clone())


def stable_worldmodel_plan(model: RSSM, belief: Belief) -> Callable[[], object]:
    """A plan of stable-worldmodel's CEMSolver. Of the package, its solvers alone are imported, without its datasets."""
    name = "stable_worldmodel"
    if name not in sys.modules:
        found = importlib.util.find_spec(name)
        if found is None:
            pytest.skip("stable-worldmodel is not installed")
        package = types.ModuleType(name)
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules[name] = package
    from gymnasium.spaces import Box
    from stable_worldmodel.solver.cem import CEMSolver

    class Costs:
        def get_cost(self, info: dict[str, Tensor], actions: Tensor) -> Tensor:
            return plain_cost(model, Belief(info["h"][:, 0], info["s"][:, 0]), actions)

        def parameters(self) -> Any:
            return model.parameters()

    B = len(belief.h)
    solver = CEMSolver(Costs(), batch_size=B, num_samples=SAMPLES, n_steps=ITERATIONS, topk=ELITES)
    config = types.SimpleNamespace(horizon=H, action_block=1)
    solver.configure(action_space=Box(-1.0, 1.0, (B, A)), n_envs=B, config=config)
    return lambda: solver.solve({"h": belief.h, "s": belief.s})


PEERS = {"TorchRL": torchrl_plan, "stable-worldmodel": stable_worldmodel_plan}


@pytest.mark.parametrize(("peer", "B"), [("TorchRL", 1), ("stable-worldmodel", 1), ("stable-worldmodel", 8)])
def test_a_plan_of_1000_candidates_beside_a_peers(benchmark, peer, B):
    torch.manual_seed(0)
    model = RSSM(OBS, A)
    belief, generator = belief_of(model, B), torch.Generator().manual_seed(0)
    controller = FullSpaceController(H, A, SAMPLES, ELITES, ITERATIONS)
    plans = {"parsecrl": lambda: controller.plan(model, belief, generator=generator), peer: PEERS[peer](model, belief)}
    seconds: dict[str, list[float]] = {name: [] for name in plans}

    @torch.no_grad()
    def in_turn() -> None:
        for name, plan in plans.items():
            start = time.process_time()
            plan()
            seconds[name].append(time.process_time() - start)

    in_turn()  # warms up
    for times in seconds.values():
        times.clear()
    benchmark.pedantic(in_turn, rounds=ROUNDS, warmup_rounds=0)
    ratio = statistics.median(b / a for a, b in zip(seconds["parsecrl"], seconds[peer], strict=True))
    medians = ", ".join(f"{name} {statistics.median(times) * 1e3:,.0f} ms" for name, times in seconds.items())
    print(f"\n{B} belief(s): {medians}; {peer} / parsecrl: {ratio:.2f}")
    benchmark.extra_info["ratio"] = ratio
