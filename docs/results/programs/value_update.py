"""Processor time of an update of the world model, and of the update of critic and actor beside it."""

import time
from collections.abc import Callable

import numpy as np
import torch

from parsecrl.algorithms.models import RSSM, ActorCritic, Belief, LossWeights, ReplaySequence, actor_critic_loss
from parsecrl.algorithms.planet.planet_rl_module import frozen

B = T = 50  # the default batch; 200 beliefs and 8 steps are the defaults of `value`


def seconds(update: Callable[[], object]) -> float:
    update()
    times = []
    for _ in range(9):
        start = time.process_time()
        update()
        times.append(time.process_time() - start)
    return float(np.median(times))


def measure(task: str, obs_size: int, action_size: int, terminates: bool) -> None:
    model = RSSM(obs_size, action_size)
    actor_critic = ActorCritic(model.belief_size, action_size)
    flags = torch.zeros(2, B, T, dtype=torch.bool)
    flags[1, :, 20] = terminates
    drawn = torch.randn(B, T, obs_size), 2 * torch.rand(B, T, action_size) - 1, torch.randn(B, T)
    sequence = ReplaySequence(*drawn, *flags)
    optimisers = [torch.optim.Adam(part.parameters(), 1e-3) for part in (model, actor_critic)]

    def step(part: torch.nn.Module, loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(part.parameters(), 100)
        optimiser.step()

    def of_model() -> Belief:
        model.update_statistics(sequence)
        loss, _, beliefs = model.loss(sequence, LossWeights())
        step(model, loss, optimisers[0])
        return beliefs.detach().flatten()

    beliefs = of_model()

    def of_value() -> None:
        chosen = torch.randperm(B * T)[:200]
        start = Belief(*(part[chosen] for part in beliefs))
        with frozen(model):
            eps = torch.randn(8, 200, action_size)
            loss, _ = actor_critic_loss(model, actor_critic, start, torch.ones(200), eps, 0.95)
        step(actor_critic, loss, optimisers[1])
        actor_critic.move_slow_critic(0.02)

    model_s, value_s = seconds(of_model), seconds(of_value)
    print(f"{task}: model {1e3 * model_s:.0f} ms, value {1e3 * value_s:.0f} ms, together {1 + value_s / model_s:.2f}")


torch.set_num_threads(1)
torch.manual_seed(0)
measure("cheetah", 17, 6, terminates=False)
measure("hopper", 11, 3, terminates=True)
