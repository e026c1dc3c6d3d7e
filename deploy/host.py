"""What this machine, or this container, has: memory and shared memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dmaml.common.errors import HostError

MIB: Final = 1024**2
_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),  # version 2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # version 1
)


def memory_bytes(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Return the memory of the machine, or the limit of its control group where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(total, int(text))
    return total


def shared_memory_bytes(folder: Path = Path("/dev/shm")) -> int:
    """Return the size of the shared-memory file system."""
    found = os.statvfs(folder)
    return found.f_frsize * found.f_blocks


def require_memory(found: int, required: int, what: str, remedy: str) -> None:
    """Raise unless there is enough.

    Args:
        what: for which there must be enough, in words.
        remedy: what to do otherwise.

    Raises:
        HostError: `found` is less than `required`, bytes both.
    """
    if found < required:
        raise HostError(
            f"{what} needs {-(-required // MIB)} MiB, there are {found // MIB} MiB. {remedy}"
        )
