"""Weights and choices of the parsimonious model's loss (Saanum and Schulz 2022, sections 2.2 to 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

from parsecrl.algorithms.models.latent_dynamics import check_sizes, check_weights

BETA_RANGE = (1e-5, 1e4)  # of a beta that a constraint finds


@dataclass(frozen=True)
class ParsimonyObjective:
    """Weights and choices of the loss; the spec's `objective` group.

    Args:
        beta: Weight of the parsimony term, KL(q(h | z, a) || p(h | a)) in nats; 0 or more.
        constraint: None keeps beta. Beyond the paper: "kl" moves it until the KL is `target` nats, "error" until the
            transition term is `target`. beta is then the Lagrange multiplier (of "error" its inverse) and where it
            starts.
        target: Of the constraint, 0 or more; None without one.
        diversity: What keeps latents apart, "contrastive" (eqs. 5 and 6) or "reconstruction" of the observation.
        diversity_weight: 0 or more.
        transition_weight: 0 or more.
        movement_weight: Beyond the paper, 0 or more: weight of the mean `movement` of the transformations. Of
            equivalent explanations the one that moves least is learned. See `movement_unit`.
        similarity_scale_obs: tau_s of eq. 5, 0 or more.
        similarity_scale_latent: tau_z of eq. 6, 0 or more.
        rollout_steps: K, at least 1; predictions go on from predictions for K steps. 1 is the paper's.

    Raises:
        ValueError: A number is out of range, or a constraint or diversity is unknown.
    """

    beta: float = 1.0
    constraint: str | None = None
    target: float | None = None
    diversity: str = "contrastive"
    diversity_weight: float = 1.0
    transition_weight: float = 1.0
    movement_weight: float = 0.0
    similarity_scale_obs: float = 100.0  # tau_s
    similarity_scale_latent: float = 0.1  # tau_z
    rollout_steps: int = 1

    def __post_init__(self) -> None:
        check_weights(
            beta=self.beta,
            diversity_weight=self.diversity_weight,
            transition_weight=self.transition_weight,
            movement_weight=self.movement_weight,
            similarity_scale_obs=self.similarity_scale_obs,
            similarity_scale_latent=self.similarity_scale_latent,
        )
        check_sizes(rollout_steps=self.rollout_steps)
        if self.diversity not in ("contrastive", "reconstruction"):
            raise ValueError(
                f"diversity must be contrastive or reconstruction, got {self.diversity!r}; choose one of them"
            )
        if self.constraint not in (None, "kl", "error"):
            raise ValueError(f"constraint must be kl, error or None, got {self.constraint!r}; None keeps beta fixed")
        if (self.constraint is None) != (self.target is None):
            raise ValueError(
                f"constraint and target come together, got {self.constraint!r} and {self.target!r}; set both or neither"
            )
        if self.target is not None:
            check_weights(target=self.target)
            if not BETA_RANGE[0] <= self.beta <= BETA_RANGE[1]:
                raise ValueError(
                    f"with a constraint beta must lie in {BETA_RANGE}, since it moves by factors, got {self.beta}; "
                    f"start at 1"
                )

    @property
    def movement_unit(self) -> float:
        """Latent units that count as much as a radian.

        1 / tau_z, at which the contrastive rating has decayed to 1 / e. 1 where latents are reconstructed from, or
        tau_z is 0.
        """
        if self.diversity == "reconstruction" or self.similarity_scale_latent == 0:
            return 1.0
        return 1.0 / self.similarity_scale_latent
