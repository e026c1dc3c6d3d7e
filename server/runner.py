"""The run in production: the core, the parameters and the order in which things happen.

One event loop is the only writer. Numbers are computed on one thread, files written on another
(`writer`); both come back to the loop as events of the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import DivergedError, DmamlError, RunFailedError, SnapshotGoneError
from dmaml.common.gamma import Gamma
from dmaml.common.items import TAKEN, ItemKind, Outcome, RunState, WorkItem
from dmaml.common.layout import Flat, Layout, norm_of
from dmaml.common.probes import Observation, Probe
from dmaml.server.answers import Answers
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.combine import Computed, Tables
from dmaml.server.core.actions import (
    Commit,
    Done,
    Grant,
    Head,
    Note,
    Save,
    Verdict,
    Wait,
    Wake,
)
from dmaml.server.core.membership import Hello, Session
from dmaml.server.core.progress import Progress
from dmaml.server.core.rounds import Core
from dmaml.server.core.sequence import Routes
from dmaml.server.history import History
from dmaml.server.metrics import Metrics
from dmaml.server.parameters import NUM_KEPT, Parameters, Snapshot, Snapshots
from dmaml.server.shelf import Shelf
from dmaml.server.state import capture_meta, memory_of
from dmaml.server.storage import Storage
from dmaml.server.weights.per_pipeline import PerPipeline
from dmaml.server.writer import Captured, Writer

log = logging.getLogger("dmaml.server")

TICK_S: Final = 0.1
INLINE_BYTES: Final = 1 << 20  # checked on the event loop: quicker than a visit to a thread
Answered = Grant | Wait | Done


class Runner:
    """Drives one `Core` with real time, real numbers and real files."""

    def __init__(self, storage: Storage, metrics: Metrics) -> None:
        self.config: RunConfig = storage.config
        self.metrics = metrics
        self.folder = storage.folder
        self._generators = PerPipeline(self.config)
        latest = storage.latest
        self._clusterer = Clusterer(self.config, latest)
        num_kept = NUM_KEPT if self.config.sync.mode == "async" else 1
        self.parameters = Parameters(self.config.outer, num_kept)
        self._answers = Answers(
            self.config,
            self.parameters,
            self._generators,
            Shelf(self.config, storage.folder),
            self._clusterer,
        )
        memory = None
        if latest is not None:
            memory = memory_of(latest.meta)
            self.parameters.load(latest)
            self._generators.load(latest.meta["weights"])
            self._answers.open()
        self.core = Core(
            self.config,
            storage.epoch,
            memory,
            Routes(self.gamma.version, self.gamma.pipelines),
            self._kind_after,
            tag=f"-{secrets.token_hex(3)}",
            num_required=self._answers.num_required,
        )
        self.history = History(latest.meta if latest else None)
        self._sat_out: frozenset[int] = frozenset()
        self._calls: dict[tuple[str, str], asyncio.Future[Answered]] = {}
        self._numeric = ThreadPoolExecutor(1, "numeric")
        self._writer = Writer(storage, self.parameters, self._numeric, self.core.progress.commits)
        self._committed: Snapshots = self.parameters.staged
        self._staged: dict[int, Snapshots] = {}  # by commits: what is published once it is durable
        self._saving: asyncio.Task[None] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self.over = asyncio.Event()  # set once the run is finished or failed
        self._shown = (RunState.EMPTY, Progress())
        self._plain_config = self.config.model_dump(mode="json")
        self.started_at = time.monotonic()
        for message in storage.damaged:
            log.warning(message)

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the first round and start the clock."""
        self.metrics.epoch.set(self.core.epoch)
        self.metrics.target_version.set(self.config.run.rounds)
        self.metrics.version.set(self.core.progress.version)
        self.metrics.trained.set(self.core.progress.trained)
        self.metrics.durable.set(self.core.durable_round)
        self.metrics.route(self.gamma)
        self.metrics.show_validation(self.history.last_evaluation.get("metrics", {}))
        if warning := self._clusterer.never_asks(self.core.progress, self.config.run.rounds):
            log.warning(warning)
        self.core.start(time.monotonic())
        self._dispatch()
        self._spawn(self._clock())

    async def close(self) -> None:
        """Write the last committed state, release everything."""
        if self._alarm is not None:
            self._alarm.cancel()
        for task in list(self._tasks):
            if task not in (self._saving, self._committing):
                task.cancel()
        await self._settle()
        is_behind = self.core.progress.commits > self.core.durable.commits
        if is_behind and self.core.state is not RunState.FAILED and self.parameters.is_ready:
            await self._save()
        self._numeric.shutdown()
        self._writer.close()

    def release(self) -> None:
        """Answer every waiting Lease call: nothing yet, ask again."""
        for worker_id, request_id in list(self._calls):
            self._answer((worker_id, request_id), Wait(worker_id, request_id))

    async def changed(self, timeout_s: float) -> None:
        """Wait until a round is committed or the state changes, at most `timeout_s`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    # -- events from outside -----------------------------------------------------------------

    def join(self, hello: Hello) -> Session:
        """See `Core.join`."""
        session: Session = self._event(lambda now: self.core.join(now, hello))
        return session

    def renew(self, worker_id: str, epoch: int) -> None:
        """See `Core.renew`."""
        self._event(lambda now: self.core.renew(now, worker_id, epoch))

    def leave(self, worker_id: str, epoch: int, reason: str) -> None:
        """See `Core.leave`."""
        self._event(lambda now: self.core.leave(now, worker_id, epoch, reason))

    def pause(self, reason: str) -> None:
        """See `Core.pause`."""
        self._event(lambda now: self.core.pause(now, reason))

    def resume(self) -> None:
        """See `Core.resume`."""
        self._event(self.core.resume)

    def drain(self, reason: str) -> None:
        """See `Core.drain`."""
        self._event(lambda now: self.core.drain(now, reason))

    async def lease(
        self, worker_id: str, epoch: int, request_id: str, wait_s: float, held: tuple[WorkItem, ...]
    ) -> Answered:
        """Wait for an item, at most `wait_s`; see `Core.ask`."""
        key = (worker_id, request_id)
        before = self._calls.pop(key, None)
        if before is not None:
            before.cancel()
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._calls[key] = future
        try:
            self._event(lambda now: self.core.ask(now, worker_id, epoch, request_id, wait_s, held))
            return await future
        finally:
            if self._calls.get(key) is future:
                del self._calls[key]
                self.core.withdraw(worker_id, request_id)

    def judge(self, head: Head) -> Verdict | None:
        """Return what the header alone decides; a refusal is counted."""
        verdict = self.core.judge(head)
        if verdict is not None:
            verdict = self._event(lambda now: self.core.deliver(now, head))
            self.metrics.answered(verdict.outcome)
        return verdict

    async def deliver(
        self,
        head: Head,
        decode: Callable[[], Flat | None],
        tables: Tables,
        layout: Layout | None,
        observe: Callable[[Flat], Observation] | None = None,
    ) -> Verdict:
        """Take an answer whose payload has arrived.

        Args:
            decode: gives the payload as float32 `[num_elements]`, or None where it is damaged;
                runs on the numeric thread where it is large.
            tables: figures of an EVALUATE item.
            layout: of an INIT item.
            observe: makes the observation of a PROBE item's payload.
        """
        if head.num_bytes <= INLINE_BYTES:
            flat, norm = _checked(decode)
        else:
            loop = asyncio.get_running_loop()
            flat, norm = await loop.run_in_executor(self._numeric, _checked, decode)
        if flat is None:
            verdict = Verdict(Outcome.CHECKSUM, "push refused: its checksum is wrong. Push again.")
            log.warning("%s %s", head.item, verdict.message)
        else:
            head = head._replace(norm=norm)
            fresh = self.core.judge(head) is None
            if fresh:
                observation = observe(flat) if observe is not None else None
                self._answers.keep(head.item, flat, tables, layout, observation)
            is_finite = bool(np.isfinite(norm))
            verdict = self._event(lambda now: self.core.deliver(now, head, is_finite))
            if fresh and verdict.outcome in TAKEN:
                self.metrics.took(head, self.core.progress.version)
        self.metrics.answered(verdict.outcome)
        return verdict

    def snapshot(self, pipeline: int, version: int) -> Snapshot:
        """Return the published parameters of a version.

        Raises:
            SnapshotGoneError: other versions have been published since.
        """
        found = self.parameters.find(pipeline, version)
        if found is None:
            now = self.parameters.snapshots.get(pipeline)
            have = "nothing" if now is None else f"version {now.version}"
            raise SnapshotGoneError(
                f"pull refused: version {version} of pipeline {pipeline} asked for, {have} is "
                "published. Ask for a new lease."
            )
        return found

    async def checkpoint(self) -> tuple[Progress, str]:
        """Write the last committed state and return it, with θ's digest, when it is durable."""
        if self.core.is_durable_first:
            return await self._durable()
        await self._settle()
        progress, digest = self.core.progress, self.parameters.theta_sha256
        if self.core.state is RunState.FAILED:
            raise RunFailedError(self.core.message)
        if self.core.durable.commits < progress.commits:
            await asyncio.wait([self._save()])
        if self.core.durable.commits < progress.commits:
            raise RunFailedError(self.core.message)
        return progress, digest

    async def _durable(self) -> tuple[Progress, str]:
        """Wait until what is committed now is durable: here it is written in any case."""
        wanted = self.core.progress.commits
        while self.core.durable.commits < wanted and self.core.state is not RunState.FAILED:
            await self.changed(1.0)
        if self.core.state is RunState.FAILED:
            raise RunFailedError(self.core.message)
        return self.core.durable, self.parameters.theta_sha256

    async def _settle(self) -> None:
        """Wait until no commit and no save is under way: θ and progress belong together then."""
        while busy := [t for t in (self._committing, self._saving) if t and not t.done()]:
            await asyncio.wait(busy)

    @property
    def gamma(self) -> Gamma:
        """γ now."""
        return self._clusterer.gamma

    @property
    def expected_units(self) -> dict[int, float]:
        """Expected number of units that each active pipeline trains on."""
        return self._clusterer.expected_units

    @property
    def probe(self) -> Probe | None:
        """What the PROBE round in progress asks for; None where none is."""
        first = self.core.round
        is_probing = first is not None and first.kind is ItemKind.PROBE
        return self._clusterer.plan(self.core.progress) if is_probing else None

    def _kind_after(self, progress: Progress) -> ItemKind:
        return ItemKind.TRAIN if self._clusterer.plan(progress) is None else ItemKind.PROBE

    # -- the core's wishes -------------------------------------------------------------------

    def _event(self, event: Callable[[float], Any]) -> Any:
        try:
            return event(time.monotonic())
        finally:
            self._dispatch()

    def _dispatch(self) -> None:
        actions = self.core.take_actions()
        for action in actions:
            match action:
                case Grant():
                    self._answer((action.lease.worker_id, action.lease.request_id), action)
                case Wait() | Done():
                    self._answer((action.worker_id, action.request_id), action)
                case Commit():
                    self._committing = self._spawn(self._commit(action))
                case Save():
                    is_due = self._writer.is_due(action, is_saving=self._saving is not None)
                    if is_due or self.history.has_new_best:
                        self._save()
                case Wake():
                    loop = asyncio.get_running_loop()
                    delay_s = action.at - time.monotonic()
                    self._alarm = loop.call_later(max(0.0, delay_s), self._wake)
                case Note():
                    self._note(action)
        self._notify()

    def _notify(self) -> None:
        """Wake those who wait for a round or a state; leases and answers are too many for that."""
        core = self.core
        if (core.state, core.progress) == self._shown:
            return
        self._shown = (core.state, core.progress)
        self.metrics.enter(core.state)
        self._changed.set()
        self._changed = asyncio.Event()
        if core.state in (RunState.FINISHED, RunState.FAILED):
            self.over.set()

    def _wake(self) -> None:
        self._event(self.core.tick)

    def _answer(self, key: tuple[str, str], answer: Answered) -> None:
        future = self._calls.pop(key, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _note(self, note: Note) -> None:
        log.log(logging.WARNING if note.is_warning else logging.INFO, note.message)
        self.metrics.events.labels(note.event).inc()
        self._writer.note(note)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        log.error("the run failed", exc_info=error)
        has_diverged = isinstance(error, DivergedError)
        message = str(error) or type(error).__name__
        if not isinstance(error, DmamlError):
            message = f"the server failed where it should not: {message}. Its log has more."
        self._event(lambda now: self.core.fail(now, message, has_diverged))

    async def _clock(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self._event(self.core.tick)
            self.metrics.tick(max(0.0, now - due), self.core.members.census(now))
            due = max(due, now - TICK_S)

    # -- commits -----------------------------------------------------------------------------

    async def _commit(self, commit: Commit) -> None:
        if self._saving is not None and self.config.server.checkpoint_every != "auto":
            await asyncio.wait([self._saving])
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        before = self.core.progress
        probe = self.probe if commit.kind is ItemKind.PROBE else None
        computed = await loop.run_in_executor(
            self._numeric, self._answers.combine, commit, probe, before.trained
        )
        now = time.monotonic()
        row = computed.row
        size = self.parameters.layout.size if commit.kind is ItemKind.INIT else None
        staged = self.parameters.staged
        digests = {p: s.digest for p, s in staged.items()}
        gamma = self._clusterer.adopt()
        routes = Routes(gamma.version, gamma.pipelines)
        self.core.committed(now, commit.number, digests, computed.num_tasks, size, routes)
        progress = self.core.progress
        self._committed = staged
        if not self.core.is_durable_first:
            self.parameters.publish(staged)
        if row is not None:
            row |= {"round": commit.number}
            if commit.kind is not ItemKind.PROBE:
                row |= {
                    "version": progress.version,
                    "gamma_version": commit.gamma_version,
                    "duration_s": now - commit.opened_at,
                    "at": time.time(),
                }
            if commit.kind is ItemKind.TRAIN:
                timings = {"commit_s": now - started}
                row |= {"tasks_seen": progress.tasks_seen, "timings": timings}
            self.history.add(commit.kind, row)
        if commit.kind is ItemKind.TRAIN:
            self._note_who_sat_out(commit, computed.sat_out)
        self._dispatch()
        self._count(commit, computed, started, now, progress.round - before.round)

    def _note_who_sat_out(self, commit: Commit, sat_out: frozenset[int]) -> None:
        """Say so where pipelines begin to sit rounds out; every round is counted."""
        for pipeline in sorted(sat_out):
            self.metrics.sat_out.labels(str(pipeline)).inc()
        for pipeline in sorted(sat_out - self._sat_out):
            self._note(
                Note(
                    "sat_out",
                    f"pipeline {pipeline} sits out: γ version {commit.gamma_version} leaves it too "
                    f"few units for task.n_way {self.config.task.n_way}",
                    is_warning=True,
                )
            )
        self._sat_out = sat_out

    def _publish(self) -> None:
        """Publish the last version of those that are durable by now."""
        for number in sorted(n for n in self._staged if n <= self.core.durable.commits):
            snapshots = self._staged.pop(number)
            if number == self.core.durable.commits:
                self.parameters.publish(snapshots)

    def _count(
        self, commit: Commit, computed: Computed, started: float, now: float, num_rounds: int
    ) -> None:
        """Bring the metrics up to date; nobody waits for it."""
        progress = self.core.progress
        self.history.clock(now, progress.tasks_seen)
        self.metrics.version.set(progress.version)
        self.metrics.trained.set(progress.trained)
        self.metrics.tasks_per_s.set(self.history.tasks_per_s())
        self.metrics.route(self.gamma)
        self.metrics.committed(commit, computed, started, now, num_rounds)

    # -- checkpoints -------------------------------------------------------------------------

    def _save(self) -> asyncio.Task[None]:
        """Capture the state now and write it, after the checkpoint that is being written."""
        history, is_best = self.history.take()
        meta = capture_meta(self.core, self._plain_config) | history
        meta |= {"weights": self._generators.state(), "clustering": self._clusterer.values()}
        progress = self.core.progress
        if self.core.is_durable_first:
            self._staged[progress.commits] = self._committed
        arrays = self._clusterer.tensors()
        captured = self._writer.capture(progress.commits, meta, arrays, is_best)
        self._saving = self._spawn(self._write(captured, progress, self._saving))
        return self._saving

    async def _write(
        self, captured: Captured, progress: Progress, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            written = await self._writer.write(captured)
        except RunFailedError as error:
            message = str(error)
            self._event(lambda now: self.core.fail(now, message))
            return
        finally:
            if self._saving is asyncio.current_task():
                self._saving = None
        self._event(lambda now: self._saved(now, progress))
        self.metrics.saved(written.took_s, written.num_bytes, self.core.durable_round)

    def _saved(self, now: float, progress: Progress) -> None:
        self.core.saved(now, progress)
        self._publish()


def _checked(decode: Callable[[], Flat | None]) -> tuple[Flat | None, float]:
    flat = decode()
    return flat, norm_of(flat) if flat is not None else 0.0
