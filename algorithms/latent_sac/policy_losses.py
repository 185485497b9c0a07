"""Soft actor-critic's losses over latents, for discrete actions (Christodoulou 2019) and for continuous ones.

Axes: B transitions, which begin at U and reach V distinct observations, Z latent, A actions or entries of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from parsecrl.algorithms.models.deduplication import distinct_rows_of_pair
from parsecrl.algorithms.models.squashed_gaussian import squashed_sample
from parsecrl.algorithms.training.seeding import derive_seed

UPDATE = "update"  # column [B] int64: the number of the update, in every row
LATENTS = "latents"  # column [B, Z]
NEXT_LATENTS = "new_latents"  # column [B, Z]


def discrete_losses(module: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The losses where the policy gives a probability, and critics a value, to each of A actions.

    Args:
        module: A `LatentSACRLModule`.
        batch: actions, rewards and terminateds [B], and either obs and new_obs [B, O] or LATENTS and NEXT_LATENTS.

    Returns:
        "actor_loss", "critic_loss", "entropy" (nats) and "q", each [].
    """
    fixed = LATENTS in batch
    names = (LATENTS, NEXT_LATENTS) if fixed else (Columns.OBS, Columns.NEXT_OBS)
    found = distinct_rows_of_pair(batch[names[0]], batch[names[1]])
    alpha = module.log_alpha.detach().exp()
    encode: Callable[[Tensor], Tensor] = nn.Identity() if fixed else module.look
    with torch.set_grad_enabled(torch.is_grad_enabled() and module.policy_trains_encoder):
        z = encode(found.rows[: found.num_first])  # [U, Z]
    log_pi = module.policy(z).log_softmax(-1)  # [U, A]
    with torch.no_grad():  # most of what transitions reach is where others begin; the rest is computed here
        z_rest = encode(found.rows[found.num_first :])
        new_z = torch.cat([z, z_rest])[found.reached]  # [V, Z]
        new_log_pi = torch.cat([log_pi, module.policy(z_rest).log_softmax(-1)])[found.reached]  # [V, A]
        new_q = module.forward_target({LATENTS: new_z})["q"]
        value = (new_log_pi.exp() * (new_q - alpha * new_log_pi)).sum(-1)[found.of_second]  # [B]
        target = _target(module, batch, value)
    q1, q2 = module.qf(z), module.qf_twin(z)  # [U, A]
    here = found.of_first
    taken = here, batch[Columns.ACTIONS]
    pi = log_pi.exp()
    q = torch.minimum(q1, q2).detach()
    return {
        "actor_loss": (pi * (alpha * log_pi - q)).sum(-1)[here].mean(),
        "critic_loss": mse_loss(q1[taken], target) + mse_loss(q2[taken], target),
        "entropy": -(pi * log_pi).sum(-1).detach()[here].mean(),
        "q": q.mean(),
    }


def continuous_losses(module: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The losses of a squashed Gaussian policy, where critics see latent and action (Haarnoja et al. 2018).

    Args:
        module: A `LatentSACRLModule`.
        batch: As in `discrete_losses`, with actions [B, A] in [-1, 1] and UPDATE, which the noise is drawn by.

    Returns:
        As `discrete_losses`; the entropy is of the batch's own draws.
    """
    action, alpha = batch[Columns.ACTIONS], module.log_alpha.detach().exp()
    seed = derive_seed(module.model_config["trial_seed"], "actions", int(batch[UPDATE][0]))
    generator = torch.Generator(action.device).manual_seed(seed)
    eps = torch.randn(2, *action.shape, generator=generator, device=action.device)
    fixed = LATENTS in batch
    with torch.set_grad_enabled(torch.is_grad_enabled() and module.policy_trains_encoder):
        z = batch[LATENTS] if fixed else module.look(batch[Columns.OBS])  # [B, Z]
    with torch.no_grad():
        new_z = batch[NEXT_LATENTS] if fixed else module.look(batch[Columns.NEXT_OBS])
        new_action, new_log_pi = squashed_sample(module.policy(new_z), eps[0])
        new_q = module.forward_target({LATENTS: new_z, Columns.ACTIONS: new_action})["q"]
        target = _target(module, batch, new_q - alpha * new_log_pi)
    seen = torch.cat([z, action], -1)
    q1, q2 = module.qf(seen).squeeze(-1), module.qf_twin(seen).squeeze(-1)  # [B]
    own_action, log_pi = squashed_sample(module.policy(z), eps[1])
    # The actor's gradient passes through the critics to the action, and trains neither them nor what they see.
    seen = torch.cat([z.detach(), own_action], -1)
    q = torch.minimum(*(_frozen(network, seen).squeeze(-1) for network in (module.qf, module.qf_twin)))
    return {
        "actor_loss": (alpha * log_pi - q).mean(),
        "critic_loss": mse_loss(q1, target) + mse_loss(q2, target),
        "entropy": -log_pi.detach().mean(),
        "q": q.detach().mean(),
    }


def _target(module: Any, batch: dict[str, Any], value: Tensor) -> Tensor:
    goes_on = 1.0 - batch[Columns.TERMINATEDS].float()
    return batch[Columns.REWARDS] + module.model_config["discount"] * goes_on * value


def _frozen(network: nn.Module, x: Tensor) -> Tensor:
    return functional_call(network, {name: p.detach() for name, p in network.named_parameters()}, (x,))
