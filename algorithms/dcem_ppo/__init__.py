"""Phase 3 of the pipeline: the embedded controller fine-tuned by PPO through the planner."""

from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPO, DCEMPPOConfig

__all__ = ["DCEMPPO", "DCEMPPOConfig"]
