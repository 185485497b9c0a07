"""The Learner of latent_sac: an optimiser for each part, of which an update steps those that its loss reached."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch.optim import Adam

from parsecrl.algorithms.latent_sac.latent_sac_rl_module import UPDATE, LatentSACRLModule
from parsecrl.algorithms.training.finite_checks import check_finite, check_weights_finite, reached, register_optimizers
from parsecrl.algorithms.training.rllib_private import PreparedBatch

REMEDY = "lower the learning rates"


class LatentSACLearner(PreparedBatch, TorchLearner):
    """Takes the loss from the module's forward pass; moves the target networks after an update of the policy."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """As RLlib asks: an Adam for each part that has parameters."""
        module: LatentSACRLModule = self.module[module_id].unwrapped()
        encoder = list(module.model.encoder.parameters())  # type: ignore[union-attr]  # mypy knows it as any attribute of a torch module
        own = set(encoder)
        rest = [p for p in module.model.parameters() if p not in own]
        # The encoder of a model without an objective is part of the agent, whose learning rate the paper tuned.
        encoder_rate = config.dynamics_learning_rate if module.model.trains else config.policy_learning_rate
        groups = {
            "encoder": (encoder, encoder_rate),
            "dynamics": (rest if module.model.trains else [], config.dynamics_learning_rate),
            "policy": (list(module.policy.parameters()), config.policy_learning_rate),
            "qf": (list(module.qf.parameters()), config.policy_learning_rate),
            "qf_twin": (list(module.qf_twin.parameters()), config.policy_learning_rate),
            "alpha": ([module.log_alpha] if module.log_alpha.requires_grad else [], config.alpha_learning_rate),
        }
        optimizers = {name: Adam(own, rate, fused=True) for name, (own, rate) in groups.items() if own}
        register_optimizers(self, module_id, optimizers)

    def prepare(self, batch: Any) -> None:
        """Latents that stay the same in all minibatches of a call are computed once, before it is divided."""
        for module_id, columns in batch.policy_batches.items():
            if Columns.NEXT_OBS in columns:
                columns.update(self.module[module_id].unwrapped().fixed_latents(columns))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> Any:
        """The module's loss, its terms logged. Raises FloatingPointError where one is not finite."""
        terms = fwd_out["terms"]
        for name, value in terms.items():
            self.metrics.log_value((module_id, name), value, window=20)
        check_finite(fwd_out["terms"], int(batch[UPDATE][0]), REMEDY)
        self._policy_was_updated = "actor_loss" in terms
        return fwd_out["loss"]

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> dict[Any, Any]:
        """As RLlib's, of the parameters that the loss reached."""
        return reached(super().compute_gradients(loss_per_module, **kwargs))

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Step the optimisers whose parameters the loss reached; then move the targets."""
        # The base class would step all optimisers, and look twice at each gradient whether it is finite.
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            if any(parameter in gradients_dict for parameter in optimizer.param_groups[0]["params"]):
                optimizer.step()
        if self._policy_was_updated:
            self._move_targets()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """As RLlib's. Raises FloatingPointError where a weight is not finite."""
        # Once for all updates of a call: a weight that is NaN stays NaN, and a next loss would be NaN too.
        super().after_gradient_based_update(timesteps=timesteps)
        optimizers = self.get_optimizers_for_module(DEFAULT_MODULE_ID)
        check_weights_finite([p for _, optimizer in optimizers for p in optimizer.param_groups[0]["params"]], REMEDY)

    def _move_targets(self) -> None:
        """Here rather than in `after_gradient_based_update`, which comes after all minibatches of a call."""
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            for network, target in self.module[module_id].unwrapped().get_target_network_pairs():
                with torch.no_grad():
                    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), self.config.tau)
