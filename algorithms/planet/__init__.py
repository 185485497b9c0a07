"""Phases 1 and 2 of the pipeline: a world model learned by planning in it, and an embedding of its action sequences."""
