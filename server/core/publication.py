"""Which version of the parameters actors are given. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import final

from dmaml.common.gamma import digest_of_all
from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.memory import Memory


@final
class Publication:
    """The published version; committed ones may wait here until they are durable.

    Attributes:
        version: TRAIN commits in the published parameters.
        digests: pipeline -> digest of them.
    """

    def __init__(self, memory: Memory) -> None:
        self.version = memory.progress.version
        self.digests: Mapping[int, str] = memory.base_digests
        self._waiting: deque[Memory] = deque()

    def digest_of(self, item: WorkItem) -> str:
        """Return the digest of the parameters that an item needs; "" before there are any."""
        if item.kind in (ItemKind.PROBE, ItemKind.EVALUATE):
            return digest_of_all(self.digests)
        return self.digests.get(item.pipeline, "")

    def committed(self, memory: Memory, is_published: bool) -> None:
        """Take the parameters after a commit.

        Args:
            is_published: at once; otherwise as soon as they are durable.
        """
        self._waiting.append(memory)
        if is_published:
            self.saved(memory.progress.commits)

    def saved(self, commits: int) -> None:
        """Publish the last version of those that are durable."""
        while self._waiting and self._waiting[0].progress.commits <= commits:
            memory = self._waiting.popleft()
            self.version, self.digests = memory.progress.version, memory.base_digests
