# %% [markdown]
# # Plan with `dcem` on a function
#
# You minimise a function by the cross-entropy method, and differentiate through the minimiser.
# Torch alone is needed. The script takes 7 seconds, most of them torch's import.
#
# ## A minimum
#
# `cem` draws candidates from a normal distribution and keeps the best. The next distribution is
# fitted to these. An objective maps candidates [B, N, n] to costs [B, N]: B problems at once, N
# candidates each, n variables.

# %%
import math

import torch

import parsecrl


def himmelblau(x):  # four minima of cost 0, one of them at (3, 2)
    a, b = x[..., 0], x[..., 1]
    return (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2


generator = torch.Generator().manual_seed(0)
start = torch.tensor([[2.0, 2.0]])
solution = parsecrl.cem(himmelblau, start, torch.ones(1, 2), num_iterations=20, generator=generator)
print("minimum", solution.mean)

# %% [markdown]
# The answer is `solution.mean` [B, n].

# %%
assert torch.allclose(solution.mean, torch.tensor([[3.0, 2.0]]), atol=0.05)

# %% [markdown]
# ## A gradient through the search
#
# `dcem` replaces the choice of the best by a soft one, with weights in (0, 1). The answer is then
# differentiable in whatever the objective depends on. Here the minimum is at `target`, so that
# the answer's derivative by `target` is 1.

# %%
target = torch.tensor([0.3, -0.2], requires_grad=True)
solution = parsecrl.dcem(
    lambda x: ((x - target) ** 2).sum(-1), torch.zeros(1, 2), torch.ones(1, 2), generator=generator
)
solution.mean.sum().backward()
print("answer", solution.mean.detach(), "derivative", target.grad)

# %%
assert torch.allclose(solution.mean, target, atol=0.05)
assert torch.allclose(target.grad, torch.ones(2), atol=0.3)

# %% [markdown]
# The temperature says how soft the choice is. At 0 the choice is that of `cem`.
#
# ## A plan
#
# A plan is a sequence of actions. The cost of a plan is what a model predicts. The model here is
# known: a pendulum of Gymnasium's `Pendulum-v1`. The variables are 20 torques in [-2, 2].

# %%
HORIZON = 20


def swing_up(torques):  # [B, N, 20] -> [B, N]; the pendulum starts at 1 rad from upright
    angle, speed = torch.full_like(torques[..., 0], 1.0), torch.zeros_like(torques[..., 0])
    cost = torch.zeros_like(angle)
    for torque in torques.unbind(-1):
        cost = cost + angle**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = speed + 0.05 * (15 * angle.sin() + 3 * torque)
        angle = angle + 0.05 * speed
    return cost


plan = parsecrl.cem(
    swing_up,
    torch.zeros(1, HORIZON),
    torch.full((1, HORIZON), 2.0),
    num_samples=500,
    num_elites=50,
    bounds=(-2.0, 2.0),
    generator=generator,
)
planned = swing_up(plan.mean[:, None]).item()
idle = swing_up(torch.zeros(1, 1, HORIZON)).item()
print(f"cost of the plan {planned:.1f}, without torque {idle:.1f}")

# %%
assert plan.mean.abs().max() <= 2
assert planned < idle < math.inf

# %% [markdown]
# [Methods](../explanation/methods.md) has the equations, and [solvers](../reference/solvers.md)
# all arguments. Next: [an agent that learns its model](train_and_act.md).
