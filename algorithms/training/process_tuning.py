"""What makes the process of a trial quicker, without making its results others.

It concerns the whole process, so that a trainable asks for it (a trial has a process of its own), and no library module
does.
"""

import ctypes

import torch
from torch.utils import deterministic

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def make_process_quick() -> bool:
    """Have glibc keep freed memory for the next allocation, torch leave fresh memory as it is, and the processor take
    denormal numbers for 0. False where there is another C library, for which only the last two are done.

    An update allocates some megabytes for its graph and frees them at its end. By default they go back to the system,
    and the next update waits for a thousand pages to be mapped and zeroed anew. Where a seed is given RLlib asks torch
    for deterministic algorithms, which then also fills every new tensor with NaN before it is written to: a tenth of an
    update of latent_sac. And Adam's first moment of a weight without a gradient, such as a dead ReLU's, is a denormal
    number after some 700 steps, with which a processor is many times as slow: from there updates of latent_sac took
    almost twice as long. Denormals concern the thread that calls.
    """
    torch.set_flush_denormal(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property that the module makes for itself
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_TRIM_THRESHOLD, 512 << 20), (_TOP_PAD, 16 << 20), (_MMAP_THRESHOLD, 32 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
