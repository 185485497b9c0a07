"""Datasets of episodes: control in Minari's format and RLlib's columns; pictures in Minari's format; no Ray."""
