"""Torch models: what predicts the world, and what decodes a plan."""

from parsecrl.algorithms.models.action_decoder import ActionDecoder
from parsecrl.algorithms.models.energy import EnergyNetwork
from parsecrl.algorithms.models.records import Belief, Gaussian, ReplaySequence
from parsecrl.algorithms.models.rssm import RSSM, LossWeights

__all__ = ["RSSM", "ActionDecoder", "Belief", "EnergyNetwork", "Gaussian", "LossWeights", "ReplaySequence"]
