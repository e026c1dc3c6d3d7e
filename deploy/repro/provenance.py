"""Where a result came from: when, by which code, on what."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from dmaml.deploy.host import memory_bytes
from dmaml.worker.fingerprint import cpu_model


def provenance() -> dict[str, str]:
    """Return date (UTC), commit, versions, machine."""
    cores = len(os.sched_getaffinity(0))
    memory = memory_bytes() / 2**30
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": _commit(),
        "dmaml": version("dmaml"),
        "torch": torch.__version__,
        "machine": f"{cores} cores of {cpu_model()}, {memory:.0f} GiB, {platform.system()}",
    }


def _commit(folder: Path = Path(__file__).parent) -> str:
    """Return the commit of the code, `+` behind it where files were changed; "" if unknown."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
