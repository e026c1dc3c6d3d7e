"""When answers become a commit: `sync.mode`, one small class each. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, final

from dmaml.common.config import RunConfig, quorum_of
from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.round import Round

GRACE_SHARE: Final = 0.25  # of the time that the quorum took


class Batch(NamedTuple):
    """Answers of one round, or of several TRAIN rounds, that one commit combines.

    Attributes:
        kind: of their rounds.
        items: whose answers they are, in the order of the sum.
        opened_at: when the first of their rounds was opened.
    """

    kind: ItemKind
    items: tuple[WorkItem, ...]
    opened_at: float


class Mode(Protocol):
    """When answers become a commit.

    Attributes:
        window: TRAIN rounds that may be in progress at a time.
        is_durable_first: a version is published only once it is in a durable checkpoint, for it
            could not be computed again bit by bit.
        has_barrier: every item of a round starts from the same version. Without, an actor gets its
            next item only when its answer to this one is in, for what waits grows stale, and
            answers of items that are handed out once more are of no use.
    """

    window: int
    is_durable_first: bool
    has_barrier: bool

    def opened(self, items: tuple[WorkItem, ...], index: int) -> tuple[WorkItem, ...]:
        """Return a TRAIN round's items in the order in which they are handed out."""
        ...

    def answered(self, item: WorkItem) -> None:
        """Take note of an answer to a TRAIN item."""
        ...

    def ripe(self, now: float, rounds: Mapping[int, Round]) -> Batch | None:
        """Return what is to be committed next, or None: wait."""
        ...

    def wake_at(self, round: Round) -> float | None:
        """Return when time alone may ripen a round, or None."""
        ...

    @property
    def backlog(self) -> int:
        """Commits of answers that are in already, before that of the next answer."""
        ...


@final
class Sync:
    """A round is committed when every item is in."""

    window = 1
    is_durable_first = False
    has_barrier = True

    def opened(self, items: tuple[WorkItem, ...], index: int) -> tuple[WorkItem, ...]:
        """See `Mode.opened`: as they are."""
        return items

    def answered(self, item: WorkItem) -> None:
        """See `Mode.answered`."""

    def ripe(self, now: float, rounds: Mapping[int, Round]) -> Batch | None:
        """See `Mode.ripe`."""
        for one in rounds.values():
            if one.num_missing == 0:
                return whole(one)
        return None

    def wake_at(self, round: Round) -> float | None:
        """See `Mode.wake_at`: never."""
        return None

    @property
    def backlog(self) -> int:
        """See `Mode.backlog`: none."""
        return 0


@final
class Quorum:
    """A TRAIN round is committed when the answers of K slots are in, and a time of grace is over.

    The grace is a quarter of the time that the quorum took, at most `sync.grace_s`: who is only a
    little slower than the others still counts. Once the quorum is there, no further item of the
    round is handed out; if nobody has one in hand, there is no grace. The slots take turns at the
    end of the queue, so that none is always left out.

    Args:
        quorum: K.
        grace_s: the longest grace, seconds.
    """

    window = 1
    is_durable_first = True
    has_barrier = True

    def __init__(self, quorum: int, grace_s: float) -> None:
        self._quorum = quorum
        self._grace_s = grace_s

    def opened(self, items: tuple[WorkItem, ...], index: int) -> tuple[WorkItem, ...]:
        """See `Mode.opened`: another slot is the first in each round."""
        first = index % len(items)
        return items[first:] + items[:first]

    def answered(self, item: WorkItem) -> None:
        """See `Mode.answered`."""

    def ripe(self, now: float, rounds: Mapping[int, Round]) -> Batch | None:
        """See `Mode.ripe`."""
        for one in rounds.values():
            if one.num_missing == 0:
                return whole(one)
            if one.kind is not ItemKind.TRAIN or one.least_answered < self._quorum:
                continue
            if one.quorum_at is None:
                one.quorum_at = now
            wake_at = self.wake_at(one)
            if one.num_leased == 0 or (wake_at is not None and now >= wake_at):
                return Batch(one.kind, tuple(one.answered()), one.opened_at)
        return None

    def wake_at(self, round: Round) -> float | None:
        """See `Mode.wake_at`: at the end of the grace."""
        if round.quorum_at is None:
            return None
        took_s = round.quorum_at - round.opened_at
        return round.quorum_at + min(self._grace_s, GRACE_SHARE * took_s)

    @property
    def backlog(self) -> int:
        """See `Mode.backlog`: none."""
        return 0


@final
class Async:
    """Every answer to a TRAIN item is a commit by itself, or `batch` of one pipeline are.

    Args:
        window: s; an item of round r + s is not handed out before round r is done.
        batch: answers in a commit.
    """

    is_durable_first = True
    has_barrier = False

    def __init__(self, window: int, batch: int) -> None:
        self.window = window
        self._batch = batch
        self._ready: dict[int, deque[WorkItem]] = {}

    def opened(self, items: tuple[WorkItem, ...], index: int) -> tuple[WorkItem, ...]:
        """See `Mode.opened`: as they are."""
        return items

    def answered(self, item: WorkItem) -> None:
        """See `Mode.answered`."""
        self._ready.setdefault(item.pipeline, deque()).append(item)

    def ripe(self, now: float, rounds: Mapping[int, Round]) -> Batch | None:
        """See `Mode.ripe`."""
        for one in rounds.values():
            if one.kind is not ItemKind.TRAIN:  # then it is the only one
                return whole(one) if one.num_missing == 0 else None
        for ready in self._ready.values():
            is_whole = len(ready) >= self._batch
            if is_whole or (ready and not any(one.num_missing for one in rounds.values())):
                items = sorted([ready.popleft() for _ in range(min(self._batch, len(ready)))])
                return Batch(ItemKind.TRAIN, tuple(items), rounds[items[0].round].opened_at)
        return None

    def wake_at(self, round: Round) -> float | None:
        """See `Mode.wake_at`: never."""
        return None

    @property
    def backlog(self) -> int:
        """See `Mode.backlog`: the whole batches that wait."""
        return sum([len(ready) // self._batch for ready in self._ready.values()])


def whole(round: Round) -> Batch:
    """Return all answers of a complete round."""
    return Batch(round.kind, tuple(round.answered()), round.opened_at)


def mode_of(config: RunConfig) -> Mode:
    """Return the run's mode."""
    sync = config.sync
    if sync.mode == "quorum":
        return Quorum(quorum_of(config), sync.grace_s)
    if sync.mode == "async":
        return Async(sync.window, sync.async_batch)
    return Sync()
