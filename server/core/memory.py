"""What a checkpoint keeps of the core."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dmaml.common.items import WorkItem
from dmaml.server.core.progress import Progress

Place = tuple[int, int, int, int]
NOTHING: Final[Mapping[Any, str]] = MappingProxyType({})


def place_of(item: WorkItem) -> Place:
    """Return (index, pipeline, slot, part) of a TRAIN item."""
    return item.index, item.pipeline, item.slot, item.part


class Memory(NamedTuple):
    """What a checkpoint keeps of the core.

    Attributes:
        progress: how far the run is.
        num_elements: size of the flat buffer, 0 before INIT.
        base_digests: pipeline -> digest of the parameters after the last commit.
        fingerprint, data_digest: of the actor that did INIT.
        applied: places of TRAIN rounds not done yet that are committed (async mode only). Not
            items: a resumed run may validate at other times, and its rounds have other numbers.
        voids: those of them that counted nothing.
    """

    progress: Progress = Progress()
    num_elements: int = 0
    base_digests: Mapping[int, str] = NOTHING
    fingerprint: Mapping[str, str] = NOTHING
    data_digest: str = ""
    applied: frozenset[Place] = frozenset()
    voids: frozenset[Place] = frozenset()
