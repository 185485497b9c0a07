"""An embedding of action sequences on known dynamics (DCEM paper, sections 4.2 and 5.2.1, algorithm 2).

`embedding`, `control` and `analysis` need torch alone, `trainable` is for Ray Tune.
"""
