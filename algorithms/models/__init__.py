"""Torch models: what predicts the world, and what decodes a plan."""

from parsecrl.algorithms.models.action_decoder import ActionDecoder
from parsecrl.algorithms.models.actor_critic import ActorCritic, actor_critic_loss
from parsecrl.algorithms.models.beliefs import Belief, Gaussian, Outcome, ReplaySequence
from parsecrl.algorithms.models.code_counts import distinct_transformations
from parsecrl.algorithms.models.energy import EnergyNetwork
from parsecrl.algorithms.models.latent_baselines import (
    BetaVAE,
    EncoderOnly,
    RecurrentDynamics,
    StateSpaceModel,
    TrueDynamics,
)
from parsecrl.algorithms.models.latent_dynamics import DynamicsLoss, LatentDynamics, TransitionSequence
from parsecrl.algorithms.models.latent_rollout import DistinctGoalCost, GoalCost
from parsecrl.algorithms.models.parsimonious import ParsimoniousDynamics
from parsecrl.algorithms.models.parsimony_objective import ParsimonyObjective
from parsecrl.algorithms.models.pixel_dynamics import OpenLoop, ParsimoniousPixels, PixelDynamics, PixelRSSM
from parsecrl.algorithms.models.pixels import ImageDecoder, ImageEncoder, ImageSequence
from parsecrl.algorithms.models.rssm import RSSM, LossWeights
from parsecrl.algorithms.models.world_model import ImaginationModel, WorldModel

__all__ = [
    "RSSM",
    "ActionDecoder",
    "ActorCritic",
    "Belief",
    "BetaVAE",
    "DistinctGoalCost",
    "DynamicsLoss",
    "EncoderOnly",
    "EnergyNetwork",
    "Gaussian",
    "GoalCost",
    "ImageDecoder",
    "ImageEncoder",
    "ImageSequence",
    "ImaginationModel",
    "LatentDynamics",
    "LossWeights",
    "OpenLoop",
    "Outcome",
    "ParsimoniousDynamics",
    "ParsimoniousPixels",
    "ParsimonyObjective",
    "PixelDynamics",
    "PixelRSSM",
    "RecurrentDynamics",
    "ReplaySequence",
    "StateSpaceModel",
    "TransitionSequence",
    "TrueDynamics",
    "WorldModel",
    "actor_critic_loss",
    "distinct_transformations",
]
