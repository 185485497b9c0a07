"""Checkpoints on disk: JSON and safetensors, written whole or not at all."""
