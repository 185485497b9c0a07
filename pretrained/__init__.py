"""Trained agents, a folder each: agent.json, agent.safetensors, card.json and README.md; see `parsec push`."""
