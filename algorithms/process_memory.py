"""How the process of a trial treats memory.

It concerns the whole process, so that a trainable asks for it (a trial has a process of its own), and no library module
does.
"""

import ctypes

from torch.utils import deterministic

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_memory_quick() -> bool:
    """Have glibc keep freed memory for the next allocation, and torch leave fresh memory as it is.

    An update allocates some megabytes for its graph and frees them at its end. By default they go back to the system,
    and the next update waits for a thousand pages to be mapped and zeroed anew. And where a seed is given RLlib asks
    torch for deterministic algorithms, which then also fills every new tensor with NaN before it is written to: a tenth
    of an update of latent_sac. False where there is another C library, for which only the latter is done.
    """
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property that the module makes for itself
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_TRIM_THRESHOLD, 512 << 20), (_TOP_PAD, 16 << 20), (_MMAP_THRESHOLD, 32 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
