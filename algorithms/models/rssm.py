"""The recurrent state-space model on proprioceptive observations (DCEM paper, appendix D; Hafner et al. 2018).

    h_t = f(h_{t-1}, s_{t-1}, u_{t-1})      GRU
    s_t ~ p(s_t | h_t)                      prior
    s_t ~ q(s_t | h_t, o_t)                 posterior
    o_t ~ p(o_t | h_t, s_t),  r_t ~ p(r_t | h_t, s_t),  c_t ~ p(c_t | h_t, s_t)      c_t: not terminated

Axes: B sequences or beliefs, N candidates, T steps, H horizon, O observation, A action, D deterministic, S stochastic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from parsecrl.algorithms.models.beliefs import Belief, Gaussian, Outcome, ReplaySequence
from parsecrl.algorithms.models.ensemble import Ensemble
from parsecrl.algorithms.models.inference_rollout import BLOCK_ROWS, roll_out_in_place
from parsecrl.algorithms.models.layers import RunningNorm, gru_step, mlp
from parsecrl.algorithms.models.matrix_products import linear, torch_multiplies_on_cpu
from parsecrl.algorithms.models.recurrent_core import Posterior, RecurrentCore, kl_divergence

__all__ = ["RSSM", "LossWeights", "Posterior", "kl_divergence"]


class LossWeights(NamedTuple):
    """Weights of the terms of the likelihood bound; the spec's `loss` group."""

    observation_weight: float = 0.5  # times the squared error summed over the standardised observation
    reward_weight: float = 20.0  # times the error of the standardised reward, squared where small
    kl_weight: float = 1.0
    free_nats: float = 1.0  # per step; below it the KL term gives no gradient
    overshooting_steps: int = 1  # D of the multi-step bound; 1 is the one-step bound
    overshooting_weight: float = 1.0  # beta_d, d > 1
    continuation_weight: float = 1.0  # times the cross-entropy of termination, in nats


REWARD_OUTLIER, REWARD_MEMORY = 100.0, 1e6  # of `RunningNorm`: rewards rarer than 1 in 10,000 do not decide the scale
HUBER = 2.0  # standard deviations, where the reward's error goes over from square to linear
MOST_WEIGHT = 100.0  # of a terminal step against another


def pseudo_huber(error: Tensor, width: float = HUBER) -> Tensor:
    """The square of small errors, 2 width |error| of large ones (Charbonnier et al. 1997).

    Args:
        error: [...].
        width: Where one goes over into the other, > 0.

    Returns:
        [...].
    """
    return 2 * width**2 * ((1 + (error / width) ** 2).sqrt() - 1)


