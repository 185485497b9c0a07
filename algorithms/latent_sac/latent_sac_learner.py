"""The Learner of latent_sac: an optimiser for each loss and part, of which an update steps those of its loss."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch.optim import Adam

from parsecrl.algorithms.latent_sac.latent_sac_rl_module import LatentSACRLModule
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE
from parsecrl.algorithms.training.finite_checks import check_finite, check_weights_finite, reached, register_optimizers
from parsecrl.algorithms.training.rllib_private import PreparedBatch

REMEDY = "lower the learning rates"


class LatentSACLearner(PreparedBatch, TorchLearner):
    """Takes the loss from the module's forward pass; moves the target networks after an update of the policy."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """As RLlib asks: an Adam for each part that has parameters."""
        module: LatentSACRLModule = self.module[module_id].unwrapped()
        model, rates = module.model, (config.dynamics_learning_rate, config.policy_learning_rate)
        # An optimiser for each loss: where both train the encoder, their moments would mix in one.
        groups = {
            "dynamics": (list(model.parameters()) if model.trains else [], rates[0]),
            # mypy knows the encoder as any module or tensor.
            "encoder": (list(model.encoder.parameters()) if module.policy_trains_encoder else [], rates[1]),  # type: ignore[union-attr]
            "policy": (list(module.policy.parameters()), config.policy_learning_rate),
            "qf": (list(module.qf.parameters()), config.policy_learning_rate),
            "qf_twin": (list(module.qf_twin.parameters()), config.policy_learning_rate),
            "alpha": ([module.log_alpha] if module.log_alpha.requires_grad else [], config.alpha_learning_rate),
        }
        self.optimizers = {name: Adam(own, rate, fused=True) for name, (own, rate) in groups.items() if own}
        register_optimizers(self, module_id, self.optimizers)

    def prepare(self, batch: Any) -> None:
        """Bonus, and latents that stay the same in all minibatches of a call, are computed before it is divided."""
        for module_id, columns in batch.policy_batches.items():
            if Columns.NEXT_OBS in columns:
                module = self.module[module_id].unwrapped()
                bonus = module.bonus(columns)
                if bonus is not None:
                    columns[Columns.REWARDS] = columns[Columns.REWARDS] + bonus
                    self.metrics.log_value((module_id, "bonus"), bonus.mean(), window=20)
                columns.update(module.fixed_latents(columns))

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

    def postprocess_gradients(self, gradients_dict: dict[Any, Any]) -> dict[Any, Any]:
        """As RLlib's, which refuses a parameter that two optimisers step, as the encoder's are."""
        return self.postprocess_gradients_for_module(
            module_id=DEFAULT_MODULE_ID,
            config=self.config.get_config_for_module(DEFAULT_MODULE_ID),
            module_gradients_dict=gradients_dict,
        )

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Step the optimisers of the loss; then move the targets, or the slow encoder."""
        # The base class would step all optimisers, and look twice at each gradient whether it is finite.
        for name, optimizer in self.optimizers.items():
            if (name != "dynamics") == self._policy_was_updated:
                optimizer.step()
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            module = self.module[module_id].unwrapped()
            if self._policy_was_updated:
                for network, target in module.get_target_network_pairs():
                    self._follow(target, network, self.config.tau)
            elif self.config.encoder_tau < 1:
                self._follow(module.slow_encoder, module.model.encoder, self.config.encoder_tau)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """As RLlib's. Raises FloatingPointError where a weight is not finite."""
        # Once for all updates of a call: a weight that is NaN stays NaN, and a next loss would be NaN too.
        super().after_gradient_based_update(timesteps=timesteps)
        optimizers = self.get_optimizers_for_module(DEFAULT_MODULE_ID)
        check_weights_finite([p for _, optimizer in optimizers for p in optimizer.param_groups[0]["params"]], REMEDY)

    @staticmethod
    @torch.no_grad()
    def _follow(target: torch.nn.Module, network: torch.nn.Module, step: float) -> None:
        """Here rather than in `after_gradient_based_update`, which comes after all minibatches of a call."""
        torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), step)
