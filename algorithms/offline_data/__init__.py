"""Datasets of control episodes: Minari's format, and RLlib's columns in Parquet; no Ray."""
