"""Open-loop prediction of pixels (Saanum and Schulz 2022, section 5): recorded episodes, two models, one evaluation.

`episode_files` and `dataset` are the recorded episodes (torch, numpy, pyarrow); `collector` plays them.
"""
