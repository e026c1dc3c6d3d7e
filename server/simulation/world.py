"""The real core under virtual time.

A queue of events ordered by time drives one `Core`, the class of production, and virtual actors
around it. Everything that an actor will do with a lease is known when it is granted, for the times
of its death and its leaving are drawn at its birth; so a work item costs two events of the queue,
the Lease call and the answer, both at the moment when they reach the server.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, final

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError, SessionLostError
from dmaml.common.items import (
    OVER,
    TAKEN,
    ItemKind,
    RunState,
    WorkItem,
    block,
    evaluate_tasks,
)
from dmaml.server.core.actions import Commit, Done, Grant, Head, Note, Save, Wait, Wake
from dmaml.server.core.membership import Hello, Lease
from dmaml.server.core.rounds import Core
from dmaml.server.simulation.actor import Actor, Plan, Purpose, draws
from dmaml.server.simulation.figures import Figures, Tally, figures_of
from dmaml.server.simulation.ledger import Ledger
from dmaml.server.simulation.machinery import Machinery
from dmaml.server.simulation.scenario import Scenario

NUM_ELEMENTS: Final = 1
LEASE_WAIT_S: Final = 20.0  # as worker/client.py
TICK_S: Final = 0.1  # as server/runner.py, at most: see `_tick_s`
ASK_AGAIN_S: Final = 0.001  # an actor that is sent away does not ask in the same instant
LEAST_TRIES: Final = 20_000  # births, joins and leases in a row without an answer that is taken
TRIES: Final = 100  # of each actor; where all of them are in vain, the run goes nowhere
MOST_TICKS: Final = 2_000_000  # in a row without one: the clock is too fine for such times
Handler = Callable[[Any], None]
Answer = tuple[Actor, str, Lease, Plan]


@contextmanager
def _without_gc() -> Iterator[None]:
    """Let no cyclic collection run: a million short-lived objects, none of them in a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@final
