"""Processes of a Ray cluster that outlive it.

When `ray.init` fails or is interrupted, `ray.shutdown` knows nothing of the processes that were
begun, and they stay as long as this process at least. Of a whole cluster it ends those that it
started; what these started (the dashboard's agent) ends by itself, seconds later.

A mark in the environment finds them all: it is inherited, while Ray gives its processes titles in
place of their command lines. A title may cover the environment, too, unless that is forbidden.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
MARK: Final = "DMAML_CLUSTER"
NO_TITLE_OVER_ENVIRONMENT: Final = "SPT_NOENV"  # read by setproctitle, which Ray uses
PATIENCE_S: Final = 5.0
PAUSE_S: Final = 0.01


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark the processes that are begun meanwhile, and those that they begin.

    Args:
        folder: of one Ray cluster alone.
    """
    os.environ[NO_TITLE_OVER_ENVIRONMENT] = "1"
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        del os.environ[MARK]


def end_leftovers(folder: Path, patience_s: float = PATIENCE_S) -> list[int]:
    """Kill the processes that are marked with a folder; return their ids.

    It looks until there is none, and none that cannot be told yet: a process may start others
    before it is killed, and between fork and exec these have not their environment. Where there is
    no `/proc`, nothing is done.

    Args:
        patience_s: after so long, in seconds, it does not look again.
    """
    mark = os.fsencode(f"{MARK}={folder}")
    ended: list[int] = []
    deadline = time.monotonic() + patience_s
    while True:
        is_over = not any(_is_starting(pid) for pid in _others())  # first: it ends while we look
        for pid in _others():
            if mark in _environment(pid):
                is_over = False
                ended.append(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        if is_over or time.monotonic() > deadline:
            return list(dict.fromkeys(ended))
        time.sleep(PAUSE_S)


def _others() -> list[int]:
    numbers = (int(entry.name) for entry in PROC.glob("[0-9]*"))
    return [pid for pid in numbers if pid != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    """Return what a process was started with, nothing where it is over or not ours to read."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return []


def _is_starting(pid: int) -> bool:
    """Tell whether a process is in the midst of exec, or a child of ours before it."""
    with contextlib.suppress(OSError):
        os.readlink(PROC / str(pid) / "exe")  # of a kernel thread and of a zombie: an error
        command = (PROC / str(pid) / "cmdline").read_bytes()
        is_child = f"\nPPid:\t{os.getpid()}\n" in (PROC / str(pid) / "status").read_text()
        return not command or (is_child and command == _own_command())
    return False


def _own_command() -> bytes:
    return (PROC / "self" / "cmdline").read_bytes()
