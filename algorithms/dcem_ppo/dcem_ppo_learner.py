"""PPO's update through the planner: the policy's gradient in micro-batches, the value network on its own.

Axes: B rows of T steps as RLlib's connectors pad them; M decisions, the padding dropped; m decisions of a micro-batch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

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
from parsecrl.algorithms.training.finite_checks import register_optimizers
from parsecrl.algorithms.training.rllib_private import OwnUpdate

COLUMNS = (*DECISION, Columns.ACTIONS, Columns.ACTION_LOGP, Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS)

LOSSES = ("policy_loss", "value_loss", "entropy", "clip_fraction", "fine_tuned_gradient_norm")  # what results show


class DCEMPPOLearner(OwnUpdate, PPOTorchLearner):
    """One optimiser for the fine-tuned parts, one for the value network, one for a learned standard deviation.

    A pass is one gradient step of the policy on all decisions, whatever the micro-batch, and `value_updates` steps of
    the value network, which are cheap. Raises FloatingPointError on a loss or gradient that is not finite, before any
    step is taken with it.
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

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """As RLlib's; the next pass is the first one."""
        super().before_gradient_based_update(timesteps=timesteps)
        self._first_pass = True

    def update_with(self, batch: dict[str, Any]) -> Tensor:
        """One pass through all episodes of the batch."""
        decisions = select_decisions(batch[DEFAULT_MODULE_ID])
        terms = self.accumulate_policy_gradient(decisions)
        self._check_finite(terms)
        for name in self.policy_optimizers:
            terms[f"{name}_gradient_norm"] = self._step(name)
        if self._first_pass:
            self._log({name: terms[name] for name in ("ratio_deviation", "max_ratio_deviation")})
            self.module[DEFAULT_MODULE_ID].unwrapped().value_norm.update(
                decisions[Postprocessing.VALUE_TARGETS][:, None]
            )
            self._first_pass = False
        terms["value_loss"] = self.update_value(decisions)
        self._log({name: term for name, term in terms.items() if "deviation" not in name})
        return terms["policy_loss"] + terms["value_loss"]

    @property
    def policy_optimizers(self) -> list[str]:
        """Names of the optimisers that the policy's gradient steps."""
        return ["fine_tuned", "std"] if self.config.std["learned"] else ["fine_tuned"]

    def accumulate_policy_gradient(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave in `.grad` the gradient of the mean loss over all decisions.

        Memory is that of one micro-batch: each one's graph is gone before the next is made.

        Args:
            decisions: Columns [M, ...] of `select_decisions`.

        Returns:
            Means of the loss's terms, and the largest deviation of a ratio from 1.
        """
        module: DCEMPPORLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            optimizer.zero_grad(set_to_none=True)
        M = len(decisions[Columns.ACTIONS])
        means: dict[str, Tensor] = defaultdict(float)  # type: ignore[arg-type]
        largest = torch.zeros((), device=self.device)
        for start in range(0, M, self.config.micro_batch):
            micro = {name: column[start : start + self.config.micro_batch] for name, column in decisions.items()}
            share = len(micro[Columns.ACTIONS]) / M
            loss, terms = policy_loss(module.forward_train(micro), micro, self.config.clip, self.config.entropy_weight)
            (share * loss).backward()
            largest = torch.maximum(largest, terms.pop("max_ratio_deviation"))
            for name, term in terms.items():
                means[name] = means[name] + share * term
        return dict(means) | {"max_ratio_deviation": largest}

    def update_value(self, decisions: dict[str, Tensor]) -> Tensor:
        """Take `value_updates` steps on the squared error to the standardised value targets; the first error, []."""
        module: DCEMPPORLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        belief = Belief(decisions[H], decisions[S])
        targets = module.value_norm(decisions[Postprocessing.VALUE_TARGETS][:, None])[:, 0]
        losses = []
        for _ in range(self.config.value_updates):
            loss = (module.standard_values(belief) - targets).square().mean()
            self._check_finite({"value_loss": loss})
            module.value_net.zero_grad(set_to_none=True)
            loss.backward()
            self._step("value")
            losses.append(loss.detach())
        return losses[0]

    def _step(self, optimizer_name: str) -> Tensor:
        """One step with the accumulated gradient, clipped to `grad_clip`; returns its norm before that."""
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID, optimizer_name)
        limit = self.config.grad_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit)
        self._check_finite({f"gradient norm ({optimizer_name})": norm})
        optimizer.step()
        return norm

    def _check_finite(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise FloatingPointError(
                    f"PPO step {self.update_calls}: the {name} is {float(term.detach())}; the last checkpoint is "
                    f"good: lower learning_rate and continue from it"
                )

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
    ratio = torch.exp(distribution.logp(decisions[Columns.ACTIONS]) - decisions[Columns.ACTION_LOGP])  # [m]
    advantage = decisions[Postprocessing.ADVANTAGES]
    surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
    entropy = distribution.entropy().mean()
    deviation = (ratio - 1).detach().abs()
    terms = {
        "policy_loss": -surrogate.detach(),
        "entropy": entropy.detach(),
        "ratio_deviation": deviation.mean(),
        "max_ratio_deviation": deviation.max(),
        "clip_fraction": (deviation > clip).to(deviation.dtype).mean(),
    }
    return -surrogate - entropy_weight * entropy, terms
