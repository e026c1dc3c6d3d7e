"""The core's memory <-> JSON values of a checkpoint."""

from __future__ import annotations

from typing import Any

from dmaml.server.core.memory import Memory, Place
from dmaml.server.core.progress import Progress
from dmaml.server.core.rounds import Core


def capture_meta(core: Core, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint keeps of the core, as JSON values."""
    memory = core.remember()
    return {
        "identity": core.identity,
        "config": config,
        "progress": memory.progress._asdict(),
        "num_elements": memory.num_elements,
        "base_digests": {str(p): digest for p, digest in memory.base_digests.items()},
        "fingerprint": dict(memory.fingerprint),
        "data_digest": memory.data_digest,
        "applied": [[*place, place in memory.voids] for place in sorted(memory.applied)],
    }


def memory_of(meta: dict[str, Any]) -> Memory:
    """Return the core's memory that a checkpoint kept."""
    applied: dict[Place, bool] = {
        (index, pipeline, slot, part): is_void
        for index, pipeline, slot, part, is_void in meta["applied"]
    }
    return Memory(
        Progress(**meta["progress"]),
        int(meta["num_elements"]),
        {int(p): digest for p, digest in meta["base_digests"].items()},
        dict(meta["fingerprint"]),
        str(meta["data_digest"]),
        frozenset(applied),
        frozenset(place for place, is_void in applied.items() if is_void),
    )
