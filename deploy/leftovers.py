"""Processes of a Ray cluster that outlive it.

When `ray.init` fails or is interrupted, `ray.shutdown` knows nothing of the processes that were
begun, and they stay as long as this process at least. Of a whole cluster it ends those that it
started; what these started (the dashboard's agent) ends by itself, seconds later.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
MAX_LOOKS: Final = 10


def end_leftovers(folder: Path) -> list[int]:
    """Kill the processes that were given a folder, or a file in it, as an option; return their ids.

    It looks again until there is none: a process may start others before it is killed. Where there
    is no `/proc`, nothing is done.

    Args:
        folder: of one Ray cluster alone.
    """
    ended: list[int] = []
    for _ in range(MAX_LOOKS):
        found = _found(folder)
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended += found
    return list(dict.fromkeys(ended))


def _found(folder: Path) -> list[int]:
    numbers = (int(entry.name) for entry in PROC.glob("[0-9]*"))
    return [pid for pid in numbers if pid != os.getpid() and _is_given(pid, os.fsencode(folder))]


def _is_given(pid: int, folder: bytes) -> bool:
    with contextlib.suppress(OSError):
        arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        return any(one.startswith(b"--") and folder in one for one in arguments)
    return False