class World:
    """One simulated run.

    Args:
        config: of the run; its mode, slots and rounds are what is simulated.
        name: of the mode, for people.
        on_rounds: told the TRAIN rounds done, after each.
    """

    def __init__(
        self,
        config: RunConfig,
        scenario: Scenario,
        name: str = "",
        on_rounds: Callable[[int], object] = lambda rounds: None,
    ) -> None:
        self.config, self.scenario = config, scenario
        self.core = Core(config, epoch=1)
        self.ledger = Ledger(config)
        self.tally = Tally()
        self.now = 0.0
        self._name = name or config.sync.mode
        self._on_rounds = on_rounds
        self._queue: list[tuple[float, int, Handler, Any]] = []
        self._count = itertools.count()
        self._actors: dict[str, Actor] = {}  # those that live, by incarnation
        self._by_id: dict[str, Actor] = {}
        self._num_tries = self._num_ticks = 0  # since an answer was taken
        self._setbacks: Counter[str] = Counter()  # since then
        self._num_machines = scenario.workers
        self._machinery = Machinery(
            draws(scenario, scenario.commit, Purpose.COMMIT),
            draws(scenario, scenario.combine, Purpose.COMBINE),
            draws(scenario, scenario.checkpoint, Purpose.CHECKPOINT),
            config.server.checkpoint_every,
        )
        self._service = draws(scenario, scenario.service, Purpose.SERVICE)
        self._has_close = config.sync.mode != "async"  # rounds do not overlap
        self._answered: defaultdict[int, list[float]] = defaultdict(list)  # by TRAIN index
        tasks, parts = config.algorithm.tasks, config.topology.parts
        self._num_tasks = [len(block(tasks, parts, part)) for part in range(parts)]
        self._num_pipelines = config.clustering.pipelines
        self._per_round = config.topology.slots * parts * self._num_pipelines

    def run(self) -> Figures:
        """Run to the end and return the figures.

        Raises:
            RunFailedError: the core broke its word, or the run cannot end.
        """
        with _without_gc():
            self._begin()
            queue, pop = self._queue, heapq.heappop
            while self.core.state not in OVER:
                at, _, handle, subject = pop(queue)
                self.now = max(self.now, at)  # it is later where the server is busy: `service`
                handle(subject)
        if self.core.state is RunState.FAILED:
            raise RunFailedError(f"simulation: {self.core.message}")
        return self._end()

    # -- the world ---------------------------------------------------------------------------

    def _at(self, at: float, handle: Handler, subject: Any) -> None:
        heapq.heappush(self._queue, (at, next(self._count), handle, subject))

    def _begin(self) -> None:
        self.core.start(self.now)
        for machine in range(self.scenario.workers):
            self._birth((machine, 0))
        self._arrivals = (
            draws(self.scenario, self.scenario.join, Purpose.ARRIVAL)
            if self.scenario.join is not None
            else None
        )
        if self._arrivals is not None:
            self._at(next(self._arrivals), self._arrive, None)
        self._tick_s = self._choose_tick_s()
        self._at(self._tick_s, self._tick, None)
        self._renew_s = self.config.server.session_s / 4  # as server/rpc/meta_model.py
        self._at(self._renew_s, self._renew, None)

    def _choose_tick_s(self) -> float:
        """Return the time between two ticks: finer than a twentieth of an item is no use."""
        coarsest = self.config.server.session_s / 10
        return max(TICK_S, min(coarsest, self.scenario.compute.mean / 20))

    def _end(self) -> Figures:
        tally = self.tally
        for actor in self._actors.values():
            tally.live(actor.since, self.now, actor.factor)
            if actor.doomed_from is not None:
                tally.wasted_s["unfinished"] += max(0.0, self.now - actor.doomed_from)
        for _, _, handle, subject in self._queue:
            if handle == self._answer:
                plan: Plan = subject[3]
                tally.wasted_s["unfinished"] += max(0.0, min(plan.end, self.now) - plan.start)
        sync, progress = self.config.sync, self.core.progress
        may_wait = self._per_round if sync.mode == "quorum" and sync.late == "merge" else 0
        applied = self.ledger.close(sync.mode != "quorum", may_wait)
        done = (progress.trained, progress.version, progress.tasks_seen)
        return figures_of(self._name, tally, self.now, self.scenario.compute.mean, done, applied)

    def _tick(self, _: None) -> None:
        self.core.tick(self.now)
        self._obey()
        self._num_ticks += 1
        if self.core.state not in OVER:
            self._require_hope()
        self._at(self.now + self._tick_s, self._tick, None)

    def _require_hope(self) -> None:
        """Raise where the run goes nowhere, with what happened since an answer was taken."""
        num_actors = len(self._actors)
        clock = (self._tick, self._renew)
        is_over = not num_actors and all(handle in clock for _, _, handle, _ in self._queue)
        most = max(LEAST_TRIES, TRIES * num_actors)
        if not is_over and self._num_tries <= most and self._num_ticks <= MOST_TICKS:
            return
        setbacks = [f"{count} {what}" for what, count in self._setbacks.most_common()]
        if is_over:
            remedy = "Nobody is left: let actors stay longer, or others come (--join)"
        elif self._setbacks:
            remedy = "Make the first of them rarer, or items shorter (--compute)"
        else:
            setbacks = [f"{self._num_ticks} ticks of the clock"]
            remedy = "Shorten --compute, --latency or --repair, or raise server.session_s"
        raise RunFailedError(
            f"simulation: no answer is taken any more at {self.now:.0f} s of virtual time, in "
            f"round {self.core.progress.round} with {num_actors} actors. Since the last one: "
            f"{', '.join(setbacks)}. {remedy}."
        )

    # -- actors: birth to death ----------------------------------------------------------------

    def _arrive(self, _: None) -> None:
        assert self._arrivals is not None
        self._birth((self._num_machines, 0))
        self._num_machines += 1
        self._at(self.now + next(self._arrivals), self._arrive, None)

    def _birth(self, place: tuple[int, int]) -> None:
        self._num_tries += 1
        actor = Actor(self.scenario, *place, self.now)
        self._actors[actor.incarnation] = actor
        if actor.dies_at < math.inf:
            self._at(actor.dies_at, self._die, actor)
        if actor.leaves_at < actor.dies_at:
            self._at(actor.leaves_at, self._leave, actor)
        self._at(actor.arrival(self.now), self._join, actor)

    def _join(self, actor: Actor) -> None:
        if actor.ended_at <= self.now:
            return
        self._num_tries += 1
        self.now += next(self._service)
        hello = Hello(actor.incarnation, self.core.identity, held=tuple(actor.held))
        session = self.core.join(self.now, hello)
        actor.worker_id = session.worker_id
        self._by_id[session.worker_id] = actor
        self._obey()
        self._at(actor.arrival(actor.arrival(self.now)), self._ask, actor)

    def _leave(self, actor: Actor) -> None:
        """Let an actor leave once the answer in hand is known."""
        free_at = max(actor.busy_until, actor.settled_at)
        if actor.ended_at <= self.now:
            return
        if free_at > self.now:
            self._at(free_at, self._leave, actor)
            return
        self._setbacks["actors left (--leave)"] += 1
        self._bury(actor)
        self._at(actor.arrival(self.now), self._part, actor)

    def _part(self, actor: Actor) -> None:
        self.now += next(self._service)
        self.core.leave(self.now, actor.worker_id, self.core.epoch, "")
        self._obey()

    def _die(self, actor: Actor) -> None:
        if actor.ended_at <= self.now:
            return
        self.tally.deaths += 1
        self._setbacks["actors died (--mtbf)"] += 1
        if actor.doomed_from is not None:
            self.tally.wasted_s["died"] += self.now - actor.doomed_from
        self._bury(actor)
        repair = draws(
            self.scenario, self.scenario.repair, Purpose.REPAIR, actor.machine, actor.generation
        )
        place = (actor.machine, actor.generation + 1)
        self._at(self.now + next(repair), self._birth, place)
        self._at(actor.arrival(self.now), self._hang_up, actor)

    def _hang_up(self, actor: Actor) -> None:
        """Let the server see that the connection of a dead actor's Lease call is gone."""
        self.core.withdraw(actor.worker_id, str(actor.request))

    def _bury(self, actor: Actor) -> None:
        actor.ended_at = self.now
        del self._actors[actor.incarnation]
        self.tally.live(actor.since, self.now, actor.factor)

    def _renew(self, _: None) -> None:
        """Let every actor say that it lives, but those whose network is gone."""
        core, now = self.core, self.now
        for actor in self._actors.values():
            if actor.worker_id and not actor.is_cut_off(now):
                try:
                    core.renew(now, actor.worker_id, 1)
                except SessionLostError:
                    continue  # it learns that when it asks
        self._at(now + self._renew_s, self._renew, None)

    # -- actors: work --------------------------------------------------------------------------

    def _ask(self, actor: Actor) -> None:
        if actor.ended_at <= self.now:
            return
        self.now += next(self._service)
        actor.request += 1
        try:
            self.core.ask(
                self.now, actor.worker_id, 1, str(actor.request), LEASE_WAIT_S, tuple(actor.held)
            )
        except SessionLostError:
            self._setbacks["sessions lost (--outage)"] += 1
            heard_at = max(actor.arrival(self.now), actor.busy_until)
            if heard_at < min(actor.dies_at, actor.leaves_at):
                self._at(actor.arrival(heard_at), self._join, actor)
        self._obey()

    def _grant(self, grant: Grant) -> None:
        self._num_tries += 1
        lease = grant.lease
        item = lease.item
        actor = self._by_id[lease.worker_id]
        actor.forget(self.core.durable_round)
        plan = actor.begin(self.now, item, lease.base_digest, self._share(item))
        if plan is None:
            return
        self._at(plan.asks_at, self._ask, actor)
        if plan.answers_at is not None:
            self._at(plan.answers_at, self._answer, (actor, actor.worker_id, lease, plan))

    def _share(self, item: WorkItem) -> float:
        """Return the time of an item by that of a TRAIN item: proportional to its tasks."""
        if item.kind is ItemKind.TRAIN:
            return 1.0
        if item.kind is ItemKind.EVALUATE:
            return len(evaluate_tasks(self.config, item)) / self._num_tasks[item.part]
        return 0.0 if item.kind is ItemKind.INIT else 1.0

    def _wait(self, wait: Wait) -> None:
        """Let an actor that got nothing ask again, once it has time."""
        actor = self._by_id[wait.worker_id]
        if wait.request_id != str(actor.request) or actor.ended_at <= self.now:
            return
        heard_at = max(actor.arrival(self.now), actor.busy_until, self.now + ASK_AGAIN_S)
        if heard_at < min(actor.dies_at, actor.leaves_at):
            self._at(actor.arrival(heard_at), self._ask, actor)

    def _answer(self, answer: Answer) -> None:
        actor, worker_id, lease, plan = answer
        self.now += next(self._service)
        item, tally = lease.item, self.tally
        is_train = item.kind is ItemKind.TRAIN
        head = Head(
            worker_id,
            item,
            lease.token,
            lease.base_digest,
            num_tasks=self._num_tasks[item.part] if is_train else 1,
            num_elements=0 if item.kind is ItemKind.EVALUATE else NUM_ELEMENTS,
        )
        outcome = self.core.deliver(self.now, head).outcome
        before = actor.refused.pop(item, None)
        if before is not None:  # computed once, sent twice: charged once
            tally.wasted_s[before] -= plan.seconds
        if outcome in TAKEN:
            self._num_tries = self._num_ticks = 0
            self._setbacks.clear()
            tally.useful_s += plan.seconds
            tally.units += plan.share
            if is_train:
                self.ledger.take(item, actor.last_taken)
                actor.last_taken = item
                if self._has_close:
                    self._answered[item.index].append(self.now)
        else:
            why = outcome.name.lower()
            tally.refused[why] += 1
            tally.wasted_s[why] += plan.seconds
            actor.refused[item] = why
        actor.hold(item, lease.base_digest, plan.seconds)
        self._obey()

    # -- the core's wishes -----------------------------------------------------------------------

    def _obey(self) -> None:
        while actions := self.core.take_actions():
            for action in actions:
                match action:
                    case Grant():
                        self._grant(action)
                    case Note():
                        self.tally.events[action.event] += 1
                        if action.event == "lease_expired":
                            self._setbacks["leases expired (server.item_timeout_s)"] += 1
                    case Wait():
                        self._wait(action)
                    case Commit():
                        self._commit(action)
                    case Save():
                        self._save(action)
                    case Wake():
                        self._at(action.at, self._wake, None)
                    case Done():
                        pass

    def _commit(self, commit: Commit) -> None:
        done_at = self._machinery.commit(self.now, len(commit.heads))
        self._at(done_at, self._committed, commit)
        self._close(commit)

    def _close(self, commit: Commit) -> None:
        """Note how long the round waited for its slower half."""
        times = self._answered.pop(commit.index, None) if commit.kind is ItemKind.TRAIN else None
        if times:
            median = times[min((self._per_round - 1) // 2, len(times) - 1)]
            took = self.now - commit.opened_at
            self.tally.tails.append((self.now - median) / took if took > 0 else 0.0)

    def _committed(self, commit: Commit) -> None:
        core, tally = self.core, self.tally
        is_train = commit.kind is ItemKind.TRAIN
        num_tasks = sum(head.num_tasks for head in commit.heads) if is_train else 0
        size = NUM_ELEMENTS if commit.kind is ItemKind.INIT else None
        digests = {p: f"{p}.{commit.number}" for p in range(self._num_pipelines)}
        if commit.kind is ItemKind.INIT:
            tally.started_at = self.now
        if is_train:
            tally.staleness.update(commit.staleness)
            self.ledger.apply(head.item for head in commit.heads)
        core.committed(self.now, commit.number, digests, num_tasks, size)
        if is_train:
            self.ledger.publish(core.progress.version)
            self._on_rounds(core.progress.trained)
        self._obey()

    def _save(self, save: Save) -> None:
        number = save.progress.commits
        if self._machinery.is_due(self.now, number, save.must):
            self.tally.checkpoints += 1
            self._at(self._machinery.save(self.now, number), self._saved, save)

    def _saved(self, save: Save) -> None:
        self.core.saved(self.now, save.progress)
        self._obey()

    def _wake(self, _: None) -> None:
        self.core.tick(self.now)
        self._obey()
