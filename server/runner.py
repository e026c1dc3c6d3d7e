"""The run in production: the core, the parameters and the order in which things happen.

One event loop is the only writer. Numbers are computed on one thread, files written on another;
both come back to the loop as events of the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np

from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError, SnapshotGoneError
from dmaml.common.items import TAKEN, ItemKind, Outcome, RunState, WorkItem
from dmaml.common.layout import Flat, Layout, norm_of
from dmaml.server import clustering, weights
from dmaml.server.answers import Answers, Computed
from dmaml.server.clustering.base import Gamma
from dmaml.server.combine import Tables
from dmaml.server.core.actions import Commit, Done, Grant, Head, Note, Save, Verdict, Wait
from dmaml.server.core.membership import Hello, Session
from dmaml.server.core.rounds import Core
from dmaml.server.core.sequence import Progress
from dmaml.server.metrics import Metrics
from dmaml.server.parameters import Parameters, Snapshot
from dmaml.server.shelf import Shelf
from dmaml.server.state import capture_meta, memory_of
from dmaml.server.storage import Storage

log = logging.getLogger("dmaml.server")

TICK_S: Final = 0.1
LEASES_FIRST_S: Final = 0.01  # a checkpoint waits until the next round's leases are out
INLINE_BYTES: Final = 1 << 20  # checked on the event loop: quicker than a visit to a thread
AUTO_CHECKPOINT_SHARE: Final = 0.05
Answered = Grant | Wait | Done


class Runner:
    """Drives one `Core` with real time, real numbers and real files."""

    def __init__(self, storage: Storage, metrics: Metrics) -> None:
        self.config: RunConfig = storage.config
        self.metrics = metrics
        self.folder = storage.folder
        self._storage = storage
        self._generator = weights.build(self.config.weights)
        self._strategy = clustering.build(self.config.clustering)
        self._clustering_state = self._strategy.initial()
        self.parameters = Parameters(self.config.outer)
        self._answers = Answers(
            self.config, self.parameters, self._generator, Shelf(self.config, storage.folder)
        )
        latest = storage.latest
        memory = None
        if latest is not None:
            memory = memory_of(latest.meta)
            self.parameters.load(latest)
            self._generator.load(latest.meta["weights"])
            self._clustering_state = latest.meta["clustering"]
            self._answers.open()
        self.core = Core(
            self.config,
            storage.epoch,
            memory,
            self._strategy.route(self._clustering_state).pipelines,
            lambda: self._strategy.plan(self._clustering_state),
        )
        self.last_round: dict[str, Any] = {}
        self.last_evaluation: dict[str, Any] = latest.meta["evaluation"] if latest else {}
        self._best: float | None = latest.meta["best"] if latest else None
        self._is_best_due = False
        self._records: list[dict[str, Any]] = []
        self._calls: dict[tuple[str, str], asyncio.Future[Answered]] = {}
        self._numeric = ThreadPoolExecutor(1, "numeric")
        self._disk = ThreadPoolExecutor(1, "disk")
        self._saving: asyncio.Task[None] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_save = (time.monotonic(), 0.0)  # when it began, how long it took
        self._saved_round = self.core.progress.round
        self._speed: deque[tuple[float, int]] = deque(maxlen=64)
        self._changed = asyncio.Event()
        self.over = asyncio.Event()  # set once the run is finished or failed
        self._shown = (RunState.EMPTY, 0)
        self._plain_config = self.config.model_dump(mode="json")
        self.started_at = time.monotonic()
        for message in storage.damaged:
            log.warning(message)

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the first round and start the clock."""
        self.metrics.epoch.set(self.core.epoch)
        self.metrics.rounds_target.set(self.config.run.rounds)
        self.core.start(time.monotonic())
        self._dispatch()
        self._spawn(self._clock())

    async def close(self) -> None:
        """Write the last committed state, release everything."""
        for task in list(self._tasks):
            if task not in (self._saving, self._committing):
                task.cancel()
        await self._settle()
        is_behind = self.core.progress.round > self.core.durable_round
        if is_behind and self.core.state is not RunState.FAILED and self.parameters.is_ready:
            await self._save(self._captured())
        self._numeric.shutdown()
        self._disk.shutdown()
        self._storage.close()

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
            self.metrics.contributions.labels(verdict.outcome.name.lower()).inc()
        return verdict

    async def deliver(
        self,
        head: Head,
        decode: Callable[[], Flat | None],
        tables: Tables,
        layout: Layout | None,
    ) -> Verdict:
        """Take an answer whose payload has arrived.

        Args:
            decode: gives the payload as float32 `[num_elements]`, or None where it is damaged;
                runs on the numeric thread where it is large.
            tables: figures of an EVALUATE item.
            layout: of an INIT item.
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
            head = replace(head, norm=norm)
            fresh = self.core.judge(head) is None
            if fresh:
                self._answers.keep(head.item, flat, tables, layout)
            is_finite = bool(np.isfinite(norm))
            verdict = self._event(lambda now: self.core.deliver(now, head, is_finite))
            if fresh and verdict.outcome in TAKEN:
                self.metrics.received.inc(head.num_bytes)
                self.metrics.item_phases(dict(head.timings))
        self.metrics.contributions.labels(verdict.outcome.name.lower()).inc()
        return verdict

    def snapshot(self, pipeline: int, version: int) -> Snapshot:
        """Return the published parameters of a version.

        Raises:
            SnapshotGoneError: another version is published now.
        """
        found = self.parameters.snapshots.get(pipeline)
        if found is None or found.version != version:
            have = "nothing" if found is None else f"version {found.version}"
            raise SnapshotGoneError(
                f"pull refused: version {version} of pipeline {pipeline} asked for, {have} is "
                "published. Ask for a new lease."
            )
        return found

    async def checkpoint(self) -> tuple[Progress, str]:
        """Write the last committed state and return it, with θ's digest, when it is durable."""
        await self._settle()
        progress, digest = self.core.progress, self.parameters.theta_sha256
        if self.core.state is RunState.FAILED:
            raise RunFailedError(self.core.message)
        if self.core.durable_round < progress.round:
            self._saving = self._spawn(self._save(self._captured()))
            await asyncio.wait([self._saving])
        if self.core.durable_round < progress.round:
            raise RunFailedError(self.core.message)
        return progress, digest

    async def _settle(self) -> None:
        """Wait until no commit and no save is under way: θ and progress belong together then."""
        while busy := [t for t in (self._committing, self._saving) if t and not t.done()]:
            await asyncio.wait(busy)

    @property
    def gamma(self) -> Gamma:
        """γ now."""
        return self._strategy.route(self._clustering_state)

    def tasks_per_s(self) -> float:
        """Return tasks trained on per second over the last rounds."""
        if len(self._speed) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._speed[0], self._speed[-1]
        return (n1 - n0) / max(t1 - t0, 1e-9)

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
                    self._save_if_due(action)
                case Note():
                    self._note(action)
        self.metrics.workers.set(len(self.core.members))
        self._notify()

    def _notify(self) -> None:
        """Wake those who wait for a round or a state; leases and answers are too many for that."""
        core = self.core
        if (core.state, core.progress.round) == self._shown:
            return
        self._shown = (core.state, core.progress.round)
        self.metrics.enter(core.state)
        self._changed.set()
        self._changed = asyncio.Event()
        if core.state in (RunState.FINISHED, RunState.FAILED):
            self.over.set()

    def _answer(self, key: tuple[str, str], answer: Answered) -> None:
        future = self._calls.pop(key, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _note(self, note: Note) -> None:
        log.log(logging.WARNING if note.is_warning else logging.INFO, note.message)
        self.metrics.events.labels(note.event).inc()
        row = (time.time(), note.worker_id, note.event, note.message)
        self._disk.submit(self._storage.events, [row])

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            log.error("the run failed", exc_info=error)
            self._event(lambda now: self.core.fail(now, f"{type(error).__name__}: {error}"))

    async def _clock(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.metrics.lag.set(max(0.0, time.monotonic() - due))
            due = max(due, time.monotonic() - TICK_S)
            self._event(self.core.tick)

    # -- commits -----------------------------------------------------------------------------

    async def _commit(self, commit: Commit) -> None:
        if self._saving is not None and self.config.server.checkpoint_every != "auto":
            await asyncio.wait([self._saving])
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        computed = await loop.run_in_executor(self._numeric, self._answers.combine, commit)
        now = time.monotonic()
        row, num_tasks = computed.row, computed.num_tasks
        size = self.parameters.layout.size if commit.kind is ItemKind.INIT else None
        digests = {p: s.digest for p, s in self.parameters.snapshots.items()}
        after = self.core.progress.after(commit.kind, num_tasks)
        if row is not None:
            row |= {
                "round": commit.round,
                "version": after.version,
                "duration_s": now - commit.opened_at,
                "at": time.time(),
            }
            if commit.kind is ItemKind.TRAIN:
                row |= {"tasks_seen": after.tasks_seen, "timings": {"commit_s": now - started}}
            self._records.append(row)
            self._remember(commit.kind, row)
        self.core.committed(now, commit.round, digests, num_tasks, size)
        self._dispatch()
        self._speed.append((now, self.core.progress.tasks_seen))
        self._count(commit, computed, now - started)

    def _remember(self, kind: ItemKind, row: dict[str, Any]) -> None:
        if kind is ItemKind.TRAIN:
            self.last_round = row
            return
        self.last_evaluation = {k: row[k] for k in ("version", "split", "num_tasks", "metrics")}
        score = _score(row["metrics"])
        if score is not None and (self._best is None or score > self._best):
            self._best, self._is_best_due = score, True

    def _count(self, commit: Commit, computed: Computed, commit_s: float) -> None:
        """Bring the metrics up to date; nobody waits for it."""
        metrics, kind = self.metrics, commit.kind.name.lower()
        metrics.rounds.labels(kind).inc()
        metrics.commit_seconds.observe(commit_s)
        metrics.version.set(self.core.progress.version)
        metrics.tasks_per_s.set(self.tasks_per_s())
        row = computed.row
        if row is None:
            return
        metrics.round_seconds.labels(kind).observe(row["duration_s"])
        if commit.kind is ItemKind.TRAIN:
            metrics.tasks.inc(computed.num_tasks)
            for pipeline, norm in computed.norms.items():
                metrics.norm.labels(str(pipeline)).set(norm)
            metrics.show_round(row["loss"], row["metrics"])
        else:
            metrics.show_validation(row["metrics"])

    # -- checkpoints -------------------------------------------------------------------------

    def _save_if_due(self, save: Save) -> None:
        began, took = self._last_save
        every = self.config.server.checkpoint_every
        if every == "auto":
            is_free = self._saving is None
            is_due = is_free and took <= AUTO_CHECKPOINT_SHARE * (time.monotonic() - began)
        else:
            is_due = save.round - self._saved_round >= every
        if is_due or save.must or self._is_best_due:
            self._saving = self._spawn(self._save(self._captured(), self._saving))

    def _captured(self) -> asyncio.Future[tuple[Checkpoint, bool]]:
        """Capture the state now: before the numeric thread begins the next commit."""
        records, self._records = self._records, []
        is_best, self._is_best_due = self._is_best_due, False
        number = self.core.progress.round
        self._saved_round = number
        meta = capture_meta(self.core, self._plain_config) | {
            "records": records,
            "weights": self._generator.state(),
            "clustering": self._clustering_state,
            "evaluation": self.last_evaluation,
            "best": self._best,
        }

        def capture() -> tuple[Checkpoint, bool]:
            meta["layout"] = self.parameters.layout_json()
            return Checkpoint(number, self.parameters.tensors(), meta), is_best

        return asyncio.get_running_loop().run_in_executor(self._numeric, capture)

    async def _save(
        self,
        captured: asyncio.Future[tuple[Checkpoint, bool]],
        before: asyncio.Task[None] | None = None,
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        checkpoint, is_best = await captured
        await asyncio.sleep(LEASES_FIRST_S)
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            size = await loop.run_in_executor(self._disk, self._storage.save, checkpoint, is_best)
        except OSError as error:
            message = (
                f"checkpoint of round {checkpoint.round} cannot be written: {error.strerror}. "
                "Make room and start the server again: it goes on from the last checkpoint."
            )
            self._event(lambda now: self.core.fail(now, message))
            return
        finally:
            if self._saving is asyncio.current_task():
                self._saving = None
        took = time.monotonic() - began
        self._last_save = (began, took)
        self.metrics.checkpoint_seconds.observe(took)
        self.metrics.checkpoint_bytes.set(size)
        self._event(lambda now: self.core.saved(now, checkpoint.round))
        self.metrics.durable.set(self.core.durable_round)


def _checked(decode: Callable[[], Flat | None]) -> tuple[Flat | None, float]:
    flat = decode()
    return flat, norm_of(flat) if flat is not None else 0.0


def _score(metrics: dict[str, Any]) -> float | None:
    """Return what validation maximises: accuracy, else the negative of a loss."""
    for name, sign in (("accuracy", 1.0), ("mse", -1.0), ("loss", -1.0)):
        if name in metrics:
            return float(sign * metrics[name]["mean"][-1])
    return None
