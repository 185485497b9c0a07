"""A deterministic world model: a recurrent network predicts how the observation changes, and the reward.

    h_t = GRU([o_{t-1}, u_{t-1}], h_{t-1})      o_t = o_{t-1} + f(h_t)      r_t = g(h_t, o_t)

Axes: B beliefs or sequences, N candidates, T steps, H horizon, O observation, A action, D state of the GRU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models import Belief, LossWeights, ReplaySequence
from parsecrl.algorithms.models.layers import RunningNorm, mlp


class GRUModel(nn.Module):
    """Belief.h is the GRU's state; Belief.s the last observation, seen or predicted, standardised.

    Args:
        obs_size: O.
        action_size: A.
        hidden_size: D.
    """

    def __init__(self, obs_size: int, action_size: int, hidden_size: int = 32):
        super().__init__()
        self.obs_size, self.action_size = obs_size, action_size
        self.deterministic_size, self.stochastic_size = hidden_size, obs_size
        self.belief_size = hidden_size + obs_size
        self.obs_norm = RunningNorm(obs_size)
        self.gru = nn.GRUCell(obs_size + action_size, hidden_size)
        self.change_net = mlp([hidden_size, hidden_size, obs_size])
        self.reward_net = mlp([hidden_size + obs_size, hidden_size, 1])

    def initial_belief(self, batch_size: int) -> Belief:
        zeros = self.gru.weight_hh.new_zeros
        return Belief(zeros(batch_size, self.deterministic_size), zeros(batch_size, self.stochastic_size))

    def update_belief(self, belief: Belief, action: Tensor, obs: Tensor) -> Belief:
        return Belief(self.step(belief, action).h, self.obs_norm(obs))

    def step(self, belief: Belief, action: Tensor) -> Belief:
        """The belief [R] after action [R, A], before its observation is seen."""
        h = self.gru(torch.cat([belief.s, action], -1), belief.h)
        return Belief(h, belief.s + self.change_net(h))

    def reward(self, belief: Belief) -> Tensor:
        """belief [...] -> [...]."""
        return self.reward_net(torch.cat(belief, -1)).squeeze(-1)

    def filter_sequence(self, sequence: ReplaySequence, generator: torch.Generator | None = None) -> Belief:
        return self._filter(sequence)[0]

    def _filter(self, sequence: ReplaySequence) -> tuple[Belief, Belief]:
        """The beliefs [B, T] after each observation, and those before it is seen."""
        keep = (~sequence.is_first).to(sequence.obs.dtype)[..., None]  # [B, T, 1]: nothing passes a first step
        action = torch.cat([torch.zeros_like(sequence.action[:, :1]), sequence.action[:, :-1]], 1) * keep
        seen = self.obs_norm(sequence.obs)
        belief = self.initial_belief(len(seen))
        ahead = []
        for t in range(seen.shape[1]):
            ahead.append(self.step(Belief(belief.h * keep[:, t], belief.s * keep[:, t]), action[:, t]))
            belief = Belief(ahead[-1].h, seen[:, t])
        h, s = (torch.stack(steps, 1) for steps in zip(*ahead, strict=True))
        return Belief(h, seen), Belief(h, s)

    def update_statistics(self, sequence: ReplaySequence) -> None:
        self.obs_norm.update(sequence.obs)

    def loss(
        self, sequence: ReplaySequence, weights: LossWeights, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Belief]:
        """Squared errors of the one-step predictions; the other weights belong to terms that this model lacks."""
        belief, ahead = self._filter(sequence)
        known = (~sequence.is_first).to(sequence.obs.dtype)  # a first observation follows no prediction
        terms = {
            "observation": ((ahead.s - belief.s).square().sum(-1) * known).mean(),
            "reward": ((self.reward(ahead) - sequence.reward).square() * known).mean(),
        }
        loss = weights.observation_weight * terms["observation"] + weights.reward_weight * terms["reward"]
        terms["model_loss"] = loss
        return loss, {name: term.detach() for name, term in terms.items()}, belief

    def predict(self, belief: Belief, actions: Tensor) -> tuple[Tensor, Tensor]:
        B, N, H, A = actions.shape
        rows = Belief(*(x[:, None].expand(B, N, -1).reshape(B * N, -1) for x in belief))
        obs, rewards = [], []
        for action in actions.reshape(B * N, H, A).unbind(1):
            rows = self.step(rows, action)
            obs.append(self.obs_norm.inverse(rows.s))
            rewards.append(self.reward(rows))
        return torch.stack(obs, 1).view(B, N, H, -1), torch.stack(rewards, 1).view(B, N, H)

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        return self.predict(belief, actions)[1]

    def transition_parameters(self) -> list[nn.Parameter]:
        return [*self.gru.parameters(), *self.change_net.parameters()]

    def reward_parameters(self) -> list[nn.Parameter]:
        return list(self.reward_net.parameters())
