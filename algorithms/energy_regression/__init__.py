"""Energy-based regression: an energy network trained through its own minimiser (DCEM paper, sections 4.1 and 5.1).

`update` and `analysis` need torch alone, `trainable` is for Ray Tune.
"""
