"""The core's memory <-> JSON values of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.memory import Memory
from dmaml.server.core.progress import Progress
from dmaml.server.core.rounds import Core


def capture_meta(core: Core, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint keeps of the core, as JSON values."""
    memory = core.remember()
    return {
        "identity": core.identity,
        "config": config,
        "progress": asdict(memory.progress),
        "num_elements": memory.num_elements,
        "base_digests": {str(p): digest for p, digest in memory.base_digests.items()},
        "fingerprint": dict(memory.fingerprint),
        "data_digest": memory.data_digest,
        "applied": [[*_place(item), item in memory.voids] for item in sorted(memory.applied)],
    }


def _place(item: WorkItem) -> tuple[int, ...]:
    return item.round, item.pipeline, item.slot, item.part, item.index


def memory_of(meta: dict[str, Any]) -> Memory:
    """Return the core's memory that a checkpoint kept."""
    applied = {
        WorkItem(number, ItemKind.TRAIN, pipeline, slot, part, index, 0): is_void
        for number, pipeline, slot, part, index, is_void in meta["applied"]
    }
    return Memory(
        Progress(**meta["progress"]),
        int(meta["num_elements"]),
        {int(p): digest for p, digest in meta["base_digests"].items()},
        dict(meta["fingerprint"]),
        str(meta["data_digest"]),
        frozenset(applied),
        frozenset(item for item, is_void in applied.items() if is_void),
    )
