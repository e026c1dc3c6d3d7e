"""What each actor has in hand, and how long items take. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Final, final

from dmaml.common.items import ItemKind
from dmaml.server.core.membership import MAX_LEASES, Lease

NUM_RECENT: Final = 101  # answers of a kind whose median counts
NUM_LEAST: Final = 3  # answers before a median says something
OVERDUE: Final = 1.5  # times the median


@dataclass
class InHand:
    """A lease that its actor has not answered, be its item closed meanwhile or not.

    Attributes:
        began_at: when the actor could begin with it; None while it has an earlier one.
    """

    lease: Lease
    began_at: float | None


@final
class Recent:
    """How long items of one kind took, seconds: the median of the last few.

    Attributes:
        last_s: worker id -> its last one.
    """

    def __init__(self) -> None:
        self.last_s: dict[str, float] = {}
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, worker_id: str, duration_s: float) -> None:
        """Take a duration; the oldest is forgotten."""
        self.last_s[worker_id] = duration_s
        if len(self._order) == NUM_RECENT:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(duration_s)
        insort(self._sorted, duration_s)

    @property
    def median_s(self) -> float | None:
        """The median (of an even number the upper of the two middle ones), or None for too few."""
        count = len(self._sorted)
        return self._sorted[count // 2] if count >= NUM_LEAST else None


@final
class Pace:
    """Keeps, per actor, its leases in the order in which it works on them.

    An actor works on one item at a time, in the order of its leases; so an answer says that the
    leases before it are over too. Durations are from the end of the item before (or the grant) to
    the answer's arrival.

    Attributes:
        num_ahead: actors that have a lease beyond the one they work on.
    """

    def __init__(self) -> None:
        self.num_ahead = 0
        self._hands: dict[str, list[InHand]] = {}
        self._recent: defaultdict[ItemKind, Recent] = defaultdict(Recent)
        self._expired_from = math.inf  # no lease ends before

    def num_in_hand(self, worker_id: str) -> int:
        """Return how many leases an actor has not answered."""
        return len(self._hands.get(worker_id, ()))

    def granted(self, now: float, lease: Lease) -> None:
        """Note a lease that goes to an actor."""
        hand = self._hands.setdefault(lease.worker_id, [])
        hand.append(InHand(lease, None if hand else now))
        self._expired_from = min(self._expired_from, lease.ends_at)
        self.num_ahead += len(hand) == 2
        if len(hand) > MAX_LEASES:
            self._drop(now, hand, 1)

    def answered(self, now: float, worker_id: str, counter: int) -> None:
        """Note that an actor is done with a lease, whatever becomes of its answer."""
        hand = self._hands.get(worker_id, [])
        for place, done in enumerate(hand):
            if done.lease.token.counter == counter:
                if done.began_at is not None:
                    self._recent[done.lease.item.kind].add(worker_id, now - done.began_at)
                self._drop(now, hand, place + 1)
                return

    def expired(self, now: float) -> list[str]:
        """Forget the leases whose time is over: their replies were lost, or their actors hang.

        Returns:
            The actors that have nothing in hand now.
        """
        freed: list[str] = []
        if now <= self._expired_from:
            return freed
        for worker_id, hand in self._hands.items():
            if hand and now > hand[0].lease.ends_at:
                while hand and now > hand[0].lease.ends_at:
                    self._drop(now, hand, 1)
                freed += [worker_id] if not hand else []
        ends = (one.lease.ends_at for hand in self._hands.values() for one in hand)
        self._expired_from = min(ends, default=math.inf)
        return freed

    def left(self, worker_id: str) -> None:
        """Forget an actor."""
        self.num_ahead -= len(self._hands.pop(worker_id, ())) > 1
        for recent in self._recent.values():
            recent.last_s.pop(worker_id, None)

    def is_slow(self, worker_id: str, kind: ItemKind) -> bool:
        """Tell whether an actor's last item of a kind took longer than 1.5 × the median."""
        last_s = self._recent[kind].last_s.get(worker_id)
        return last_s is not None and self._is_long(last_s, kind)

    def is_overdue(self, now: float, lease: Lease) -> bool:
        """Tell whether an item takes longer than 1.5 × the median of its kind, or will.

        It will where the actor's last one did. A lease behind another counts from its grant, with
        the time of both.
        """
        worker_id, kind = lease.worker_id, lease.item.kind
        if self.is_slow(worker_id, kind):
            return True
        for place, one in enumerate(self._hands.get(worker_id, ())):
            if one.lease.token.counter == lease.token.counter:
                begin = one.began_at
                since = begin if begin is not None else lease.ends_at - lease.valid_s
                return self._is_long((now - since) / (1 if begin is not None else place + 1), kind)
        return False

    def _is_long(self, duration_s: float, kind: ItemKind) -> bool:
        median_s = self._recent[kind].median_s
        return median_s is not None and duration_s > OVERDUE * median_s

    def _drop(self, now: float, hand: list[InHand], count: int) -> None:
        was_ahead = len(hand) > 1
        del hand[:count]
        self.num_ahead -= was_ahead and len(hand) <= 1
        if hand and hand[0].began_at is None:
            hand[0].began_at = now
