"""The cost of the cartpole's expert over 2,000 other initial states."""

import torch

from parsecrl.algorithms.cartpole_embedding.dynamics import make_dynamics
from parsecrl.algorithms.cartpole_embedding.embedding import make_expert, plan_costs
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings

cartpole, g = make_dynamics("cartpole"), torch.Generator().manual_seed(123)
states = cartpole.sample_states(2000, g)
plan = make_expert(cartpole, EmbeddingSettings()).plan(cartpole, cartpole.belief(states), generator=g)
costs = plan_costs(cartpole, states, plan.actions)
print(costs.mean(), costs.std(), costs.view(20, 100).mean(1).aminmax(), costs.view(20, 100).mean(1).std())
