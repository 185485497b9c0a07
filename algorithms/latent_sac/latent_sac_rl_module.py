"""The RLModule of latent_sac: a dynamics model whose encoder actor and critics look through, and both losses.

Axes: B transitions, which begin at U and reach V distinct observations, T steps of a slice, O observation, Z latent, A
actions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Self

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.worlds import check_spaces
from parsecrl.algorithms.models import LatentDynamics, TransitionSequence
from parsecrl.algorithms.models.deduplication import distinct_rows_of_pair
from parsecrl.algorithms.models.latent_dynamics import feedforward
from parsecrl.algorithms.models.matrix_products import ProductChoice
from parsecrl.algorithms.training.seeding import derive_seed

UPDATE = "update"  # column [B] int64: the number of the update, in every row
LATENTS = "latents"  # column [B, Z]
NEXT_LATENTS = "new_latents"  # column [B, Z]
CRITICS = ("qf", "qf_twin", "qf_target", "qf_twin_target")


class LatentSACRLModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI):
    """Two kinds of batches, two losses: slices of observations and actions for the model, transitions for SAC.

    model_config: latent_model, policy_network (the spec's `model` and `policy`), encoder_training, alpha,
    target_entropy, discount, trial_seed.
    """

    model: LatentDynamics

    def setup(self) -> None:
        """As RLlib asks: make model, actor, critics and targets, with weights of trial_seed."""
        c = self.model_config
        check_spaces(self.observation_space, self.action_space)
        num_actions = int(self.action_space.n)
        check_target_entropy(c["target_entropy"], num_actions)
        self.products = ProductChoice()
        self.model = latent_model(c["latent_model"], self.observation_space.shape[0], num_actions, c["trial_seed"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(c["trial_seed"], "policy"))
            self.policy, self.qf, self.qf_twin = (self._network(num_actions) for _ in range(3))
        # A parameter, so that its value and its optimiser's are kept with the others'.
        self.log_alpha = nn.Parameter(torch.tensor(math.log(c["alpha"])), requires_grad=c["target_entropy"] is not None)
        self.make_target_networks()

    def _network(self, num_actions: int) -> nn.Sequential:
        sizes = self.model_config["policy_network"]
        return feedforward(self.model.latent_size, num_actions, sizes["hidden_size"], sizes["num_layers"])

    @property
    def policy_trains_encoder(self) -> bool:
        """Whether actor and critics train the encoder.

        A model without an objective of its own has no other way to learn.
        """
        return self.model_config["encoder_training"] == "both" or not self.model.trains

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's, but only where it changes this module's own flag.

        RLlib asks for it before every update, and visiting all parts takes a while. No layer here depends on it.

        Args:
            mode: Training, or evaluation.

        Returns:
            The module.
        """
        return self if self.training == mode else super().train(mode)

    def make_target_networks(self) -> None:
        """As RLlib asks: copy the critics."""
        self.qf_target, self.qf_twin_target = copy.deepcopy(self.qf), copy.deepcopy(self.qf_twin)
        for network in (self.qf_target, self.qf_twin_target):
            network.requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """As RLlib asks: each critic and its target."""
        return [(self.qf, self.qf_target), (self.qf_twin, self.qf_twin_target)]

    def get_non_inference_attributes(self) -> list[str]:
        """As RLlib asks: what acting can do without."""
        return list(CRITICS)

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The lower of the two targets' values: LATENTS [B, Z] -> "q" [B, A]."""
        z = batch[LATENTS]
        return {"q": torch.minimum(self.qf_target(z), self.qf_twin_target(z))}

    # -- acting

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """obs [B, O] -> log-probabilities [B, A]."""
        with torch.no_grad():
            return {Columns.ACTION_DIST_INPUTS: self.policy(self.model.encode(batch[Columns.OBS])).log_softmax(-1)}

    _forward_exploration = _forward_inference

    # -- learning

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """-> {"loss": scalar, "terms": detached scalars}; see `dynamics_loss` and `policy_loss`."""
        return self.policy_loss(batch) if Columns.NEXT_OBS in batch else self.dynamics_loss(batch)

    def dynamics_loss(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The model's own loss on obs [B, T + 1, O], actions [B, T] and UPDATE: "loss" [] and "terms", detached."""
        seed = derive_seed(self.model_config["trial_seed"], "noise", int(batch[UPDATE][0]))
        generator = torch.Generator(batch[Columns.OBS].device).manual_seed(seed)
        found = self.model.loss(TransitionSequence(batch[Columns.OBS], batch[Columns.ACTIONS]), generator)
        return {"loss": found.total, "terms": {"dynamics_loss": found.total.detach(), **found.terms}}

    @torch.no_grad()
    def fixed_latents(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Latents that are the same in all updates of the policy to come.

        Args:
            batch: obs and new_obs, [B, O].

        Returns:
            LATENTS and NEXT_LATENTS, [B, Z]; nothing where actor and critics train the encoder.
        """
        if self.policy_trains_encoder:
            return {}
        obs = torch.cat([batch[Columns.OBS], batch[Columns.NEXT_OBS]])
        z, new_z = self.model.encode(obs).chunk(2)
        return {LATENTS: z, NEXT_LATENTS: new_z}

    def policy_loss(self, batch: dict[str, Any]) -> dict[str, Any]:
        """SAC's losses for discrete actions, summed.

        Args:
            batch: actions, rewards and terminateds [B], and either obs and new_obs [B, O] or what `fixed_latents` made
                of them.

        Returns:
            "loss" [] and "terms", detached.
        """
        fixed = LATENTS in batch
        names = (LATENTS, NEXT_LATENTS) if fixed else (Columns.OBS, Columns.NEXT_OBS)
        found = distinct_rows_of_pair(batch[names[0]], batch[names[1]])
        alpha = self.log_alpha.detach().exp()
        encode: Callable[[Tensor], Tensor] = nn.Identity() if fixed else self.model.encode
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.policy_trains_encoder):
            z = encode(found.rows[: found.num_first])  # [U, Z]
        log_pi = self.policy(z).log_softmax(-1)  # [U, A]
        with torch.no_grad():  # most of what transitions reach is where others begin; the rest is computed here
            z_rest = encode(found.rows[found.num_first :])
            new_z = torch.cat([z, z_rest])[found.reached]  # [V, Z]
            new_log_pi = torch.cat([log_pi, self.policy(z_rest).log_softmax(-1)])[found.reached]  # [V, A]
            new_q = self.forward_target({LATENTS: new_z})["q"]
            value = (new_log_pi.exp() * (new_q - alpha * new_log_pi)).sum(-1)[found.of_second]  # [B]
            goes_on = 1.0 - batch[Columns.TERMINATEDS].float()
            target = batch[Columns.REWARDS] + self.model_config["discount"] * goes_on * value
        q1, q2 = self.qf(z), self.qf_twin(z)  # [U, A]
        here = found.of_first
        taken = here, batch[Columns.ACTIONS]
        critic_loss = mse_loss(q1[taken], target) + mse_loss(q2[taken], target)
        pi = log_pi.exp()
        q = torch.minimum(q1, q2).detach()
        actor_loss = (pi * (alpha * log_pi - q)).sum(-1)[here].mean()
        entropy = -(pi * log_pi).sum(-1).detach()[here].mean()
        loss = actor_loss + critic_loss
        wanted = self.model_config["target_entropy"]
        if wanted is not None:
            loss = loss + self.log_alpha * (entropy - wanted)
        terms = {
            "actor_loss": actor_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "entropy": entropy,
            "alpha": alpha,
            "q": q.mean(),
        }
        return {"loss": loss, "terms": terms}


def check_target_entropy(nats: float | None, num_actions: int) -> None:
    """Check that a policy can exceed the target entropy: alpha would grow for ever otherwise.

    Args:
        nats: The target; None for a fixed alpha.
        num_actions: A.

    Raises:
        ValueError: It is that of uniform actions or more.
    """
    most = math.log(num_actions)
    if nats is not None and nats >= most:
        raise ValueError(
            f"target_entropy must be less than that of uniform actions, {most:.3f} nats for {num_actions}, got {nats}; "
            f"lower it"
        )


def latent_model(settings: dict[str, Any], obs_size: int, num_actions: int, trial_seed: int) -> LatentDynamics:
    """Make the model of a trial.

    Args:
        settings: As `make_model` takes them.
        obs_size: O.
        num_actions: A.
        trial_seed: Of the weights, mixed.

    Returns:
        The model.
    """
    return make_model(settings, obs_size, num_actions, derive_seed(trial_seed, "model"))
