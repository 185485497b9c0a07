"""Phases 1 and 2 of the pipeline: a world model learned by planning in it, and an embedding of its action sequences."""

from parsecrl.algorithms.planet.planet import Planet, PlanetConfig

__all__ = ["Planet", "PlanetConfig"]
