"""The run's state machine in synchronous mode. Pure: it reads no clock and does no I/O.

Every method is an event; what the world must do about it is collected in an outbox
(`take_actions`). Two ideas carry it: the answer to a work item is a pure function of the item, so
any actor may do it and the first answer counts; and this object alone owns the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import (
    CapacityError,
    IdentityMismatchError,
    RunFailedError,
)
from dmaml.common.items import (
    TAKEN,
    VOID,
    ItemKind,
    Outcome,
    RunState,
    WorkItem,
)
from dmaml.server.core.actions import Action, Commit, Done, Grant, Head, Note, Save, Verdict, Wait
from dmaml.server.core.membership import Hello, Lease, Membership, Session
from dmaml.server.core.memory import Memory
from dmaml.server.core.sequence import PlanKind, Progress, items_of, next_kind
from dmaml.server.core.verdicts import (
    judge_sizes,
    outcome_of,
    require_same_numerics,
    void_sentence,
)


@dataclass
class OpenItem:
    """An item of the round in progress: its live leases, its attempts and its answer.

    Attributes:
        pending_at: when it was last put among those that wait for an actor.
    """

    pending_at: float
    leases: dict[int, Lease] = field(default_factory=dict)
    attempts: int = 0
    head: Head | None = None
    outcome: Outcome | None = None
    answered_at: float = 0.0


@dataclass(frozen=True)
class Round:
    """The round in progress."""

    number: int
    kind: ItemKind
    items: dict[WorkItem, OpenItem]
    opened_at: float


@dataclass
class Waiter:
    """A Lease call that has no answer yet.

    Attributes:
        is_held_back: items were pending meanwhile, and none of them was for this actor.
    """

    request_id: str
    asked_at: float
    until: float
    is_held_back: bool = False

    def available_at(self, now: float, pending_at: float) -> float:
        """Return when an item that it is granted now could be had by this call."""
        return now if self.is_held_back else max(pending_at, self.asked_at)


class Core:
    """One run: rounds, leases, commits, states."""

    def __init__(
        self,
        config: RunConfig,
        epoch: int,
        memory: Memory | None = None,
        pipelines: tuple[int, ...] = (0,),
        plan: PlanKind = lambda: ItemKind.TRAIN,
        tag: str = "",
    ) -> None:
        self.config = config
        self.identity = configuration.identity(config)
        self.memory = memory or Memory()
        self.state = RunState.EMPTY if self.memory.progress.round == 0 else RunState.RUNNING
        self.message = ""
        self.durable_round = self.memory.progress.round
        limits = config.server
        self.members = Membership(epoch, limits.session_s, limits.max_workers, tag)
        self._pipelines = pipelines
        self._plan = plan
        self._round: Round | None = None
        self._is_committing = False
        self._is_draining = False
        self._founder: Hello | None = None  # did INIT; kept, for it may be gone at the commit
        self._pending: deque[WorkItem] = deque()
        self._waiters: dict[str, Waiter] = {}
        self._actions: list[Action] = []

    # -- the outside -------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.memory.progress

    @property
    def epoch(self) -> int:
        """The server's epoch."""
        return self.members.epoch

    @property
    def round(self) -> Round | None:
        """The round in progress."""
        return self._round

    def take_actions(self) -> list[Action]:
        """Return what is to be done, oldest first, and forget it."""
        actions, self._actions = self._actions, []
        return actions

    def start(self, now: float) -> None:
        """Open the first round, or finish at once where nothing is left to do."""
        if self.state is RunState.RUNNING:
            self._open_next(now)

    # -- sessions ----------------------------------------------------------------------------

    def join(self, now: float, hello: Hello) -> Session:
        """Open a session; repeating it repeats the answer.

        Raises:
            IdentityMismatchError: the actor was started with another configuration.
            FingerprintMismatchError: other numerics or other data than the run's.
            CapacityError: too many actors.
        """
        if hello.identity != self.identity:
            raise IdentityMismatchError(
                f"join refused: the actor's configuration has identity {hello.identity[:12]!r}, "
                f"the run's is {self.identity[:12]!r}. Start the actor with the run's "
                "configuration, and the same version of dmaml."
            )
        require_same_numerics(self.config, self.memory, hello)
        session, is_new = self.members.join(now, hello)
        session.hold(hello.held, now + self.config.server.item_timeout_s)
        if is_new:
            self._note("joined", f"worker {session.worker_id} joined from {hello.host}", session)
        if self.state is RunState.EMPTY:
            self.state = RunState.INIT
            self._open_next(now)
        return session

    def renew(self, now: float, worker_id: str, epoch: int) -> None:
        """Keep a session alive; raises SessionLostError."""
        self.members.heard(now, worker_id, epoch)

    def leave(self, now: float, worker_id: str, epoch: int, reason: str) -> None:
        """End a session and give its items to others."""
        session = self.members.find(worker_id, epoch)
        if session is not None:
            self._end(
                now, session, "left", f"worker {worker_id} left: {reason or 'no reason given'}"
            )
            self._serve(now)

    def ask(
        self,
        now: float,
        worker_id: str,
        epoch: int,
        request_id: str,
        wait_s: float,
        held: tuple[WorkItem, ...] = (),
    ) -> None:
        """Ask for an item; the answer is a Grant, Wait or Done action, now or later.

        Raises:
            SessionLostError: join again.
            FingerprintMismatchError: INIT fixed other numerics since the join.
        """
        session = self.members.heard(now, worker_id, epoch)
        require_same_numerics(self.config, self.memory, session.hello)
        session.hold(held, now + self.config.server.item_timeout_s)
        previous = self._waiters.get(worker_id)
        if previous is not None and previous.request_id != request_id:
            self._actions.append(Wait(worker_id, previous.request_id))
        again = session.granted
        if again is not None and again.request_id == request_id and self._is_live(again):
            self._waiters.pop(worker_id, None)
            self._actions.append(self._grant_of(again, session, now))
            return
        self._waiters[worker_id] = Waiter(request_id, now, now + wait_s)
        self._serve(now)

    def withdraw(self, worker_id: str, request_id: str) -> None:
        """Forget a Lease call whose caller hung up."""
        waiter = self._waiters.get(worker_id)
        if waiter is not None and waiter.request_id == request_id:
            del self._waiters[worker_id]

    # -- answers -----------------------------------------------------------------------------

    def judge(self, head: Head) -> Verdict | None:
        """Return the refusal (or first outcome) that the header alone decides, or None: send it.

        Changes nothing, so it may be asked before the payload is there and again afterwards.
        """
        item = head.item
        if head.token.epoch != self.epoch:
            return Verdict(
                Outcome.STALE_EPOCH,
                f"push refused: lease of epoch {head.token.epoch}, the server is at {self.epoch}: "
                "it restarted. Join again and push again.",
            )
        session = self.members.find(head.worker_id, self.epoch)
        if session is not None and session.last is not None and session.last[0] == item:
            outcome = session.last[1]
            if outcome is Outcome.BUFFERED and item.round < self.durable_round:
                outcome = Outcome.COMMITTED
            return Verdict(outcome, f"{item}: answered before by the same actor.")
        entry = self._round.items.get(item) if self._round is not None else None
        if item.round < self.progress.round or (entry is not None and entry.head is not None):
            return Verdict(Outcome.DUPLICATE, f"{item}: answered before. Nothing to do.")
        if self.state in (RunState.FINISHED, RunState.FAILED):
            return Verdict(Outcome.PAUSED, f"push refused: the run is {self.state.name}.")
        lease = entry.leases.get(head.token.counter) if entry is not None else None
        if session is None or lease is None or lease.worker_id != head.worker_id:
            return Verdict(
                Outcome.STALE_LEASE,
                f"push refused: lease {head.token.counter} on {item} ended or never was. "
                "Ask for a new one.",
            )
        base = self.memory.base_digests.get(item.pipeline, "")
        if item.kind is not ItemKind.INIT and head.base_digest != base:
            return Verdict(
                Outcome.STALE_BASE,
                f"push refused: computed from parameters {head.base_digest[:12]!r}, {item} asks "
                f"for version {item.base_version} with {base[:12]!r}. Pull and recompute.",
            )
        return judge_sizes(self.config, self.memory.num_elements, head)

    def deliver(self, now: float, head: Head, is_finite: bool = True) -> Verdict:
        """Take an answer whose payload is in place; the first one of an item counts.

        Args:
            is_finite: whether the loss and every value of the payload are finite.
        """
        refusal = self.judge(head)
        if refusal is not None:
            if refusal.outcome not in TAKEN | {Outcome.DUPLICATE}:
                self._note(
                    "refused",
                    refusal.message,
                    worker_id=head.worker_id,
                    warn=True,
                    outcome=refusal.outcome,
                )
            return refusal
        assert self._round is not None
        session = self.members.heard(now, head.worker_id, self.epoch)
        outcome = outcome_of(self.config, head, is_finite)
        entry = self._round.items[head.item]
        entry.head, entry.outcome, entry.answered_at = head, outcome, now
        for lease in entry.leases.values():
            self.members.drop(lease)
        entry.leases.clear()
        session.last = (head.item, outcome)
        session.contributions += 1
        if head.item.kind is ItemKind.INIT and self._founder is None:
            self._founder = session.hello
        message = ""
        if outcome in VOID and head.item.kind is ItemKind.INIT:
            self.fail(now, f"{head.item} holds NaN or infinity. Mend the model's init.")
            return Verdict(outcome, self.message)
        if outcome in VOID:
            message = void_sentence(self.config, head, outcome)
            self._note("void", message, session, warn=True, outcome=outcome)
        self._commit_if_complete(now)
        self._serve(now)
        return Verdict(outcome, message)

    # -- the world's answers -----------------------------------------------------------------

    def committed(
        self,
        now: float,
        number: int,
        base_digests: Mapping[int, str],
        num_tasks: int,
        num_elements: int | None = None,
    ) -> None:
        """Close a round whose answers are combined, and open the next.

        Args:
            number: the round.
            base_digests: pipeline -> digest of the parameters that are published now.
            num_tasks: tasks that it trained on.
            num_elements: size of the flat buffer (INIT only).
        """
        assert self._round is not None
        assert self._round.number == number
        kind = self._round.kind
        if kind is ItemKind.INIT:
            self._fix_numerics()
        progress = self.progress.after(kind, num_tasks)
        self.memory = Memory(
            progress,
            num_elements if num_elements is not None else self.memory.num_elements,
            dict(base_digests),
            self.memory.fingerprint,
            self.memory.data_digest,
        )
        self._round = None
        self._is_committing = False
        if self.state is RunState.INIT:
            self.state = RunState.RUNNING
        self._open_next(now)

    def saved(self, now: float, number: int) -> None:
        """Note that the state after `number` rounds is durable."""
        self.durable_round = max(self.durable_round, number)
        is_idle = self._round is None and not self._is_committing
        is_durable = self.durable_round >= self.progress.round
        if self.state in (RunState.FINISHED, RunState.FAILED):
            return
        if is_idle and is_durable and self._is_ending():
            self.state = RunState.FINISHED
            self._note("finished", f"finished at version {self.progress.version}")
            self._serve(now)

    def fail(self, now: float, message: str) -> None:
        """Stop the run with an error."""
        self.state, self.message = RunState.FAILED, message
        self._note("failed", message, warn=True)
        self._serve(now)

    # -- the operator ------------------------------------------------------------------------

    def pause(self, now: float, reason: str) -> None:
        """Grant no further lease; answers of held ones are still taken."""
        if self.state not in (RunState.RUNNING, RunState.PAUSED):
            raise RunFailedError(
                f"pause refused: the run is {self.state.name}. A RUNNING one can be paused."
            )
        if self.state is RunState.RUNNING:
            self.state, self.message = RunState.PAUSED, reason
            self._note("paused", reason or "paused by the operator")

    def resume(self, now: float) -> None:
        """Grant leases again; a round of voids is computed once more."""
        if self.state is RunState.PAUSED:
            self.state, self.message = RunState.RUNNING, ""
            self._note("resumed", "resumed by the operator")
            if self._round is not None and not self._is_committing:
                self._reopen_if_all_void(now, self._round)
            self._serve(now)

    def drain(self, now: float, reason: str) -> None:
        """End the run after the round in progress."""
        if self.state in (RunState.RUNNING, RunState.PAUSED, RunState.INIT, RunState.EMPTY):
            self.state, self.message = RunState.DRAINING, reason
            self._is_draining = True
            self._note("draining", reason or "drained by the operator")
            self._abandon_if_stuck(now)
            self._serve(now)

    # -- time --------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End what is over: waits, leases, silent sessions."""
        for session in self.members.silent(now):
            silence = now - session.heard_at
            self._end(
                now,
                session,
                "lost",
                f"worker {session.worker_id} lost: silent for {silence:.1f} s",
                warn=True,
            )
        for lease in self.members.expired(now):
            self._note(
                "lease_expired",
                f"lease {lease.token.counter} of worker {lease.worker_id} on {lease.item} expired: "
                "the item goes to another actor. Raise server.item_timeout_s if it is slow.",
                warn=True,
                worker_id=lease.worker_id,
            )
            self._release(now, lease)
        self._abandon_if_stuck(now)
        self._serve(now)
        for worker_id, waiter in list(self._waiters.items()):
            if now >= waiter.until:
                del self._waiters[worker_id]
                self._actions.append(Wait(worker_id, waiter.request_id))

    # -- inside ------------------------------------------------------------------------------

    def _fix_numerics(self) -> None:
        assert self._founder is not None
        self.memory = Memory(
            self.progress,
            self.memory.num_elements,
            self.memory.base_digests,
            dict(self._founder.fingerprint),
            self._founder.data_digest,
        )

    def _is_ending(self) -> bool:
        return self._is_draining or next_kind(self.config, self.progress, self._plan) is None

    def _open_next(self, now: float) -> None:
        """Open the next round, or end the run and wait for its last checkpoint."""
        kind = None if self._is_draining else next_kind(self.config, self.progress, self._plan)
        if self.durable_round < self.progress.round:
            self._actions.append(Save(self.progress.round, must=kind is None))
        elif kind is None:
            self.state = RunState.FINISHED
            self._note("finished", f"finished at version {self.progress.version}")
        if kind is None:
            self._serve(now)
            return
        items = items_of(self.config, self.progress, kind, self._pipelines)
        self._round = Round(self.progress.round, kind, {i: OpenItem(now) for i in items}, now)
        self._pending = deque(items)
        self._serve(now)

    def _serve(self, now: float) -> None:
        """Hand pending items to waiting actors, first come first served.

        An actor that has an item in hand gets another ahead of time only while there is one for
        every actor that has no next one; otherwise its call waits until its answer is in.
        """
        if self.state in (RunState.FINISHED, RunState.FAILED):
            for worker_id, waiter in self._waiters.items():
                self._actions.append(Done(worker_id, waiter.request_id))
            self._waiters.clear()
            return
        for worker_id, waiter in list(self._waiters.items()):
            if not self._pending:
                return
            session = self.members.find(worker_id, self.epoch)
            item = self._pick(now, session) if session and self._may_have(session) else None
            if session is None or item is None:
                waiter.is_held_back = True
            else:
                self._grant(now, session, item, self._waiters.pop(worker_id))

    def _may_have(self, session: Session) -> bool:
        if self.state in (RunState.PAUSED, RunState.EMPTY):
            return False
        if not session.leases:
            return True
        num_without_next = sum(len(other.leases) < 2 for other in self.members)
        return len(self._pending) >= num_without_next

    def _pick(self, now: float, session: Session) -> WorkItem | None:
        """Return the pending item for a session: one it holds, one it prepared, else the first."""
        mine = [item for item in self._pending if item in session.held]
        if mine:
            return mine[0]
        others = {
            item
            for s in self.members
            if s is not session and now <= s.held_until
            for item in s.held
        }
        free = [item for item in self._pending if item not in others]
        if session.hint in free:
            return session.hint
        return free[0] if free else None

    def _grant(self, now: float, session: Session, item: WorkItem, waiter: Waiter) -> None:
        assert self._round is not None
        entry = self._round.items[item]
        valid_s = self.config.server.item_timeout_s * (entry.attempts + 1)
        try:
            lease = self.members.lease(now, session, item, waiter.request_id, valid_s)
        except CapacityError as error:
            self._note("refused", str(error), session, warn=True)
            self._actions.append(Wait(session.worker_id, waiter.request_id))
            return
        entry.attempts += 1
        entry.leases[lease.token.counter] = lease
        self._pending.remove(item)
        session.hint = self._hint()
        available_at = waiter.available_at(now, entry.pending_at)
        self._actions.append(self._grant_of(lease, session, available_at))

    def _grant_of(self, lease: Lease, session: Session, available_at: float) -> Grant:
        digest = self.memory.base_digests.get(lease.item.pipeline, "")
        return Grant(lease, digest, session.hint, available_at)

    def _hint(self) -> WorkItem | None:
        """Guess what an actor gets after the item it has now: every other one comes first."""
        ahead = max(0, len(self.members) - 1)
        if ahead < len(self._pending):
            return self._pending[ahead]
        assert self._round is not None
        after = self.progress.after(self._round.kind, 0)
        kind = next_kind(self.config, after, self._plan)
        if kind is None or kind is ItemKind.INIT:
            return None
        items = items_of(self.config, after, kind, self._pipelines)
        return items[(ahead - len(self._pending)) % len(items)]

    def _is_live(self, lease: Lease) -> bool:
        entry = self._round.items.get(lease.item) if self._round is not None else None
        return entry is not None and lease.token.counter in entry.leases

    def _release(self, now: float, lease: Lease) -> None:
        self.members.drop(lease)
        entry = self._round.items.get(lease.item) if self._round is not None else None
        if entry is None:
            return
        entry.leases.pop(lease.token.counter, None)
        if entry.head is None and not entry.leases and lease.item not in self._pending:
            entry.pending_at = now
            self._pending.appendleft(lease.item)

    def _end(
        self, now: float, session: Session, event: str, message: str, warn: bool = False
    ) -> None:
        waiter = self._waiters.pop(session.worker_id, None)
        if waiter is not None:
            self._actions.append(Wait(session.worker_id, waiter.request_id))
        for lease in self.members.end(session):
            self._release(now, lease)
        self._note(event, message, session, warn=warn)

    def _commit_if_complete(self, now: float) -> None:
        current = self._round
        if current is None or self._is_committing:
            return
        if any(entry.head is None for entry in current.items.values()):
            return
        heads = tuple(entry.head for entry in current.items.values() if entry.head is not None)
        voids = frozenset(i for i, entry in current.items.items() if entry.outcome in VOID)
        for pipeline in sorted({item.pipeline for item in voids}):
            slots = {item.slot for item in current.items if item.pipeline == pipeline}
            if slots == {item.slot for item in voids if item.pipeline == pipeline}:
                self.state = RunState.DRAINING if self._is_draining else RunState.PAUSED
                self.message = (
                    f"round {current.number}: every contribution to pipeline {pipeline} is void "
                    "(NaN, infinity or too large). Lower algorithm.inner_lr or outer.lr and start "
                    "a new run, or resume to compute the round once more."
                )
                self._note("paused", self.message, warn=True)
                return
        self._is_committing = True
        index = heads[0].item.index
        version = heads[0].item.base_version
        answered = [entry.answered_at for entry in current.items.values()]
        times = (current.opened_at, min(answered), max(answered))
        self._actions.append(
            Commit(current.number, current.kind, index, version, heads, voids, *times)
        )

    def _abandon_if_stuck(self, now: float) -> None:
        """End a draining run whose round nobody can finish; no committed round is lost."""
        if self.state is not RunState.DRAINING or self._is_committing:
            return
        current = self._round
        if current is None:
            is_stuck = self.progress.round == 0
        else:
            is_complete = all(entry.head is not None for entry in current.items.values())
            is_stuck = is_complete or not len(self.members)
        if is_stuck:
            self._round = None
            self._pending.clear()
            self._open_next(now)

    def _reopen_if_all_void(self, now: float, current: Round) -> None:
        if all(entry.head is not None for entry in current.items.values()):
            for session in self.members:
                session.last = None
            for entry in current.items.values():
                entry.head = entry.outcome = None
                entry.pending_at = now
            self._pending = deque(current.items)

    def _note(
        self,
        event: str,
        message: str,
        session: Session | None = None,
        warn: bool = False,
        worker_id: str = "",
        outcome: Outcome | None = None,
    ) -> None:
        who = session.worker_id if session is not None else worker_id
        self._actions.append(Note(event, message, warn, who, outcome))
