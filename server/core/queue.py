"""Items that wait for actors, and actors that wait for items. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import final

from dmaml.common.items import WorkItem
from dmaml.server.core.membership import Session


@dataclass
class Waiter:
    """A Lease call that has no answer yet.

    Attributes:
        since: from when on the actor could have been given an item: the call, or the end of the
            item that it had in hand.
        is_held_back: items were pending meanwhile, and none of them was for this actor.
    """

    request_id: str
    until: float
    since: float
    is_held_back: bool = False


@final
class Queue:
    """Every operation takes constant time but for those that say otherwise.

    Attributes:
        pending: items that nobody has, the next one first; each leads to itself, so that an equal
            item finds the one that the round knows.
        idle: calls of actors with nothing in hand, by worker id, the oldest first.
        ahead: calls of actors that ask for their next item while they have one in hand.
        not_before: nothing could be had before this time (the end of a pause).
    """

    def __init__(self) -> None:
        self.pending: dict[WorkItem, WorkItem] = {}
        self.idle: OrderedDict[str, Waiter] = OrderedDict()
        self.ahead: OrderedDict[str, Waiter] = OrderedDict()
        self.not_before = 0.0
        self._overdue_from = math.inf  # no call ends before
        self._holders: dict[WorkItem, dict[str, Session]] = {}
        self._returned: set[WorkItem] = set()

    def __len__(self) -> int:
        return len(self.pending) + len(self.idle) + len(self.ahead) + len(self._holders)

    # -- calls ---------------------------------------------------------------------------------

    def wait(self, worker_id: str, waiter: Waiter, has_item: bool) -> None:
        """Let a call of an actor wait that has no other one."""
        self._overdue_from = min(self._overdue_from, waiter.until)
        (self.ahead if has_item else self.idle)[worker_id] = waiter

    def find(self, worker_id: str) -> Waiter | None:
        """Return an actor's waiting call, or None."""
        return self.idle.get(worker_id) or self.ahead.get(worker_id)

    def stop(self, worker_id: str) -> Waiter | None:
        """Forget an actor's call and return it."""
        return self.idle.pop(worker_id, None) or self.ahead.pop(worker_id, None)

    def finished_item(self, now: float, worker_id: str) -> None:
        """Note that an actor has nothing in hand now."""
        waiter = self.ahead.pop(worker_id, None)
        if waiter is not None:
            waiter.since = max(now, waiter.since)
            self.idle[worker_id] = waiter

    def overdue(self, now: float) -> list[tuple[str, Waiter]]:
        """Forget the calls whose time is over and return them; looks at every call if it must."""
        if now < self._overdue_from:
            return []
        over = [
            (worker_id, waiter)
            for calls in (self.idle, self.ahead)
            for worker_id, waiter in calls.items()
            if now >= waiter.until
        ]
        for worker_id, _ in over:
            self.stop(worker_id)
        rest = (waiter.until for calls in (self.idle, self.ahead) for waiter in calls.values())
        self._overdue_from = min(rest, default=math.inf)
        return over

    def stop_all(self) -> list[tuple[str, Waiter]]:
        """Forget every call and return them."""
        calls = [*self.idle.items(), *self.ahead.items()]
        self.idle.clear()
        self.ahead.clear()
        return calls

    # -- items ---------------------------------------------------------------------------------

    def add(self, items: Iterable[WorkItem]) -> None:
        """Let items wait behind the others."""
        for item in items:
            self.pending[item] = item

    def put_back(self, item: WorkItem) -> None:
        """Let an item wait before the others; copies the line."""
        self.pending.pop(item, None)
        self.pending = {item: item} | self.pending
        self._returned.add(item)

    def remove(self, item: WorkItem) -> None:
        """Forget an item."""
        self.pending.pop(item, None)
        self._returned.discard(item)

    def hold(self, session: Session, items: tuple[WorkItem, ...], until: float) -> None:
        """Reserve items for an actor until a time, for it has their answers."""
        held = frozenset(items)
        for item in session.held - held:
            self._unhold(session.worker_id, item)
        for item in held - session.held:
            self._holders.setdefault(item, {})[session.worker_id] = session
        session.held, session.held_until = held, until

    def unhold(self, session: Session) -> None:
        """Forget an actor's reservations."""
        for item in session.held:
            self._unhold(session.worker_id, item)

    def pick(self, now: float, session: Session) -> WorkItem | None:
        """Return the item for an actor: one it holds, one it prepared, else the first free one.

        Passes over items that are reserved for others. One that was put back comes before one
        that was prepared.
        """
        mine = [item for item in session.held if item in self.pending] if session.held else ()
        if mine:
            return self.pending[min(mine)]
        hint = self.pending.get(session.hint) if session.hint and not self._returned else None
        if hint is not None and self._is_free(now, session, hint):
            return hint
        for item in self.pending:
            if self._is_free(now, session, item):
                return item
        return None

    def place(self, position: int) -> WorkItem | None:
        """Return the pending item at a position, or None beyond the end; walks there."""
        if position >= len(self.pending):
            return None
        return next(islice(self.pending, position, None))

    def _is_free(self, now: float, session: Session, item: WorkItem) -> bool:
        holders = self._holders.get(item)
        return not holders or all(
            one is session or now > one.held_until for one in holders.values()
        )

    def _unhold(self, worker_id: str, item: WorkItem) -> None:
        holders = self._holders.get(item, {})
        holders.pop(worker_id, None)
        if not holders:
            self._holders.pop(item, None)
