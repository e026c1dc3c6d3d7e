"""What this machine, or this container, has, and what a node of a cluster needs of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from dmaml.common.errors import HostError

MIB: Final = 1024**2
RAY_MIB: Final = 500  # Ray's own processes on a node, measured (docs/cluster.md)
SERVER_MIB: Final = 400  # the server with a small model, measured (docs/cluster.md)
ACTOR_MIB: Final = 500  # one actor with a small model, measured (docs/cluster.md)
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


def require_room(memory: int, shared_memory: int, object_store: int, num_actors: int) -> None:
    """Raise unless Ray and so many actors fit; every size in bytes.

    Raises:
        HostError: too little memory, or too little shared memory.
    """
    require_memory(
        shared_memory, object_store + 8 * MIB, "Ray's object store in /dev/shm",
        "Raise shm_size (compose: DMAML_SHM_SIZE), or lower --object-store.",
    )  # fmt: skip
    require_memory(
        memory, (RAY_MIB + num_actors * ACTOR_MIB) * MIB,
        f"Ray with {num_actors} actor{'' if num_actors == 1 else 's'}" if num_actors else "Ray",
        "Raise the memory limit (compose: DMAML_WORKER_MEMORY, DMAML_HEAD_MEMORY), or offer fewer "
        "actors (DMAML_ACTORS_PER_WORKER).",
    )  # fmt: skip


def require_version(ours: str, theirs: str) -> None:
    """Raise unless this node runs the server's version, "" where that is older than the question.

    Raises:
        HostError: it does not.
    """
    if ours != theirs:
        raise HostError(
            f"this node has dmaml {ours}, the server {theirs or 'before 0.1'}: results would "
            "differ. Build the images again from one checkout and start both."
        )


def own_address(target: str) -> str:
    """Return this machine's address on the way to `target`, `host:port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target.rpartition(":")[0], 9))  # sends nothing
        return str(probe.getsockname()[0])


def is_listening(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Tell whether someone accepts connections there."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True
