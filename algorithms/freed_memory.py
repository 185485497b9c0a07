"""How the process's C library treats memory that is given back."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next allocation; False where there is another C library.

    An update allocates some megabytes for its graph and frees them at its end. By default they go back to the system,
    and the next update waits for a thousand pages to be mapped and zeroed anew. It concerns the whole process, so that
    the trainable asks for it (a trial has a process of its own), and no library module does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_TRIM_THRESHOLD, 512 << 20), (_TOP_PAD, 16 << 20), (_MMAP_THRESHOLD, 32 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
