"""The Learner of phases 1 and 2: an Adam for each of world model, decoder, critic and actor."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch.optim import Adam

from parsecrl.algorithms.planet.planet_rl_module import EXPLAIN_EVERY, EXPLAINED, UPDATE
from parsecrl.algorithms.training.finite_checks import check_finite, finite_gradients, register_optimizers

# The terms that the module computes, as far as its settings have them.
LOSSES = (
    *("model_loss", "observation", "reward", "kl", "overshooting_kl", "continuation", "ensemble"),
    *("decoder_loss", "decoder_distance"),
    *("critic_loss", "actor_loss"),
)


class PlanetLearner(TorchLearner):
    """Takes the losses from the module's forward pass, so that they run inside DistributedDataParallel as well."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """As RLlib asks: an Adam for each part that there is."""
        agent = self.module[module_id].unwrapped().agent
        # eps as in PlaNet (Hafner et al. 2018, section 5).
        optimizers = {"model": Adam(agent.model.parameters(), config.learning_rate, eps=1e-4)}
        if agent.decoder is not None:
            optimizers["decoder"] = Adam(agent.decoder.parameters(), config.decoder_learning_rate)
        if agent.actor_critic is not None:
            for name in ("critic", "actor"):
                parameters = getattr(agent.actor_critic, name).parameters()
                optimizers[name] = Adam(parameters, config.value["learning_rate"])
        register_optimizers(self, module_id, optimizers)

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> Any:
        """The module's loss, its terms logged. Raises FloatingPointError where one is not finite."""
        for name, value in fwd_out["terms"].items():
            # Both windows are of about a hundred updates.
            self.metrics.log_value((module_id, name), value, window=100 // (EXPLAIN_EVERY if name == EXPLAINED else 1))
        check_finite(fwd_out["terms"], int(batch[UPDATE][0]), "lower learning_rate or grad_clip")
        return fwd_out["loss"]

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> dict[Any, Any]:
        """As RLlib's. Raises FloatingPointError where a gradient is not finite."""
        return finite_gradients(super().compute_gradients(loss_per_module, **kwargs), "lower learning_rate")

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """As RLlib's; marks the agent as trained, and moves its slow critic."""
        super().after_gradient_based_update(timesteps=timesteps)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            agent = self.module[module_id].unwrapped().agent
            agent.trained.fill_(True)
            if agent.actor_critic is not None:
                agent.actor_critic.move_slow_critic(self.config.value["slow_critic_rate"])
