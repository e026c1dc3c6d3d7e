"""What a checkpoint keeps of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dmaml.common.items import WorkItem
from dmaml.server.core.progress import Progress


@dataclass(frozen=True)
class Memory:
    """What a checkpoint keeps of the core.

    Attributes:
        progress: how far the run is.
        num_elements: size of the flat buffer, 0 before INIT.
        base_digests: pipeline -> digest of the parameters after the last commit.
        fingerprint, data_digest: of the actor that did INIT.
        applied: items of rounds not done yet that are committed (async mode only).
        voids: those of them that counted nothing.
    """

    progress: Progress = field(default_factory=Progress)
    num_elements: int = 0
    base_digests: Mapping[int, str] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    data_digest: str = ""
    applied: frozenset[WorkItem] = frozenset()
    voids: frozenset[WorkItem] = frozenset()
