"""Open-loop prediction of pixels (Saanum and Schulz 2022, section 5): recorded episodes, two models, one evaluation.

`dataset` has batches of the recorded episodes (torch, numpy), whose files and collector are in `offline_data`.
"""
