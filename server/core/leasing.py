"""Who gets which item, and when a lease is over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.errors import CapacityError
from dmaml.common.items import WorkItem
from dmaml.server.core.actions import Done, Grant, Head, Wait
from dmaml.server.core.late import Late
from dmaml.server.core.membership import Lease, Membership, Session
from dmaml.server.core.outbox import Outbox
from dmaml.server.core.pace import Pace
from dmaml.server.core.publication import Publication
from dmaml.server.core.queue import Queue, Waiter
from dmaml.server.core.round import OpenItem, Round
from dmaml.server.core.speculation import Speculation


@final
class Leasing:
    """Brings items and actors together.

    Args:
        members: the actors.
        rounds: those in progress, by number.
        late: items whose round is closed.
        published: the version that items are computed from.
        outbox: where answers to Lease calls go.
        has_barrier: see `modes.Mode`.
        items_after: gives the items of the round after those in progress, as they are handed out.
    """

    def __init__(
        self,
        config: RunConfig,
        members: Membership,
        rounds: Mapping[int, Round],
        late: Late,
        published: Publication,
        outbox: Outbox,
        has_barrier: bool,
        items_after: Callable[[], tuple[WorkItem, ...]],
    ) -> None:
        self.pace = Pace()
        self.queue = Queue()
        self._item_timeout_s = config.server.item_timeout_s
        self._members = members
        self._rounds = rounds
        self._late = late
        self._published = published
        self._outbox = outbox
        self._has_barrier = has_barrier
        self._items_after = items_after
        self._speculation = Speculation(self.pace) if config.server.speculation else None

    # -- calls -------------------------------------------------------------------------------

    def ask(self, now: float, session: Session, request_id: str, wait_s: float) -> None:
        """Let a Lease call wait, or repeat the lease that the same call was granted before."""
        worker_id, again = session.worker_id, session.granted
        previous = self.queue.stop(worker_id)
        if previous is not None and previous.request_id != request_id:
            self._outbox.add(Wait(worker_id, previous.request_id))
        if again is not None and again.request_id == request_id and self._is_live(again):
            self._outbox.add(Grant(again, session.hint, now))
            return
        has_item = self.pace.num_in_hand(worker_id) > 0
        self.queue.wait(worker_id, Waiter(request_id, now + wait_s, now), has_item)

    def withdraw(self, worker_id: str, request_id: str) -> None:
        """Forget a Lease call whose caller hung up."""
        waiter = self.queue.find(worker_id)
        if waiter is not None and waiter.request_id == request_id:
            self.queue.stop(worker_id)

    def hold(self, now: float, session: Session, items: tuple[WorkItem, ...]) -> None:
        """Reserve items for an actor that has their answers, where these are still good."""
        if self._has_barrier and (items or session.held):
            self.queue.hold(session, items, now + self._item_timeout_s)

    def dismiss(self) -> None:
        """Answer every Lease call: the run is over."""
        for worker_id, waiter in self.queue.stop_all():
            self._outbox.add(Done(worker_id, waiter.request_id))

    def tick(self, now: float) -> None:
        """Forget the items that actors will not answer any more."""
        for worker_id in self.pace.expired(now):
            self.queue.finished_item(now, worker_id)

    def answer_overdue(self, now: float) -> None:
        """Answer the Lease calls that have waited long enough."""
        for worker_id, waiter in self.queue.overdue(now):
            self._outbox.add(Wait(worker_id, waiter.request_id))

    # -- leases ------------------------------------------------------------------------------

    def entry(self, item: WorkItem) -> OpenItem | None:
        """Return an item that is in progress, or came late, or None."""
        one = self._rounds.get(item.round)
        entry = one.items.get(item) if one is not None else None
        return entry if entry is not None else self._late.find(item)

    def set_down(self, now: float, head: Head) -> None:
        """Note that an actor is done with an item, whatever becomes of its answer."""
        if head.token.epoch == self._members.epoch:
            self.pace.answered(now, head.worker_id, head.token.counter)
            if not self.pace.num_in_hand(head.worker_id):
                self.queue.finished_item(now, head.worker_id)

    def close(self, items: Iterable[WorkItem], leases: Iterable[Lease] = ()) -> None:
        """Hand items out no more and end the leases on them."""
        for lease in leases:
            self._members.drop(lease)
        for item in items:
            self.queue.remove(item)
            if self._speculation is not None:
                self._speculation.over(item)

    def release(self, now: float, lease: Lease) -> bool:
        """End a lease; its item waits again unless another actor has it, or its round is closed.

        Returns:
            Whether another actor has the item or will get it.
        """
        self._members.drop(lease)
        self._late.release(lease)
        one = self._rounds.get(lease.item.round)
        if one is None or lease.item not in one.items:
            return False
        is_free = one.release(now, lease)
        if self._speculation is not None:
            left = list(one.items[lease.item].leases.values())
            self._speculation.over(lease.item)
            if len(left) == 1:
                self._speculation.granted(left[0], is_second=False)
        if is_free and one.quorum_at is None:
            self.queue.put_back(lease.item)
        return not is_free or one.quorum_at is None

    def end(self, now: float, session: Session) -> None:
        """End a session: answer its call, give its items to others."""
        waiter = self.queue.stop(session.worker_id)
        if waiter is not None:
            self._outbox.add(Wait(session.worker_id, waiter.request_id))
        self.queue.unhold(session)
        self.pace.left(session.worker_id)
        for lease in self._members.end(session):
            self.release(now, lease)

    # -- items to actors ---------------------------------------------------------------------

    def serve(self, now: float) -> None:
        """Hand pending items to waiting actors, first come first served.

        An actor that has an item in hand gets another ahead of time only while there is one for
        every actor that has no next one, and its last one did not take too long (`Pace.is_slow`);
        otherwise its call waits until its answer is in.
        """
        queue = self.queue
        for worker_id in list(queue.idle) if queue.pending else ():
            if not queue.pending:
                break
            self._serve_one(now, worker_id)
        while queue.pending and queue.ahead and self._has_barrier:
            num_without_next = len(self._members) - self.pace.num_ahead
            if len(queue.pending) < num_without_next:
                break
            kind = next(iter(queue.pending)).kind
            quick = next((one for one in queue.ahead if not self.pace.is_slow(one, kind)), None)
            if quick is None or not self._serve_one(now, quick):
                break
        if self._speculation is not None and queue.idle and not queue.pending:
            self._speculate(now, self._speculation)

    def _serve_one(self, now: float, worker_id: str) -> bool:
        waiter = self.queue.find(worker_id)
        session = self._members.find(worker_id, self._members.epoch)
        if waiter is None or session is None:
            return False
        item = self.queue.pick(now, session)
        if item is None:
            waiter.is_held_back = True
            return False
        is_late = waiter.is_held_back or worker_id in self.queue.ahead
        pending_at = self._rounds[item.round].items[item].pending_at
        free_at = max(pending_at, waiter.since, self.queue.not_before)
        self.queue.stop(worker_id)
        self.queue.remove(item)
        if not self._grant(now, session, item, waiter.request_id, now if is_late else free_at):
            self.queue.put_back(item)
        return True

    def _speculate(self, now: float, speculation: Speculation) -> None:
        """Give idle actors a second lease on items that take too long."""
        for first in speculation.overdue(now):
            worker_id = self._idle_for(first)
            session = self._members.find(worker_id, self._members.epoch)
            waiter = self.queue.stop(worker_id)
            if session is None or waiter is None:
                continue
            self._grant(now, session, first.item, waiter.request_id, now)
            self._outbox.note(
                "speculated",
                f"{first.item} takes worker {first.worker_id} longer than 1.5 times the median: "
                f"worker {worker_id} does it too",
                worker_id,
            )

    def _idle_for(self, first: Lease) -> str:
        """Return an idle actor that is neither the one that has the item nor slow itself, or ""."""
        for worker_id in self.queue.idle:
            is_slow = self.pace.is_slow(worker_id, first.item.kind)
            if worker_id != first.worker_id and not is_slow:
                return worker_id
        return ""

    def _grant(
        self, now: float, session: Session, item: WorkItem, request_id: str, available_at: float
    ) -> bool:
        one = self._rounds[item.round]
        entry, published = one.items[item], self._published
        if item.base_version != published.version:
            item = item.based_on(published.version)
        valid_s = self._item_timeout_s * (entry.attempts + 1)
        digest = published.digest_of(item)
        try:
            lease = self._members.lease(now, session, item, request_id, valid_s, digest)
        except CapacityError as error:
            self._outbox.note("refused", str(error), session.worker_id, warn=True)
            self._outbox.add(Wait(session.worker_id, request_id))
            return False
        is_second = bool(entry.leases)
        one.grant(entry, lease)
        self.pace.granted(now, lease)
        if self._speculation is not None:
            self._speculation.granted(lease, is_second)
        session.hint = self._hint()
        self._outbox.add(Grant(lease, session.hint, available_at))
        return True

    def _hint(self) -> WorkItem | None:
        """Guess what an actor gets after the item it has now: every other one comes first."""
        ahead = max(0, len(self._members) - 1)
        item = self.queue.place(ahead)
        if item is not None:
            return item
        items = self._items_after()
        return items[(ahead - len(self.queue.pending)) % len(items)] if items else None

    def _is_live(self, lease: Lease) -> bool:
        entry = self.entry(lease.item)
        return entry is not None and lease.token.counter in entry.leases
