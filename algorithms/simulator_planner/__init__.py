"""simulator_planner: CEM in copies of the task's own simulator, the upper bound of planning in a learned model."""
