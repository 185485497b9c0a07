"""PPO's update through the planner: passes in minibatches, the policy's gradient of each in micro-batches.

Axes: B rows of T steps as RLlib's connectors pad them; M decisions, the padding dropped; m decisions of a minibatch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor
from torch.optim import Adam

from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import DECISION, DCEMPPORLModule, H, S
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.training.finite_checks import check_finite, register_optimizers
from parsecrl.algorithms.training.rllib_private import OwnUpdate
from parsecrl.algorithms.training.seeding import derive_seed

COLUMNS = (*DECISION, Columns.ACTIONS, Columns.ACTION_LOGP, Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS)

# What results show.
LOSSES = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "fine_tuned_gradient_norm")
DEVIATIONS = ("ratio_deviation", "max_ratio_deviation")


class DCEMPPOLearner(OwnUpdate, PPOTorchLearner):
    """One optimiser for the fine-tuned parts, one for the value network, one for a learned standard deviation.

    A minibatch is one gradient step of each, whatever the micro-batch. Raises FloatingPointError on a loss or gradient
    that is not finite, before any step is taken with it.
    """

    config: Any  # a DCEMPPOConfig

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """As RLlib asks: an Adam for each part."""
        module: DCEMPPORLModule = self.module[module_id].unwrapped()
        optimizers = {
            "fine_tuned": Adam(module.fine_tuned_parameters(), config.learning_rate),
            "value": Adam(module.value_net.parameters(), config.value_learning_rate),
        }
        if module.log_std.requires_grad:
            optimizers["std"] = Adam([module.log_std], config.value_learning_rate)
        register_optimizers(self, module_id, optimizers)

    def update_with(self, batch: dict[str, Any]) -> Tensor:
        """Make `passes` passes through all episodes of the batch.

        Means over the minibatches of the last pass are logged. RLlib's own passes (num_epochs) would take a part of the
        rows for all of them where episodes are short.

        Args:
            batch: Columns by module.

        Returns:
            The mean loss [] of the last pass: the policy's and the value network's.

        Raises:
            FloatingPointError: A loss or a gradient's norm is not finite.
        """
        decisions = select_decisions(batch[DEFAULT_MODULE_ID])
        module: DCEMPPORLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        module.value_norm.update(decisions[Postprocessing.VALUE_TARGETS][:, None])
        for number in range(self.config.passes):
            steps = [self.update_on(minibatch) for minibatch in self.minibatches(decisions, number)]
            if number == 0:  # in the first minibatch the policy is still that of the rollouts
                self._log({name: steps[0][name] for name in DEVIATIONS})
        means = {name: torch.stack([terms[name] for terms in steps]).mean() for name in steps[0]}
        self._log({name: mean for name, mean in means.items() if name not in DEVIATIONS})
        return means["policy_loss"] + means["value_loss"]

    def minibatches(self, decisions: dict[str, Tensor], number: int) -> Iterator[dict[str, Tensor]]:
        """Divide decisions at random into `minibatches` parts that differ by one at most; none is left out.

        Args:
            decisions: Columns [M, ...].
            number: Of the pass, from 0; with the update it seeds the order.

        Yields:
            Columns [m, ...]; there are M parts where M is less than `minibatches`.
        """
        M = len(decisions[Columns.ACTIONS])
        seed = derive_seed(self.config.seed or 0, "minibatches", self.update_calls, number)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(M)).to(self.device)
        for rows in order.tensor_split(min(M, self.config.minibatches)):
            yield {name: column[rows] for name, column in decisions.items()}

    def update_on(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """One gradient step of every optimiser.

        The value network learns in every minibatch, as in the implementation that the paper used.

        Args:
            decisions: Columns [m, ...] of a minibatch.

        Returns:
            The terms of both losses before the step, the gradients' norms, and the deviations of the ratios from 1.
        """
        terms = self.accumulate_policy_gradient(decisions)
        self._check_finite(terms)
        for name in self.policy_optimizers:
            terms[f"{name}_gradient_norm"] = self._step(name)
        terms["value_loss"] = self.update_value(decisions)
        return terms

    @property
    def policy_optimizers(self) -> list[str]:
        """Names of the optimisers that the policy's gradient steps."""
        return ["fine_tuned", "std"] if self.config.std["learned"] else ["fine_tuned"]

    def accumulate_policy_gradient(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave in `.grad` the gradient of the mean loss over decisions.

        Memory is that of one micro-batch: each one's graph is gone before the next is made.

        Args:
            decisions: Columns [m, ...] of `select_decisions`.

        Returns:
            Means of the loss's terms, and the largest deviation of a ratio from 1.
        """
        module: DCEMPPORLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            optimizer.zero_grad(set_to_none=True)
        m = len(decisions[Columns.ACTIONS])
        means: dict[str, Tensor] = defaultdict(float)  # type: ignore[arg-type]
        largest = torch.zeros((), device=self.device)
        for rows in torch.arange(m, device=self.device).tensor_split(math.ceil(m / self.config.micro_batch)):
            micro = {name: column[rows] for name, column in decisions.items()}
            share = len(rows) / m
            loss, terms = policy_loss(module.forward_train(micro), micro, self.config.clip, self.config.entropy_weight)
            (share * loss).backward()
            largest = torch.maximum(largest, terms.pop("max_ratio_deviation"))
            for name, term in terms.items():
                means[name] = means[name] + share * term
        return dict(means) | {"max_ratio_deviation": largest}

    def update_value(self, decisions: dict[str, Tensor]) -> Tensor:
        """Take a step on the squared error to the standardised value targets; returns the error before the step, []."""
        module: DCEMPPORLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        targets = module.value_norm(decisions[Postprocessing.VALUE_TARGETS][:, None])[:, 0]
        loss = (module.standard_values(Belief(decisions[H], decisions[S])) - targets).square().mean()
        self._check_finite({"value_loss": loss})
        module.value_net.zero_grad(set_to_none=True)
        loss.backward()
        self._step("value")
        return loss.detach()

    def _step(self, optimizer_name: str) -> Tensor:
        """One step with the accumulated gradient, clipped to `grad_clip`; returns its norm before that."""
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID, optimizer_name)
        limit = self.config.grad_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit)
        self._check_finite({f"gradient norm ({optimizer_name})": norm})
        optimizer.step()
        return norm

    def _check_finite(self, terms: dict[str, Tensor]) -> None:
        check_finite(terms, self.update_calls, "lower learning_rate")

    def _log(self, values: dict[str, Tensor]) -> None:
        self.metrics.log_dict({name: float(value) for name, value in values.items()}, key=DEFAULT_MODULE_ID, window=1)


def select_decisions(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Take what the loss needs of the real decisions, with advantages of mean 0 and deviation 1.

    RLlib's own standardisation counts the step that it appends to each episode.

    Args:
        batch: Columns [B, T, ...], as RLlib's connectors pad them.

    Returns:
        Columns [M, ...].
    """
    mask = batch[Columns.LOSS_MASK]
    decisions = {name: batch[name][mask] for name in COLUMNS}
    advantages = decisions[Postprocessing.ADVANTAGES]
    deviation = advantages.std(correction=0).clamp(min=1e-4)
    decisions[Postprocessing.ADVANTAGES] = (advantages - advantages.mean()) / deviation
    return decisions


def policy_loss(
    policy: dict[str, Tensor], decisions: dict[str, Tensor], clip: float, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped objective (Schulman et al. 2017, eq. 7).

    Args:
        policy: Distribution inputs [m, 2 A] of the policy as it is.
        decisions: Columns [m, ...] of `select_decisions`.
        clip: Ratios count up to 1 +- clip, > 0.
        entropy_weight: 0 or more.

    Returns:
        The loss [], a mean over m decisions, and its terms (detached).
    """
    distribution = TorchDiagGaussian.from_logits(policy[Columns.ACTION_DIST_INPUTS])
    log_ratio = distribution.logp(decisions[Columns.ACTIONS]) - decisions[Columns.ACTION_LOGP]  # [m]
    ratio = log_ratio.exp()
    advantage = decisions[Postprocessing.ADVANTAGES]
    surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
    entropy = distribution.entropy().mean()
    deviation = (ratio - 1).detach().abs()
    terms = {
        "policy_loss": -surrogate.detach(),
        "entropy": entropy.detach(),
        # KL(policy of the rollouts || policy as it is), by draws of the former: an unbiased estimate, never below 0.
        "kl": (ratio - 1 - log_ratio).detach().mean(),
        "ratio_deviation": deviation.mean(),
        "max_ratio_deviation": deviation.max(),
        "clip_fraction": (deviation > clip).to(deviation.dtype).mean(),
    }
    return -surrogate - entropy_weight * entropy, terms
