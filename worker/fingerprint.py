"""What decides about the bits of a result on a machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch

from dmaml.common.config import RunConfig

_VARIABLES: Final = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "OPENBLAS_CORETYPE",
)


def fingerprint(config: RunConfig) -> dict[str, str]:
    """Return name -> value of everything that was found to change bits.

    Two machines with equal fingerprints give equal bits for one work item; processes, pinning,
    memory alignment and restarts were measured not to matter.
    """
    flags, model = _cpu()
    found = {
        "dmaml": version("dmaml"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": model,
        "cpu_flags": hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "caches": _caches(),
        "threads": str(config.run.threads),
        "engine": f"{config.engine.name}/{config.engine.chunk}",
    }
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def cpu_model() -> str:
    """Return the processor's name."""
    return _cpu()[1]


def _cpu() -> tuple[set[str], str]:
    flags: set[str] = set()
    model = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
        elif key.strip() == "model name":
            model = value.strip()
        elif not key.strip():
            break
    return flags, model


def _caches() -> str:
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [next(iter(_lines(entry / "size")), "?") for entry in sorted(folder.glob("index*"))]
    return ",".join(sizes)


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
