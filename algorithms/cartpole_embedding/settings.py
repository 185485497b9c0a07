"""The settings of cartpole_embedding: algorithm 2 on known dynamics (DCEM paper, section 5.2.1, appendix C)."""

from __future__ import annotations

import math

from pydantic import Field

from parsecrl.algorithms.registry.settings import Count, Elites, Group, NonNegative, Positive, StudySettings


class LatentSearch(Elites):
    """DCEM over the latent points of an embedding, in the box [-1, 1]."""

    latent_size: Count = Field(2, description="dimensions of the latent of an action sequence")
    horizon: Count = Field(20, description="actions of a sequence")
    num_samples: int = Field(100, ge=2, description="candidates of an iteration")
    num_elites: Count = Field(10, description="candidates that the soft selection keeps")
    num_iterations: Count = Field(10, description="iterations of a plan")
    temperature: NonNegative = Field(1.0, description="of the soft selection; 0: differentiate at the minimum only")
    init_std: Positive = Field(0.5, description="of the first distribution")


class CartpoleDecoder(Group):
    """The network from a latent to an action sequence."""

    hidden_size: Count = Field(256, description="units of a hidden layer")
    num_layers: Count = Field(3, description="hidden layers")
    init_scale: Positive = Field(
        math.sqrt(2), description="times Xavier's initial weights: the paper's 2 / sqrt(fan_in + fan_out)"
    )


class ExpertSpec(Elites):
    """CEM over whole action sequences; its initial standard deviation is half of the action's range."""

    num_samples: int = Field(100, ge=2, description="candidates of an iteration")
    num_elites: Count = Field(10, description="candidates that the next distribution is fitted to")
    num_iterations: Count = Field(30, description="iterations of a plan")


class EmbeddingSettings(StudySettings):
    """A decoder of action sequences, learned on known dynamics (algorithm 2)."""

    dynamics: str = Field("cartpole", description="cartpole, pendulum, or module:function that returns KnownDynamics")
    controller: LatentSearch = Field(default_factory=LatentSearch, description="the search in the latents")
    decoder: CartpoleDecoder = Field(default_factory=CartpoleDecoder, description="the network")
    expert: ExpertSpec = Field(default_factory=ExpertSpec, description="what the embedding is compared with")
    learning_rate: Positive = Field(5.0e-4, description="of the decoder")
    max_grad_norm: Positive = Field(1.0, description="norm that gradients are clipped to")
    states_per_update: Count = Field(1, description="initial states of an update")
    validate_every: Count = Field(100, description="updates between two validations")
    validation_states: Count = Field(100, description="initial states of a validation")
    patience: Count = Field(20, description="validations without a new best before the learning rate is halved")
    control_states: Count = Field(10, description="episodes of receding-horizon control in the analysis")
    control_steps: Count = Field(100, description="steps of such an episode")
    updates_per_step: Count = Field(250, description="updates between two results")
