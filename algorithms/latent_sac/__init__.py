"""Soft actor-critic over the latents of a dynamics model (Saanum and Schulz 2022, section 4.3)."""
