"""What the training of several algorithms has in common."""
