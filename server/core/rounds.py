"""The run's state machine. Pure: it reads no clock and does no I/O.

Every method is an event; what the world must do about it is collected in an outbox
(`take_actions`). Two ideas carry it: the answer to a work item is a pure function of the item, so
any actor may do it and the first answer counts; and this object alone owns the state. When answers
become a commit is the mode's to say (`modes`), who gets which item `leasing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig, most_pipelines
from dmaml.common.errors import IdentityMismatchError, RunFailedError
from dmaml.common.items import OVER, TAKEN, VOID, ItemKind, Outcome, RunState, WorkItem
from dmaml.server.core.actions import Action, Head, Save, Verdict, Wake
from dmaml.server.core.committing import commit_of
from dmaml.server.core.itinerary import Itinerary
from dmaml.server.core.late import Late
from dmaml.server.core.leasing import Leasing
from dmaml.server.core.membership import Given, Hello, Membership, Session
from dmaml.server.core.memory import Memory, place_of
from dmaml.server.core.modes import Batch, mode_of
from dmaml.server.core.outbox import Outbox
from dmaml.server.core.progress import Progress
from dmaml.server.core.publication import Publication
from dmaml.server.core.round import NumRequired, OpenItem, Round
from dmaml.server.core.sequence import PlanKind, Routes
from dmaml.server.core.verdicts import (
    Standing,
    judge,
    outcome_of,
    require_same_numerics,
    void_round_sentence,
    void_sentence,
)


class Core:
    """One run: rounds, leases, commits, states."""

    def __init__(
        self,
        config: RunConfig,
        epoch: int,
        memory: Memory | None = None,
        routes: Routes = Routes(),  # noqa: B008  # immutable
        plan: PlanKind = lambda progress: ItemKind.TRAIN,
        tag: str = "",
        num_required: NumRequired = lambda num_voids: 1,
    ) -> None:
        self.config = config
        self.epoch = epoch
        self.identity = configuration.identity(config)
        self.memory = memory or Memory()
        self.state = RunState.EMPTY if self.memory.progress.round == 0 else RunState.RUNNING
        self.message = ""
        self.has_diverged = False  # it is PAUSED or FAILED for numbers that are not finite
        self.durable = self.memory.progress
        limits = config.server
        self.members = Membership(epoch, limits.session_s, limits.max_workers, tag)
        self._mode = mode_of(config)
        self.routes = routes
        self._num_required = num_required
        self._rounds: dict[int, Round] = {}
        self._late = Late(config, most_pipelines(config))
        self._batch: Batch | None = None  # being committed
        self._has_moved = False  # it moves the parameters
        self._itinerary = Itinerary(config, plan, self._mode, self._rounds)
        self._published = Publication(self.memory)
        self._outbox = Outbox()
        self.leasing = Leasing(
            config,
            self.members,
            self._rounds,
            self._late,
            self._published,
            self._outbox,
            self._mode.has_barrier,
            lambda: self._itinerary.after(self.progress, self.routes),
        )
        self._save_asked: Progress | None = None  # a checkpoint that the run waits for
        self._is_draining = False
        self._founder: Hello | None = None  # did INIT; kept, for it may be gone at the commit

    # -- the outside -------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.memory.progress

    def remember(self) -> Memory:
        """Return what a checkpoint of the state of now keeps."""
        done = {
            place_of(item): entry.outcome in VOID
            for one in self._rounds.values()
            for item, entry in one.items.items()
            if entry.is_applied and one.kind is ItemKind.TRAIN
        }
        opened = {one.index for one in self._rounds.values() if one.kind is ItemKind.TRAIN}
        for place in self.memory.applied:  # of rounds that are not open yet
            if place[0] >= self.progress.trained and place[0] not in opened:
                done[place] = place in self.memory.voids
        return self.memory._replace(
            applied=frozenset(done),
            voids=frozenset(place for place, is_void in done.items() if is_void),
        )

    @property
    def durable_round(self) -> int:
        """Rounds that are in a durable checkpoint."""
        return self.durable.round

    @property
    def is_durable_first(self) -> bool:
        """Whether a version is published only once it is in a durable checkpoint."""
        return self._mode.is_durable_first

    @property
    def round(self) -> Round | None:
        """The round in progress, the first of them in async mode."""
        for one in self._rounds.values():
            return one
        return None

    def take_actions(self) -> list[Action]:
        """Return what is to be done, oldest first, and forget it."""
        return self._outbox.take()

    def start(self, now: float) -> None:
        """Open the first round, or finish at once where nothing is left to do."""
        if self.state is RunState.RUNNING:
            self._go_on(now)

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
        self.leasing.hold(now, session, hello.held)
        if is_new:
            self._outbox.note(
                "joined", f"worker {session.worker_id} joined from {hello.host}", session.worker_id
            )
        if self.state is RunState.EMPTY:
            self.state = RunState.INIT
            self._go_on(now)
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
            self._go_on(now)

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
        if not session.is_checked:
            require_same_numerics(self.config, self.memory, session.hello)
            session.is_checked = bool(self.memory.data_digest)
        self.leasing.hold(now, session, held)
        self.leasing.ask(now, session, request_id, wait_s)
        self._serve(now)

    def withdraw(self, worker_id: str, request_id: str) -> None:
        """Forget a Lease call whose caller hung up."""
        self.leasing.withdraw(worker_id, request_id)

    # -- answers -----------------------------------------------------------------------------

    def judge(self, head: Head) -> Verdict | None:
        """Return the refusal (or first outcome) that the header alone decides, or None: send it.

        Changes nothing, so it may be asked before the payload is there and again afterwards.
        """
        return self._judge(head, self.leasing.entry(head.item))

    def _judge(self, head: Head, entry: OpenItem | None) -> Verdict | None:
        standing = Standing(
            epoch=self.epoch,
            state=self.state,
            round=self.progress.round,
            durable_round=self.durable_round,
            version=self.progress.version + (self._batch is not None) + self._mode.backlog,
            num_elements=self.memory.num_elements,
            may_sit_out=len(self.routes.pipelines) > 1,
        )
        session = self.members.find(head.worker_id, self.epoch)
        return judge(self.config, standing, head, entry, session, self._late)

    def deliver(self, now: float, head: Head, is_finite: bool = True) -> Verdict:
        """Take an answer whose payload is in place; the first one of an item counts.

        Args:
            is_finite: whether the loss and every value of the payload are finite.
        """
        entry = self.leasing.entry(head.item)
        refusal = self._judge(head, entry)
        self.leasing.set_down(now, head)
        if refusal is not None:
            self._refuse(now, head, entry, refusal)
            self._go_on(now)
            return refusal
        session = self.members.heard(now, head.worker_id, self.epoch)
        assert entry is not None
        leased = entry.leases[head.token.counter].item
        if head.item.base_version != leased.base_version:
            head = head._replace(item=leased)
        outcome = outcome_of(self.config, head, is_finite)
        is_merged = self._take(now, head, entry, outcome)
        session.last = Given(head.item, outcome, is_merged)
        session.contributions += 1
        is_init = head.item.kind is ItemKind.INIT
        if is_init and self._founder is None:
            self._founder = session.hello
        message = ""
        if outcome in VOID and is_init:
            self.fail(now, f"{head.item} holds NaN or infinity. Mend the model's init.")
            return Verdict(outcome, self.message)
        if outcome in VOID:
            message = void_sentence(self.config, head, outcome)
            self._outbox.note("void", message, session.worker_id, warn=True, outcome=outcome)
        self._go_on(now)
        return Verdict(outcome, message)

    # -- the world's answers -----------------------------------------------------------------

    def committed(
        self,
        now: float,
        number: int,
        base_digests: Mapping[int, str],
        num_tasks: int,
        num_elements: int | None = None,
        routes: Routes | None = None,
    ) -> None:
        """Note that answers are combined, and go on.

        Args:
            number: of the commit.
            base_digests: pipeline -> digest of its parameters now.
            num_tasks: tasks that it trained on.
            num_elements: size of the flat buffer (INIT only).
            routes: what is in force from now on; None: as before.
        """
        batch, self._batch = self._batch, None
        assert batch is not None
        assert number == self.progress.commits
        if batch.kind is ItemKind.INIT:
            self._fix_numerics()
        by_round: dict[int, list[WorkItem]] = {}
        for item in batch.items:
            by_round.setdefault(item.round, []).append(item)
        for round_number, items in by_round.items():
            self._rounds[round_number].apply(items)
        size = num_elements if num_elements is not None else self.memory.num_elements
        self.memory = self.memory._replace(
            progress=self.progress.committed(batch.kind, num_tasks, self._has_moved),
            num_elements=size,
            base_digests=dict(base_digests),
        )
        if self.state is RunState.INIT:
            self.state = RunState.RUNNING
        if routes is not None and routes != self.routes:
            self.routes = routes
            self._itinerary.forget()
        self._close_rounds()
        self._published.committed(self.memory, is_published=not self._mode.is_durable_first)
        self._save_if_behind()
        self._go_on(now)

    def saved(self, now: float, progress: Progress) -> None:
        """Note that the state with this progress is durable."""
        if progress.commits >= self.durable.commits:
            self.durable = progress
        if self._save_asked is not None and progress.commits >= self._save_asked.commits:
            self._save_asked = None
        self._published.saved(self.durable.commits)
        if self.state not in OVER:
            self._save_if_behind()
            self._go_on(now)

    def fail(self, now: float, message: str, has_diverged: bool = False) -> None:
        """Stop the run with an error."""
        self.state, self.message = RunState.FAILED, message
        self.has_diverged = has_diverged
        self._outbox.note("failed", message, warn=True)
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
            self._outbox.note("paused", reason or "paused by the operator")

    def resume(self, now: float) -> None:
        """Grant leases again; a round of voids is computed once more."""
        if self.state is RunState.PAUSED:
            self.state, self.message, self.has_diverged = RunState.RUNNING, "", False
            self.leasing.queue.not_before = now
            self._outbox.note("resumed", "resumed by the operator")
            first = self.round
            if first is not None and first.is_void:
                self._reopen(now, first)
            self._go_on(now)

    def drain(self, now: float, reason: str) -> None:
        """End the run after the rounds in progress."""
        if self.state in (RunState.RUNNING, RunState.PAUSED, RunState.INIT, RunState.EMPTY):
            self.state, self.message = RunState.DRAINING, reason
            self._is_draining = True
            self._outbox.note("draining", reason or "drained by the operator")
            self._abandon_if_stuck()
            self._go_on(now)

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
            goes_on = self.leasing.release(now, lease)
            fate = "the item goes to another actor" if goes_on else "its round does without it"
            self._outbox.note(
                "lease_expired",
                f"lease {lease.token.counter} of worker {lease.worker_id} on {lease.item} expired: "
                f"{fate}. Raise server.item_timeout_s if it is slow.",
                warn=True,
                worker_id=lease.worker_id,
            )
        self.leasing.tick(now)
        self._abandon_if_stuck()
        self._go_on(now)
        self.leasing.answer_overdue(now)

    def _serve(self, now: float) -> None:
        """Hand out items, as far as the state allows."""
        if self.state in OVER:
            self.leasing.dismiss()
        elif self.state not in (RunState.PAUSED, RunState.EMPTY) and not self._is_published_stale():
            self.leasing.serve(now)

    def _is_published_stale(self) -> bool:
        """Tell whether what is computed from the published version would be refused as too old."""
        most = self.config.sync.max_staleness
        if most is None or not self._mode.is_durable_first:
            return False
        return self.progress.version - self._published.version > most

    # -- rounds ------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Commit what is ripe, open what may be opened, serve who waits."""
        if self.state in OVER:
            self._serve(now)
            return
        self._close_rounds()
        self._commit(now)
        self._open_rounds(now)
        self._serve(now)

    def _commit(self, now: float) -> None:
        """Ask for the next commit, where the mode finds one."""
        first = self.round
        if self._batch is not None or first is None or self._is_far_ahead():
            return
        batch = self._mode.ripe(now, self._rounds)
        if batch is None:
            self._note_quorum(now, first)
            return
        if self._mode.has_barrier:
            if self._pause_if_void(first):
                return
            missed = first.drop_missing()
            self._late.add(missed)
            self.leasing.close(missed)
        merged = self._late.take() if batch.kind is ItemKind.TRAIN else []
        commit = commit_of(batch, self._rounds, merged, self.progress, self._mode.has_barrier)
        self._batch, self._has_moved = batch, commit.has_moved
        self._outbox.add(commit)

    def _note_quorum(self, now: float, one: Round) -> None:
        """Once a round has its quorum, hand out nothing more of it; come back after the grace."""
        if one.quorum_at is not None and not one.is_timed:
            one.is_timed = True
            for item in one.items:
                self.leasing.queue.remove(item)
            self._outbox.add(Wake(self._mode.wake_at(one) or now))

    def _pause_if_void(self, one: Round) -> bool:
        """Pause the run where a round brings too little for a pipeline; tell whether it is so."""
        pipelines = one.void_pipelines(self._num_required)
        if pipelines and not one.is_void:
            one.is_void = True
            self.state = RunState.DRAINING if self._is_draining else RunState.PAUSED
            pipeline, census = next(iter(pipelines.items()))
            needed = self._num_required(census.void)
            self.has_diverged = not self._is_draining
            self.message = void_round_sentence(self.config, one.number, pipeline, census, needed)
            self._outbox.note("paused", self.message, warn=True)
        return bool(pipelines)

    def _close_rounds(self) -> None:
        """Count the rounds in front whose answers are all committed."""
        while (first := self.round) is not None and first.is_applied:
            if not self._mode.has_barrier and self._pause_if_void(first):
                return
            del self._rounds[first.number]
            self.memory = self.memory._replace(progress=self.progress.closed(first.kind))

    def _open_rounds(self, now: float) -> None:
        """Open rounds as far as the window reaches; end the run after its last checkpoint."""
        while self._batch is None or self._rounds:
            if self._rounds and not self._is_in_window():
                return
            if not self._rounds and not self._may_start():
                return
            ahead = self._itinerary.ahead(self.progress)
            kind = None if self._is_draining else self._itinerary.kind(ahead)
            if not self._rounds and self._has_ended(kind):
                return
            if kind is None or (self._rounds and kind is not ItemKind.TRAIN):
                return
            self._open(now, ahead, kind)
            self._close_rounds()

    def _is_far_ahead(self) -> bool:
        """Tell whether as many commits as the window has items are not durable yet: wait."""
        if self._mode.has_barrier:
            return False
        most = self._mode.window * self.config.topology.slots * len(self.routes.pipelines)
        return self.progress.commits - self.durable.commits >= most

    def _open(self, now: float, progress: Progress, kind: ItemKind) -> None:
        items = self._itinerary.items(progress, kind, self.routes)
        self._itinerary.forget()
        one = Round(progress.round, kind, items, now)
        known = self.memory.applied if kind is ItemKind.TRAIN else frozenset()
        done = {item for item in items if place_of(item) in known} if known else set()
        one.apply(done, frozenset(i for i in done if place_of(i) in self.memory.voids))
        self._rounds[one.number] = one
        order = self._mode.opened(items, one.index) if kind is ItemKind.TRAIN else items
        self.leasing.queue.add(item for item in order if item not in done)

    def _may_start(self) -> bool:
        """Tell whether a round may be opened while none is: in some modes what is before it must
        be durable."""
        if self.state is RunState.EMPTY or self._batch is not None:
            return False
        return not self._mode.is_durable_first or self.durable.commits == self.progress.commits

    def _is_in_window(self) -> bool:
        if len(self._rounds) >= self._mode.window:
            return False
        return all(one.kind is ItemKind.TRAIN for one in self._rounds.values())

    def _has_ended(self, kind: ItemKind | None) -> bool:
        """Ask for the checkpoint that is due between rounds; tell whether the run is at its end."""
        if self.durable.commits < self.progress.commits:
            if self._save_asked is None:
                self._save(must=kind is None)
        elif kind is None:
            self._drop_late()
            self.state = RunState.FINISHED
            self._outbox.note("finished", f"finished at version {self.progress.version}")
        return kind is None

    def _drop_late(self) -> None:
        """Say so where answers came after the last round that could have taken them."""
        for head, _ in self._late.take():
            message = f"{head.item}: it came after the last round. Nothing to do."
            self._outbox.note("refused", message, worker_id=head.worker_id, outcome=Outcome.LATE)

    def _save_if_behind(self) -> None:
        """Ask for the checkpoint after which the last commit may be published, one at a time."""
        is_behind = self.durable.commits < self.progress.commits
        is_free = self._batch is None and self._save_asked is None
        if self._mode.is_durable_first and is_behind and is_free:
            self._save(must=True)

    def _save(self, must: bool) -> None:
        self._save_asked = self.progress if must else None
        self._outbox.add(Save(self.progress, must))

    def _fix_numerics(self) -> None:
        assert self._founder is not None
        self.memory = self.memory._replace(
            fingerprint=dict(self._founder.fingerprint),
            data_digest=self._founder.data_digest,
        )

    def _abandon_if_stuck(self) -> None:
        """End a draining run whose rounds nobody can finish; nothing that is committed is lost."""
        if self.state is not RunState.DRAINING or self._batch is not None or not self._rounds:
            return
        is_stuck = all(one.num_missing == 0 or one.is_void for one in self._rounds.values())
        if is_stuck or not len(self.members):
            self.memory = self.remember()
            self.leasing.close(item for one in self._rounds.values() for item in one.items)
            self._rounds.clear()
            self._drop_late()

    def _reopen(self, now: float, one: Round) -> None:
        """Compute the void part of a round once more."""
        for session in self.members:
            session.last = None
        pipelines = one.void_pipelines(self._num_required)
        self.leasing.queue.add(one.reopen(now, pipelines))

    def _take(self, now: float, head: Head, entry: OpenItem, outcome: Outcome) -> bool:
        """Note the first answer of an item, whose leases are over; tell whether it is merged."""
        item = head.item
        is_merged = self._late.find(item) is not None
        if is_merged:
            leases = self._late.answer(head, outcome)
        else:
            leases = self._rounds[item.round].answer(now, entry, head, outcome)
            if item.kind is ItemKind.TRAIN:
                self._mode.answered(item)
        self.leasing.close([item], leases)
        return is_merged

    def _refuse(self, now: float, head: Head, entry: OpenItem | None, refusal: Verdict) -> None:
        """Count a refusal; one that comes too late gives its lease back."""
        lease = entry.leases.get(head.token.counter) if entry is not None else None
        session = self.members.find(head.worker_id, self.epoch)
        is_own = lease is not None and lease.worker_id == head.worker_id
        is_late = refusal.outcome is Outcome.LATE and is_own
        if is_late and entry is not None and lease is not None and session is not None:
            if self._late.find(head.item) is not None:
                session.last = Given(head.item, Outcome.LATE)
            entry.attempts -= 1  # nobody was too slow for the lease
            self.leasing.release(now, lease)
        if refusal.outcome not in TAKEN | {Outcome.DUPLICATE}:
            self._outbox.note(
                "refused",
                refusal.message,
                worker_id=head.worker_id,
                warn=True,
                outcome=refusal.outcome,
            )

    def _end(
        self, now: float, session: Session, event: str, message: str, warn: bool = False
    ) -> None:
        self.leasing.end(now, session)
        self._outbox.note(event, message, session.worker_id, warn)
