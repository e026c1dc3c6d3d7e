"""Where a result came from: when, by which code, on what."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version

import torch

from dmaml.common.provenance import commit
from dmaml.deploy.host import memory_bytes
from dmaml.worker.fingerprint import cpu_model


def provenance() -> dict[str, str]:
    """Return date (UTC), commit, versions, machine."""
    cores = len(os.sched_getaffinity(0))
    memory = memory_bytes() / 2**30
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "dmaml": version("dmaml"),
        "torch": torch.__version__,
        "machine": f"{cores} cores of {cpu_model()}, {memory:.0f} GiB, {platform.system()}",
    }
