"""The RLModule of latent_sac: a dynamics model whose encoder actor and critics look through, and both losses.

Axes: B transitions, T steps of a slice, O observation, Z latent, A actions, or entries of one that is a vector.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from parsecrl.algorithms.latent_sac.policy_losses import (
    LATENTS,
    NEXT_LATENTS,
    UPDATE,
    continuous_losses,
    discrete_losses,
)
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.worlds import action_size, check_spaces
from parsecrl.algorithms.models import LatentDynamics, TransitionSequence
from parsecrl.algorithms.models.latent_dynamics import feedforward
from parsecrl.algorithms.models.matrix_products import ProductChoice
from parsecrl.algorithms.training.seeding import derive_seed

VISITS = "visits"  # column [B] int64: transitions in the replay of the same observation and action
CRITICS = ("qf", "qf_twin", "qf_target", "qf_twin_target")


class LatentSACRLModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI):
    """Two kinds of batches, two losses: slices of observations and actions for the model, transitions for SAC.

    model_config: latent_model, policy_network (the spec's `model` and `policy`), encoder_training, encoder_tau,
    exploration, alpha, target_entropy, discount, trial_seed.
    """

    model: LatentDynamics

    def setup(self) -> None:
        """As RLlib asks: make model, actor, critics and targets, with weights of trial_seed."""
        c = self.model_config
        check_spaces(self.observation_space, self.action_space, continuous=True)
        check_target_entropy(c["target_entropy"], self.action_space)
        self.continuous = isinstance(self.action_space, spaces.Box)
        if self.continuous:
            self.action_dist_cls = TorchSquashedGaussian  # of RLlib's own sampling
        num_actions = action_size(self.action_space)
        self.products = ProductChoice()
        self.model = latent_model(c["latent_model"], self.observation_space.shape[0], num_actions, c["trial_seed"])
        if c["encoder_tau"] < 1:
            self.slow_encoder = copy.deepcopy(self.model.encoder).requires_grad_(False)  # type: ignore[operator]  # mypy knows it as any module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(c["trial_seed"], "policy"))
            self.policy = self._network(0, num_actions * (1 + self.continuous))
            inputs, outputs = (num_actions, 1) if self.continuous else (0, num_actions)
            self.qf, self.qf_twin = (self._network(inputs, outputs) for _ in range(2))
        # A parameter, so that its value and its optimiser's are kept with the others'.
        self.log_alpha = nn.Parameter(torch.tensor(math.log(c["alpha"])), requires_grad=c["target_entropy"] is not None)
        self.make_target_networks()

    def _network(self, more_inputs: int, outputs: int) -> nn.Sequential:
        sizes = self.model_config["policy_network"]
        inputs = self.model.latent_size + more_inputs
        return feedforward(inputs, outputs, sizes["hidden_size"], sizes["num_layers"])

    @property
    def policy_trains_encoder(self) -> bool:
        """Whether actor and critics train the encoder.

        A model without an objective of its own has no other way to learn.
        """
        return self.model_config["encoder_training"] == "both" or not self.model.trains

    def look(self, obs: Tensor) -> Tensor:
        """What actor and critics see.

        Args:
            obs: [..., O].

        Returns:
            Latents [..., Z], of the slow encoder where there is one.
        """
        slow = getattr(self, "slow_encoder", None)
        return self.model.encode(obs) if slow is None else self.model.latent_of(slow(obs))  # type: ignore[operator]  # mypy knows it as any module

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
        """The lower of the two targets' values: LATENTS [B, Z] -> "q" [B, A]; with vectors of actions [B, A], [B]."""
        z = batch[LATENTS]
        if not self.continuous:
            return {"q": torch.minimum(self.qf_target(z), self.qf_twin_target(z))}
        seen = torch.cat([z, batch[Columns.ACTIONS]], -1)
        return {"q": torch.minimum(self.qf_target(seen), self.qf_twin_target(seen)).squeeze(-1)}

    # -- acting

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """obs [B, O] -> log-probabilities [B, A], or means and log-deviations of a squashed Gaussian [B, 2 A]."""
        with torch.no_grad():
            raw = self.policy(self.look(batch[Columns.OBS]))
            return {Columns.ACTION_DIST_INPUTS: raw if self.continuous else raw.log_softmax(-1)}

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
        z, new_z = self.look(obs).chunk(2)
        return {LATENTS: z, NEXT_LATENTS: new_z}

    @torch.no_grad()
    def bonus(self, batch: dict[str, Any]) -> Tensor | None:
        """What is added to rewards for exploring, see `ExplorationSpec`.

        Args:
            batch: VISITS [B] for a count; obs and new_obs [B, O] and actions [B] for an error.

        Returns:
            [B] in units of the reward, None without a bonus.
        """
        chosen = self.model_config["exploration"]
        if chosen.get("bonus") == "count":
            return chosen["weight"] * batch[VISITS].float().rsqrt()
        if chosen.get("bonus") == "error":
            z, new_z = self.model.encode(torch.cat([batch[Columns.OBS], batch[Columns.NEXT_OBS]])).chunk(2)
            error = self.model.distance(self.model.predict(z, batch[Columns.ACTIONS]), new_z)
            # To a latent that another transition reached: latents have no unit of their own.
            scale = self.model.distance(new_z, new_z.roll(1, 0)).mean()
            return chosen["weight"] * error / scale.clamp(min=1e-12)
        return None

    def policy_loss(self, batch: dict[str, Any]) -> dict[str, Any]:
        """SAC's losses, summed.

        Args:
            batch: actions, rewards and terminateds, and either obs and new_obs [B, O] or what `fixed_latents` made of
                them.

        Returns:
            "loss" [] and "terms", detached.
        """
        found = continuous_losses(self, batch) if self.continuous else discrete_losses(self, batch)
        loss = found["actor_loss"] + found["critic_loss"]
        wanted = self.model_config["target_entropy"]
        if wanted is not None:
            loss = loss + self.log_alpha * (found["entropy"] - wanted)
        terms = {name: value.detach() for name, value in found.items()}
        return {"loss": loss, "terms": {**terms, "alpha": self.log_alpha.detach().exp()}}


def check_target_entropy(nats: float | None, action: spaces.Space) -> None:
    """Check that a policy can have the target entropy, and exceed it: alpha would grow for ever otherwise.

    Args:
        nats: The target; None for a fixed alpha.
        action: Discrete, or a Box in [-1, 1].

    Raises:
        ValueError: It is that of uniform actions or more, or below 0 for discrete ones.
    """
    if nats is None:
        return
    size = action_size(action)
    continuous = isinstance(action, spaces.Box)
    most = size * math.log(2) if continuous else math.log(size)
    if nats >= most:
        of = f"{size} in [-1, 1]" if continuous else f"{size}"
        raise ValueError(
            f"target_entropy must be less than that of uniform actions, {most:.3f} nats for {of}, got {nats}; lower it"
        )
    if nats < 0 and not continuous:
        raise ValueError(f"target_entropy must be 0 nats or more for discrete actions, got {nats}; raise it")


def check_bonus(exploration: Mapping[str, Any], action: spaces.Space) -> None:
    """Check that visits can be counted where they are to be.

    Args:
        exploration: The settings' group.
        action: Discrete, or a Box.

    Raises:
        ValueError: They are to be counted of actions that are vectors.
    """
    if exploration.get("bonus") == "count" and isinstance(action, spaces.Box):
        raise ValueError(f"exploration.bonus=count needs discrete actions, got {action}; set it to error")


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
