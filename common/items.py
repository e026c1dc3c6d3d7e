"""Work items and the words that both sides use about them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from operator import attrgetter
from typing import ClassVar, Final, NamedTuple

from dmaml.common.config import RunConfig


class ItemKind(enum.IntEnum):
    """What a work item asks for; the numbers are those of the protocol."""

    INIT = 1
    TRAIN = 2
    PROBE = 3
    EVALUATE = 4


class RunState(enum.IntEnum):
    """EMPTY → INIT → RUNNING ⇄ PAUSED → DRAINING → FINISHED | FAILED."""

    EMPTY = 1
    INIT = 2
    RUNNING = 3
    PAUSED = 4
    DRAINING = 5
    FINISHED = 6
    FAILED = 7


class Outcome(enum.IntEnum):
    """What became of an answer; the numbers are those of the protocol."""

    COMMITTED = 1
    BUFFERED = 2
    DUPLICATE = 3
    STALE_BASE = 4
    STALE_EPOCH = 5
    STALE_LEASE = 6
    LATE = 7
    NON_FINITE = 8
    NORM = 9
    SHAPE = 10
    CHECKSUM = 11
    QUOTA = 12
    PAUSED = 13


OVER = frozenset({RunState.FINISHED, RunState.FAILED})
TAKEN = frozenset({Outcome.COMMITTED, Outcome.BUFFERED, Outcome.NON_FINITE, Outcome.NORM})
VOID = frozenset({Outcome.NON_FINITE, Outcome.NORM})


@dataclass(frozen=True, order=True)
class WorkItem:
    """The unit of work, of retry and of exactly-once.

    Attributes:
        round: step of the run's clock, counting rounds of every kind (INIT is round 0).
        kind: what it asks for.
        pipeline: the meta-model it belongs to.
        slot: logical worker.
        part: share of the slot's tasks.
        index: number of the round among those of its kind.
        base_version: version of the parameters it is computed from. It says how, not which: in
            async mode an item that is handed out once more starts from newer ones.
        gamma_version: of the γ that its tasks are routed by.
    """

    round: int
    kind: ItemKind
    pipeline: int
    slot: int
    part: int
    index: int
    base_version: int = field(compare=False)
    gamma_version: int = field(default=0, compare=False)

    _hash: ClassVar[int]  # made once, for the core looks items up a lot

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.round, self.pipeline, self.slot, self.part)))

    def __eq__(self, other: object) -> bool:  # as generated, but most differ in their hash
        if not isinstance(other, WorkItem):
            return NotImplemented
        return self._hash == other._hash and _key(self) == _key(other)

    def __hash__(self) -> int:
        return self._hash

    def based_on(self, version: int) -> WorkItem:
        """Return the same item, to be computed from another version."""
        return WorkItem(
            self.round, self.kind, self.pipeline, self.slot, self.part, self.index, version,
            self.gamma_version,
        )  # fmt: skip

    def __str__(self) -> str:
        place = f"pipeline {self.pipeline}, slot {self.slot}, part {self.part}"
        return f"{self.kind.name} round {self.round} ({place})"


_key: Final = attrgetter("round", "kind", "pipeline", "slot", "part", "index")  # what is compared


class Token(NamedTuple):
    """Proof of the right to answer an item: an older one is refused."""

    epoch: int
    counter: int


def block(count: int, blocks: int, number: int) -> range:
    """Return the `number`-th of `blocks` nearly equal shares of 0 .. count - 1."""
    return range(count * number // blocks, count * (number + 1) // blocks)


def train_tasks(config: RunConfig, item: WorkItem) -> range:
    """Return the numbers, within the round, of the tasks of a TRAIN item."""
    tasks, parts = config.algorithm.tasks, config.topology.parts
    share = block(tasks, parts, item.part)
    first = item.slot * tasks
    return range(first + share.start, first + share.stop)


def evaluate_tasks(config: RunConfig, item: WorkItem) -> range:
    """Return the numbers of the validation tasks of an EVALUATE item (may be empty)."""
    slots, parts = config.topology.slots, config.topology.parts
    return block(config.evaluation.tasks, slots * parts, item.slot * parts + item.part)


def probe_share(config: RunConfig, item: WorkItem, count: int) -> range:
    """Return an item's share of the `count` units or tasks of a PROBE round (may be empty)."""
    slots, parts = config.topology.slots, config.topology.parts
    return block(count, slots * parts, item.slot * parts + item.part)
