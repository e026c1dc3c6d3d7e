"""Where a process runs: code, versions, machine. What a run's fingerprint does not say."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def start_facts() -> dict[str, str]:
    """Return commit, versions, system, cores and memory of this process, by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "commit": commit(),
        "dmaml": version("dmaml"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
    }


def commit(folder: Path = _CHECKOUT) -> str:
    """Return the commit of the code, `+` behind it where files were changed.

    "" where it is unknown: no git, or a package that was installed somewhere inside another
    project's checkout.
    """
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
