"""Freed memory is kept by the process instead of going back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# <malloc.h> of the GNU C library
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_TRIM_BLOCKS: Final = 32  # so many of the largest kept blocks may lie idle


def keep_freed_memory(up_to: int | None = None) -> None:
    """Let malloc reuse large blocks; bits do not change, nor does the peak of memory.

    A meta-gradient allocates and frees the same tens of megabytes for each batch, and the server
    the same messages for each item. By default the GNU C library maps large blocks afresh each
    time, and the system clears every page of them again: measured, that doubled the time of a
    batch, and took a quarter of the server's. Elsewhere than on glibc nothing is done.

    Args:
        up_to: the largest block that is reused, bytes, at most 32 MiB; None: any, and nothing is
            given back.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if up_to is None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
    else:
        mallopt(_M_MMAP_THRESHOLD, up_to)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BLOCKS * up_to)
