"""Keep the C heap between steps.

A training step on CPU frees hundreds of megabytes of temporary buffers and asks for them again in the next one. glibc hands
large blocks back to the kernel at once, so every step would fault every page in anew: a tenth of its time. It must be asked for
before JAX starts its threads, so `load_backbone` and the command line do.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_heap() -> None:
    """Ask glibc to keep freed memory; does nothing elsewhere. The result of every computation is the same.

    All four are needed: blocks over 32 MiB are mapped and unmapped whatever the mmap threshold says, so none is;
    without mapping only the main arena can hold them, so there must be no other (XLA allocates in threads of its own).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    mallopt(_M_TOP_PAD, 64 << 20)
