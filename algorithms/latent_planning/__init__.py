"""Planning in latents, task after task, with a model learned on the way (Saanum and Schulz 2022, section 4.4).

`experiment` and `analysis` need torch and Gymnasium, `trainable` is for Ray Tune.
"""
