"""Answers that come too late: their round closed without them, or they are too stale. Pure."""

from __future__ import annotations

from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.items import Outcome, WorkItem
from dmaml.server.core.actions import Head, Verdict
from dmaml.server.core.membership import Lease
from dmaml.server.core.round import OpenItem


@final
class Late:
    """Items that a quorum left out though actors had been given them, and their answers.

    With `sync.late: merge` the answers to live leases wait for the next TRAIN commit, at most as
    many as a round has; all others are refused. An item is forgotten once all its actors have
    answered; of those whose leases ended otherwise, `server.max_workers` are remembered.
    """

    def __init__(self, config: RunConfig, num_pipelines: int) -> None:
        self._merges = config.sync.late == "merge"
        self._max_staleness = config.sync.max_staleness
        self._most = config.topology.slots * config.topology.parts * num_pipelines
        self._most_ended = config.server.max_workers
        self._items: dict[WorkItem, OpenItem] = {}
        self._ended: dict[WorkItem, None] = {}  # those without a lease, the oldest first
        self._answers: list[tuple[Head, Outcome]] = []

    def __len__(self) -> int:
        return len(self._items) + len(self._answers)

    def add(self, missed: dict[WorkItem, OpenItem]) -> None:
        """Take the items that a round closed without."""
        self._items |= missed
        for item in missed:
            self._forget_if_over(item)

    def find(self, item: WorkItem) -> OpenItem | None:
        """Return such an item, or None."""
        return self._items.get(item)

    def judge(self, item: WorkItem, lease: Lease | None, version: int) -> Verdict | None:
        """Return the refusal of an answer that comes too late, or None.

        Args:
            lease: the live one that it answers, or None.
            version: TRAIN commits so far.
        """
        is_closed = item in self._items
        if is_closed and not self._merges:
            return Verdict(
                Outcome.LATE,
                f"push refused: the quorum closed round {item.round} without {item}. Nothing to "
                "do; sync.late: merge would take it into the next round.",
            )
        if is_closed and lease is None:
            return Verdict(
                Outcome.LATE,
                f"push refused: the quorum closed round {item.round} without {item}, whose lease "
                "has ended. Nothing to do; raise server.item_timeout_s if it is slow.",
            )
        if lease is None:
            return None
        staleness = version - lease.item.base_version
        if self._max_staleness is not None and staleness > self._max_staleness:
            return Verdict(
                Outcome.LATE,
                f"push refused: {item} is {staleness} versions old, sync.max_staleness is "
                f"{self._max_staleness}. "
                + ("Nothing to do." if is_closed else "It is handed out again."),
            )
        if is_closed and len(self._answers) >= self._most:
            return Verdict(
                Outcome.LATE,
                f"push refused: {self._most} late answers wait for the next commit already, as "
                "many as a round has. Nothing to do.",
            )
        return None

    def answer(self, head: Head, outcome: Outcome) -> list[Lease]:
        """Take an answer for the next TRAIN commit, be it void; return its item's leases."""
        entry = self._items.pop(head.item)
        self._answers.append((head, outcome))
        return list(entry.leases.values())

    def release(self, lease: Lease) -> None:
        """Forget a lease."""
        entry = self._items.get(lease.item)
        if entry is not None:
            entry.leases.pop(lease.token.counter, None)
            self._forget_if_over(lease.item)

    def take(self) -> list[tuple[Head, Outcome]]:
        """Return the answers that wait, in their items' order, and forget them."""
        answers = sorted(self._answers, key=lambda one: one[0].item)
        self._answers.clear()
        return answers

    def _forget_if_over(self, item: WorkItem) -> None:
        """Forget an item without a lease that nobody will answer, and those ended long ago."""
        entry = self._items[item]
        if entry.leases:
            return
        if entry.attempts:
            self._ended[item] = None
        else:
            del self._items[item]
        while len(self._ended) > self._most_ended:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._items[oldest]
