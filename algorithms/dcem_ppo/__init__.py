"""Phase 3 of the pipeline: the embedded controller fine-tuned by PPO through the planner."""
