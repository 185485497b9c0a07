"""Learning an embedding of action sequences on known dynamics (DCEM paper, algorithm 2): torch alone, no Ray.

Axes: B initial states, n latent, H horizon, A action.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController, Plan
from parsecrl.algorithms.models import ActionDecoder
from parsecrl.algorithms.models.known_dynamics import KnownDynamics
from parsecrl.algorithms.training.seeding import derive_seed

EXPLAINING_PLANS = 100  # drawn, to find the function that has spoilt a search
VALIDATION_SEED = 0  # the same states and draws for every seed, size and temperature


class Validation(NamedTuple):
    """Costs of plans from the validation states, in units of the dynamics' cost."""

    costs: Tensor  # [num_states]
    improved: bool
    """Whether their mean is the lowest so far."""


class EmbeddingLearner:
    """Draw states, solve for z with DCEM, push C(z) down by a step in the decoder's weights (DCEM paper, algorithm 2).

    At temperature 0 the gradient passes the decoder at the z that was found, and not the search (appendix C). Every
    draw comes from a generator seeded by (seed, role, index of the update). So no generator has a state to be saved,
    and an interrupted training continues with the numbers that it would have had.

    Args:
        dynamics: The system that is controlled.
        settings: Of decoder, search and training.
        seed: Of weights, states and noise.
    """

    def __init__(self, dynamics: KnownDynamics, settings: EmbeddingSettings, seed: int):
        self.dynamics, self.settings, self.seed = dynamics, settings, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "decoder"))
            decoder = make_decoder(dynamics, settings)
        self.controller = make_controller(decoder, settings)
        self.parameters = list(decoder.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, settings.learning_rate, fused=True)
        self.num_updates = 0
        self.best_cost = float("inf")
        self.best_decoder = _copy(decoder.state_dict())  # with the lowest validation cost so far
        self.validations_since_best = 0
        self.validation_states = validation_states(dynamics, settings.validation_states)

    @property
    def learning_rate(self) -> float:
        """Adam's, as it stands."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self) -> Tensor:
        """One step on `states_per_update` new states.

        Returns:
            The loss before the step, [].

        Raises:
            FloatingPointError: The gradient is not finite.
            ValueError: A function of the dynamics is not finite.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "update", self.num_updates))
        states = self.dynamics.sample_states(self.settings.states_per_update, generator)
        loss = self.loss(states, generator)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        if not bool(norm.isfinite()):
            raise FloatingPointError(
                f"the gradient of update {self.num_updates + 1} is not finite though {self.dynamics.name}'s costs are; "
                f"lower learning_rate, or look for a derivative that is infinite where its function is not"
            )
        self.optimizer.step()
        self.num_updates += 1
        return loss.detach()

    def loss(self, states: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """The mean of C(z) at the z that the search finds; differentiable in the decoder.

        Args:
            states: Initial states [B, S].
            generator: Of the search.
            noise: In place of the generator's draws.

        Returns:
            [].

        Raises:
            ValueError: A function of the dynamics is not finite.
        """
        return self._costs(states, generator, noise).mean()

    @torch.no_grad()
    def validate(self) -> Validation:
        """Plan from the fixed validation states, with the same draws each time, and lower the learning rate if due."""
        generator = torch.Generator().manual_seed(derive_seed(VALIDATION_SEED, "validation_noise"))
        costs = self._costs(self.validation_states, generator)
        mean = float(costs.mean())
        improved = mean < self.best_cost
        if improved:
            self.best_cost, self.validations_since_best = mean, 0
            self.best_decoder = _copy(self.controller.decoder.state_dict())
        else:
            self.validations_since_best += 1
            if self.validations_since_best >= self.settings.patience:
                self.validations_since_best = 0
                for group in self.optimizer.param_groups:
                    group["lr"] *= 0.5
        return Validation(costs, improved)

    def plan(self, states: Tensor, generator: torch.Generator | None = None, **options: Any) -> Plan:
        """Plan with the embedding.

        Args:
            states: [B, S].
            generator: Of the search.
            **options: Further arguments of the controller's `plan`.

        Returns:
            Plans, actions in [-1, 1].
        """
        return self.controller.plan(self.dynamics, self.dynamics.belief(states), generator=generator, **options)

    def _costs(self, states: Tensor, generator: torch.Generator | None, noise: Tensor | None = None) -> Tensor:
        """Raises ValueError that names the dynamics' function that is not finite."""
        try:
            plan = self.plan(states, generator, noise=noise)
        except ValueError:  # of the solver, which has too few finite costs
            draws = torch.rand(
                (EXPLAINING_PLANS, len(states), self.settings.controller.horizon, self.dynamics.action_size),
                generator=torch.Generator().manual_seed(0),
            )
            self.dynamics.check_rollout(states.expand(EXPLAINING_PLANS, -1, -1), self.dynamics.scale(2 * draws - 1))
            raise
        costs = plan_costs(self.dynamics, states, plan.actions)
        if not bool(costs.isfinite().all()):
            self.dynamics.check_rollout(states, self.dynamics.scale(plan.actions.detach()))
        return costs

    def state_dict(self) -> dict[str, Any]:
        """All that a continued training needs; the tensors are in `decoder`, `best_decoder` and `optimizer`."""
        return {
            "decoder": self.controller.decoder.state_dict(),
            "best_decoder": self.best_decoder,
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
            "best_cost": self.best_cost,
            "validations_since_best": self.validations_since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Args:
            state: What it returned, of a learner of the same settings.
        """
        self.controller.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_decoder = _copy(state["best_decoder"])
        self.num_updates = state["num_updates"]
        self.best_cost, self.validations_since_best = state["best_cost"], state["validations_since_best"]


def make_decoder(dynamics: KnownDynamics, settings: EmbeddingSettings) -> ActionDecoder:
    """Make a decoder, its weights drawn from torch's global generator, as all modules'.

    Args:
        dynamics: Gives the size of an action.
        settings: Give the other sizes.

    Returns:
        The decoder.
    """
    return ActionDecoder(
        settings.controller.latent_size,
        settings.controller.horizon,
        dynamics.action_size,
        **settings.decoder.plain(),
        output="sigmoid",
    )


def make_controller(decoder: ActionDecoder, settings: EmbeddingSettings) -> EmbeddedController:
    """Make the controller that plans through a decoder.

    Args:
        decoder: From latents to actions.
        settings: Of the search.

    Returns:
        Embedded DCEM.
    """
    return EmbeddedController(decoder, **settings.controller.model_dump(exclude={"latent_size", "horizon"}))


def make_expert(dynamics: KnownDynamics, settings: EmbeddingSettings) -> FullSpaceController:
    """Make CEM over whole action sequences. Its initial standard deviation is half of the range of the action.

    Args:
        dynamics: Gives the size of an action.
        settings: Of horizon and search.

    Returns:
        CEM in the full space.
    """
    return FullSpaceController(settings.controller.horizon, dynamics.action_size, **settings.expert.plain())


def plan_costs(dynamics: KnownDynamics, states: Tensor, actions: Tensor) -> Tensor:
    """What plans cost.

    Args:
        dynamics: The system.
        states: Where the plans start, [B, S].
        actions: Plans [B, H, A] in [-1, 1].

    Returns:
        [B], in units of the dynamics' cost.
    """
    return -dynamics.predict_rewards(dynamics.belief(states), actions.unsqueeze(1)).sum(-1).squeeze(1)


def validation_states(dynamics: KnownDynamics, count: int = 100) -> Tensor:
    """The fixed initial states that every training of a system is validated on.

    Args:
        dynamics: The system.
        count: How many.

    Returns:
        [count, S].
    """
    generator = torch.Generator().manual_seed(derive_seed(VALIDATION_SEED, "validation_states"))
    return dynamics.sample_states(count, generator)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
