"""One round in progress: its items, who does them, what came in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, final

from dmaml.common.items import VOID, ItemKind, Outcome, WorkItem
from dmaml.server.core.actions import Head
from dmaml.server.core.membership import Lease


@dataclass
class OpenItem:
    """An item of a round in progress: its live leases, its attempts and its answer.

    Attributes:
        pending_at: when it was last put among those that wait for an actor.
        attempts: leases on it, but for those whose answers were refused as too late.
        is_applied: its answer is in a commit.
    """

    pending_at: float
    leases: dict[int, Lease] = field(default_factory=dict)
    attempts: int = 0
    head: Head | None = None
    outcome: Outcome | None = None
    answered_at: float = 0.0
    is_applied: bool = False


class Census(NamedTuple):
    """How many of a pipeline's contributions to a round are void, and how many are not."""

    alive: int
    void: int


NumRequired = Callable[[int], int]  # void contributions -> others that a commit needs


@final
class Round:
    """A round in progress.

    Args:
        number: step of the run's clock.
        items: in pipeline, slot, part order.
        now: when it is opened.

    Attributes:
        num_missing: items without an answer.
        num_leased: those of them that an actor has.
        quorum_at: when enough answers were in (quorum mode), or None.
        is_timed: its grace has begun: nothing more of it is handed out.
        is_void: it brings too little for a pipeline, and the run pauses for it.
    """

    def __init__(self, number: int, kind: ItemKind, items: Iterable[WorkItem], now: float) -> None:
        self.number = number
        self.kind = kind
        self.items = {item: OpenItem(now) for item in items}
        self.opened_at = now
        self.num_missing = len(self.items)
        self.num_leased = 0
        self.quorum_at: float | None = None
        self.is_timed = False
        self.is_void = False
        self._num_unapplied = len(self.items)
        self._num_answered = dict.fromkeys((item.pipeline for item in self.items), 0)

    @property
    def index(self) -> int:
        """Number of the round among those of its kind."""
        return next(iter(self.items)).index

    @property
    def least_answered(self) -> int:
        """Answers of the pipeline that has the fewest."""
        return min(self._num_answered.values())

    @property
    def is_applied(self) -> bool:
        """Whether every answer is in a commit."""
        return self._num_unapplied == 0

    def grant(self, entry: OpenItem, lease: Lease) -> None:
        """Note a lease on an item of the round."""
        self.num_leased += not entry.leases
        entry.attempts += 1
        entry.leases[lease.token.counter] = lease

    def release(self, now: float, lease: Lease) -> bool:
        """Forget a lease; return whether its item waits for an actor now."""
        entry = self.items.get(lease.item)
        if entry is None or entry.leases.pop(lease.token.counter, None) is None:
            return False
        if entry.leases:
            return False
        self.num_leased -= 1
        entry.pending_at = now
        return True

    def answer(self, now: float, entry: OpenItem, head: Head, outcome: Outcome) -> list[Lease]:
        """Take the first answer of an item of the round and return its leases, which are over."""
        entry.head, entry.outcome, entry.answered_at = head, outcome, now
        self.num_missing -= 1
        self.num_leased -= bool(entry.leases)
        self._num_answered[head.item.pipeline] += 1
        leases, entry.leases = list(entry.leases.values()), {}
        return leases

    def apply(self, items: Iterable[WorkItem], voids: frozenset[WorkItem] = frozenset()) -> None:
        """Note that items are in a commit; `voids` are those whose answer is not at hand."""
        for item in items:
            entry = self.items[item]
            if entry.outcome is None:  # applied before a restart
                entry.outcome = Outcome.NON_FINITE if item in voids else Outcome.COMMITTED
                self.num_missing -= 1
                self._num_answered[item.pipeline] += 1
            entry.is_applied = True
            self._num_unapplied -= 1

    def answered(self) -> list[WorkItem]:
        """Return the items whose answers are in and in no commit yet, in their order."""
        return [i for i, one in self.items.items() if one.head is not None and not one.is_applied]

    def drop_missing(self) -> dict[WorkItem, OpenItem]:
        """Close the round without the items that have no answer, and return those."""
        missed = {i: one for i, one in self.items.items() if one.outcome is None}
        for item in missed:
            del self.items[item]
        self._num_unapplied -= len(missed)
        self.num_missing = self.num_leased = 0
        return missed

    def void_pipelines(self, num_required: NumRequired) -> dict[int, Census]:
        """Return the pipelines of whose answered slots too many have a void item."""
        slots: dict[int, set[int]] = {}
        void: dict[int, set[int]] = {}
        for item, entry in self.items.items():
            if entry.outcome is not None:
                slots.setdefault(item.pipeline, set()).add(item.slot)
            if entry.outcome in VOID:
                void.setdefault(item.pipeline, set()).add(item.slot)
        found = {p: Census(len(slots[p] - void[p]), len(void[p])) for p in sorted(void)}
        return {p: one for p, one in found.items() if one.alive < max(1, num_required(one.void))}

    def reopen(self, now: float, pipelines: Iterable[int]) -> list[WorkItem]:
        """Forget the answers of the pipelines and return their items, which wait again."""
        again = [item for item, entry in self.items.items() if item.pipeline in pipelines]
        for item in again:
            entry = self.items[item]
            self._num_unapplied += entry.is_applied
            self.num_missing += entry.outcome is not None
            self.num_leased -= bool(entry.leases)
            self.items[item] = OpenItem(now)
        for pipeline in pipelines:
            self._num_answered[pipeline] = 0
        self.quorum_at, self.is_timed, self.is_void = None, False, False
        return again