class RSSM(RecurrentCore):
    """Recurrent state-space model; every function but the GRU has two layers of `hidden_size` ReLU units.

    Args:
        obs_size: O.
        action_size: A.
        deterministic_size: D.
        stochastic_size: S.
        hidden_size: Units of each hidden layer.
        min_std: Least standard deviation of a state, > 0.
        ensemble: K, members that tell where the model has seen no data; 1 for no such members.
    """

    obs_norm: RunningNorm
    steps: Tensor  # [] float64, that could have been terminal
    terminations: Tensor  # [] float64, that were

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        deterministic_size: int = 200,
        stochastic_size: int = 30,
        hidden_size: int = 200,
        min_std: float = 0.1,
        ensemble: int = 1,
    ):
        D, S, K = deterministic_size, stochastic_size, hidden_size
        super().__init__(obs_size, action_size, D, S, K, min_std, standardize=True)
        self.obs_size = obs_size
        self.obs_net = mlp([D + S, K, K, obs_size])
        self.reward_net = mlp([D + S, K, K, 1])  # standardised
        self.reward_norm = RunningNorm(1, outlier=REWARD_OUTLIER, memory=REWARD_MEMORY)
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.register_buffer("terminations", torch.zeros((), dtype=torch.float64))
        self._terminates: bool | None = False  # None: to be read from the buffer
        # On the side: what is made after the model draws the same weights as without this part.
        with torch.random.fork_rng(devices=[]):
            self.continuation_net = mlp([D + S, K, K, 1])
            self.ensemble = Ensemble(ensemble, D, S) if ensemble > 1 else None

    @property
    def belief_size(self) -> int:
        """D + S."""
        return self.deterministic_size + self.stochastic_size

    def transition_parameters(self) -> list[nn.Parameter]:
        """What a planner's rollout runs through, the reward aside."""
        return [*self.gru.parameters(), *self.prior_net.parameters()]

    def reward_parameters(self) -> list[nn.Parameter]:
        """What makes a reward of a predicted state."""
        return list(self.reward_net.parameters())

    @property
    def reward_scale(self) -> Tensor:
        """The size of rewards that matters to a plan [], environment units, > 0.

        Their running standard deviation: a constant reward for every step changes no choice. Where episodes terminate
        it does: then their root mean square counts, as it does where all rewards are the same.
        """
        norm = self.reward_norm
        std, rms = norm.std[0], (norm.var[0] + norm.mean[0] ** 2).sqrt()
        is_constant = norm.var[0].sqrt() < std
        scale = torch.where((self.terminations > 0) | is_constant, torch.maximum(rms, std), std)
        return scale.to(self.gru.weight_hh.dtype)

    @property
    def terminates(self) -> bool:
        """Whether a termination was seen. Read from the device once after weights have come, not in every plan."""
        if self._terminates is None:
            self._terminates = bool(self.terminations > 0)
        return self._terminates

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._terminates = None

    @torch.no_grad()
    def update_statistics(self, sequence: ReplaySequence) -> None:
        """As `WorldModel.update_statistics`: observations, rewards, and how often episodes terminate."""
        known = ~sequence.is_first
        self.obs_norm.update(sequence.obs)
        self.reward_norm.update(sequence.reward[..., None], known)
        self.steps += known.sum()
        self.terminations += (known & sequence.terminated).sum()
        self._terminates = None

    def update_belief(self, belief: Belief, action: Tensor, obs: Tensor) -> Belief:
        """As `WorldModel.update_belief`, with the posterior's mean."""
        h = self.next_h(torch.cat([belief.s, action], -1), belief.h)
        return Belief(h, self.posterior(h, self.see(obs)).mean)

    def observe(self, sequence: ReplaySequence, noise: Tensor) -> Posterior:
        """Filter whole sequences with sampled states.

        What comes before an is_first step has no influence on what follows it.

        Args:
            sequence: B slices of T steps.
            noise: Standard normal [T, B, S].

        Returns:
            Beliefs, priors and posteriors of all steps.
        """
        keep = (~sequence.is_first).to(sequence.obs.dtype)[..., None]  # [B, T, 1]
        previous_action = torch.cat([torch.zeros_like(sequence.action[:, :1]), sequence.action[:, :-1]], 1) * keep
        belief, posterior = self.filter(self.see(sequence.obs), previous_action, keep, noise)
        return Posterior(belief, self.prior(belief.h), posterior)

    def filter_sequence(self, sequence: ReplaySequence, generator: torch.Generator | None = None) -> Belief:
        """The sampled beliefs [B, T] of whole sequences; see `observe`."""
        return self.observe(sequence, self._noise(sequence, generator)).belief

    def _noise(self, sequence: ReplaySequence, generator: torch.Generator | None) -> Tensor:
        B, T = sequence.obs.shape[:2]
        return torch.randn(T, B, self.stochastic_size, generator=generator, device=sequence.obs.device)

    def loss(
        self, sequence: ReplaySequence, weights: LossWeights, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Belief]:
        """The negative multi-step bound (Hafner et al. 2018, eq. 6), averaged over B and T.

        Likelihoods are Gaussians of unit variance, up to the weights and a constant.

        Args:
            sequence: B slices of T steps.
            weights: Of the terms.
            generator: Of the states' noise.

        Returns:
            The loss [], its terms (detached) and the beliefs [B, T]. Terms: "observation", "reward", "kl" in nats,
            "overshooting_kl" where there is overshooting, "continuation" where a termination was seen, "ensemble" where
            there is one, "model_loss".
        """
        belief, prior, posterior = self.observe(sequence, self._noise(sequence, generator))
        features = torch.cat(belief, -1)
        obs_error = ((self.obs_net(features) - self.obs_norm(sequence.obs)) ** 2).sum(-1)  # [B, T]
        known = (~sequence.is_first).to(features.dtype)  # no reward arrives with a first observation
        reward = self.reward_norm(sequence.reward[..., None])
        reward_error = pseudo_huber((self.reward_net(features) - reward).squeeze(-1)) * known
        kl = kl_divergence(posterior, prior)
        terms = {"observation": obs_error.mean(), "reward": reward_error.mean(), "kl": kl.mean()}
        divergence = kl.clamp(min=weights.free_nats).mean()
        if weights.overshooting_steps > 1:
            far = self._overshooting_kl(sequence, belief, prior, posterior, weights, generator)
            terms["overshooting_kl"] = far
            divergence = (divergence + weights.overshooting_weight * far) / weights.overshooting_steps
        loss = (
            weights.observation_weight * terms["observation"]
            + weights.reward_weight * terms["reward"]
            + weights.kl_weight * divergence
        )
        if self.terminates:
            terms["continuation"] = self._continuation_loss(features, sequence)
            loss = loss + weights.continuation_weight * terms["continuation"]
        if self.ensemble is not None:
            terms["ensemble"] = self.ensemble.loss(*belief, posterior.mean, reward.squeeze(-1), known)
            loss = loss + terms["ensemble"]
        terms["model_loss"] = loss
        return loss, {name: term.detach() for name, term in terms.items()}, belief

    def _continuation_loss(self, features: Tensor, sequence: ReplaySequence) -> Tensor:
        """Cross-entropy [] of features [B, T, D + S], in which terminal and other steps weigh alike."""
        known = (~sequence.is_first).to(features.dtype)
        weight = known * torch.where(sequence.terminated, self._terminal_weight(), 1.0)
        logit, goes_on = self.continuation_net(features).squeeze(-1), (~sequence.terminated).to(features.dtype)
        entropy = nn.functional.binary_cross_entropy_with_logits(logit, goes_on, weight, reduction="none")
        return entropy.mean()

    def _terminal_weight(self) -> Tensor:
        """How much rarer a terminal step is than another, [].

        A loss in which both weigh alike learns rare terminations as soon as frequent ones. Its odds are too low by this
        factor, which `continuation_logit` makes good.
        """
        ratio = (self.steps - self.terminations) / self.terminations.clamp(min=1)
        return ratio.clamp(1 / MOST_WEIGHT, MOST_WEIGHT).to(self.gru.weight_hh.dtype)

    def continuation_logit(self, features: Tensor) -> Tensor:
        """The logit of p(not terminated | h, s); an untrained head says how often episodes terminate in all.

        Args:
            features: h and s, [..., D + S].

        Returns:
            [...].
        """
        return self.continuation_net(features).squeeze(-1) + self._terminal_weight().log()

    def _overshooting_kl(
        self,
        sequence: ReplaySequence,
        belief: Belief,
        prior: Gaussian,
        posterior: Gaussian,
        weights: LossWeights,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Sum over d = 2..D of KL(q(s_t | o_<=t) || p(s_t | s_{t-d})), all start steps in one batch.

        The posterior at the target is held fixed, as in PlaNet, so that the prediction moves towards it and not the
        other way; the one that the prediction starts from is not. A prediction into another episode is masked.
        """
        D, T = weights.overshooting_steps, sequence.obs.shape[1]
        target = Gaussian(posterior.mean.detach(), posterior.std.detach())
        h, state = belief.h, prior  # [B, T, ...]: the one-step prediction of step t
        valid = ~sequence.is_first  # the prediction of step t started in t's own episode
        valid = torch.cat([torch.zeros_like(valid[:, :1]), valid[:, 1:]], 1)
        total = h.new_zeros(())
        for _ in range(2, min(D, T - 1) + 1):
            # Predict one step further: the prediction of t becomes that of t + 1.
            eps = torch.randn(state.mean.shape, generator=generator, device=h.device)
            s = (state.mean + state.std * eps)[:, :-1]
            x = torch.cat([s, sequence.action[:, -s.shape[1] - 1 : -1]], -1)
            h = self.next_h(x, h[:, :-1])
            state = self.prior(h)
            n = h.shape[1]
            valid = valid[:, :-1] & ~sequence.is_first[:, -n:]
            kl = kl_divergence(Gaussian(target.mean[:, -n:], target.std[:, -n:]), state)
            mask = valid.to(kl.dtype)
            total = total + (kl.clamp(min=weights.free_nats) * mask).sum() / mask.sum().clamp(min=1)
        return total

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        """As `WorldModel.predict_rewards`, with the state at its prior mean."""
        return self._roll_out_and(lambda *rolled: (self._rewards(*rolled),), belief, actions)[0]

    def predict_outcome(self, belief: Belief, actions: Tensor, judged: bool = False) -> Outcome:
        """As `ImaginationModel.predict_outcome`, with the state at its prior mean."""
        read = self._judged_outcome if judged else self._outcome
        rewards, survival, h, s, *disagreement = self._roll_out_and(read, belief, actions)
        return Outcome(rewards, survival, Belief(h, s), *disagreement)

    def next_belief(self, belief: Belief, action: Tensor) -> Belief:
        """As `ImaginationModel.next_belief`, with the state at its prior mean."""
        h = self.next_h(torch.cat([belief.s, action], -1), belief.h)
        return Belief(h, self._prior_mean(h))

    def rewards_and_continuation(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """As `ImaginationModel.rewards_and_continuation`; where no termination was seen, all goes on."""
        features = torch.cat(belief, -1)
        rewards = self.reward_norm.inverse(self.reward_net(features)).squeeze(-1)
        return rewards, self.continuation_logit(features).sigmoid() if self.terminates else torch.ones_like(rewards)

    def predict(self, belief: Belief, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As `WorldModel.predict`, with the state at its prior mean."""
        B, N, H, _ = actions.shape
        features = self._roll_out(belief, actions)
        obs = self.obs_norm.inverse(self.obs_net(features))
        return obs.view(H, B, N, -1).permute(1, 2, 0, 3), self._rewards(features, actions)

    def _roll_out_and(
        self, read: Callable[[Tensor, Tensor], tuple[Tensor, ...]], belief: Belief, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """What `read` makes of the states [H * B * N, D + S] that actions [B, N, H, A] lead to: tensors [B, N, ...]."""
        if torch.is_grad_enabled() or not torch_multiplies_on_cpu(actions):
            return read(self._roll_out(belief, actions), actions)
        blocks = actions.split(max(1, BLOCK_ROWS // len(actions)), 1)
        parts = [read(roll_out_in_place(self.gru, self.prior_net, belief, block), block) for block in blocks]
        return tuple(torch.cat(part, 1) for part in zip(*parts, strict=True))

    def _rewards(self, features: Tensor, actions: Tensor) -> Tensor:
        B, N, H, _ = actions.shape
        rewards = self.reward_norm.inverse(self.reward_net(features)).view(H, B, N)
        if self.terminates and H > 1:
            # Of all steps but the last, after which nothing counts.
            rewards = self._weigh(rewards, self._survival(features[: -B * N], actions))
        return rewards.permute(1, 2, 0)

    def _judged_outcome(self, features: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """`_outcome` and the ensemble's disagreement [B, N, H], weighed by survival as the rewards are."""
        assert self.ensemble is not None
        B, N, H, _ = actions.shape
        apart = self.ensemble.disagreement(features[:, : self.deterministic_size]).view(H, B, N)
        if self.terminates and H > 1:
            apart = self._weigh(apart, self._survival(features[: -B * N], actions))
        return *self._outcome(features, actions), apart.permute(1, 2, 0)

    def _outcome(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parts of an `Outcome`, h and s apart."""
        B, N, H, _ = actions.shape
        rewards = self.reward_norm.inverse(self.reward_net(features)).view(H, B, N)
        last = features[-B * N :].view(B, N, -1).split([self.deterministic_size, self.stochastic_size], -1)
        if not self.terminates:
            return rewards.permute(1, 2, 0), rewards.new_ones(B, N), *last
        survival = self._survival(features, actions)
        return self._weigh(rewards, survival[:-1]).permute(1, 2, 0), survival[-1], *last

    def _survival(self, features: Tensor, actions: Tensor) -> Tensor:
        """The probability [t, B, N] that the episode goes on after each of the first t steps."""
        B, N = actions.shape[:2]
        return logsigmoid(self.continuation_logit(features)).view(-1, B, N).cumsum(0).exp()

    def _weigh(self, rewards: Tensor, survival: Tensor) -> Tensor:
        """Rewards [H, B, N], each times the survival [H - 1, B, N] of the step before; the first is always reached."""
        return torch.cat([rewards[:1], rewards[1:] * survival])

    def _roll_out(self, belief: Belief, actions: Tensor) -> Tensor:
        """The states [H * B * N, D + S] that actions [B, N, H, A] lead to, differentiable.

        What the first step takes from the belief is computed once per belief, not once per candidate.
        """
        B, N, H, A = actions.shape
        S = self.stochastic_size
        w_ih, w_hh, b_ih, b_hh = self.gru.weight_ih, self.gru.weight_hh, self.gru.bias_ih, self.gru.bias_hh
        steps = actions.reshape(B * N, H, A)
        from_action = linear(steps[:, 0], w_ih[:, S:]).unflatten(0, (B, N))  # [B, N, 3D]
        from_state = linear(belief.s, w_ih[:, :S], b_ih)[:, None]  # [B, 1, 3D]
        from_h = linear(belief.h, w_hh, b_hh)[:, None]
        from_input = from_action + from_state
        h = gru_step(from_input, from_h, belief.h[:, None]).flatten(0, 1)  # [B * N, D]
        hs, states = [h], [self._prior_mean(h)]
        for t in range(1, H):
            x = torch.cat([states[-1], steps[:, t]], -1)
            h = self.next_h(x, h)
            hs.append(h)
            states.append(self._prior_mean(h))
        return torch.cat([torch.cat(hs), torch.cat(states)], -1)

    def _prior_mean(self, h: Tensor) -> Tensor:
        x = self.prior_net[:-1](h)
        head: nn.Linear = self.prior_net[-1]  # type: ignore[assignment]  # mypy knows it as any module
        return linear(x, head.weight[: self.stochastic_size], head.bias[: self.stochastic_size])
