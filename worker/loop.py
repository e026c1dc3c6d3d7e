"""Lease, pull, sample, adapt, push: what an actor does, as a function of its collaborators."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError, SessionLostError, SnapshotGoneError
from dmaml.common.gamma import Gamma, digest_of_all, single
from dmaml.common.items import ItemKind, Outcome, WorkItem
from dmaml.common.layout import Layout
from dmaml.worker.answers import Answer, Answerer
from dmaml.worker.client import Client, Pending, Reply, Theta, Work
from dmaml.worker.fingerprint import fingerprint
from dmaml.worker.tasks.base import TaskBatch

log = logging.getLogger("dmaml.worker")

MAX_HELD: Final = 64
STOP_EVERY_S: Final = 0.2  # how often a waiting actor looks whether it shall stop
MAX_PUSHES: Final = 3  # of one answer that keeps being damaged on the way
MAX_HELD_BYTES: Final = 256 * 1024**2
_FATAL: Final = frozenset({Outcome.SHAPE, Outcome.QUOTA})


@dataclass(frozen=True)
class Held:
    """An answer that is not yet in a durable checkpoint."""

    base_digest: str
    gamma_version: int
    answer: Answer

    def is_for(self, work: Work) -> bool:
        """Tell whether it was computed from what an item is to be computed from now."""
        asked = work.base_digest, work.item.gamma_version
        return (self.base_digest, self.gamma_version) == asked


@dataclass
class InFlight:
    """An answer that was sent and whose outcome is not known yet."""

    work: Work
    answer: Answer
    timings: dict[str, float]
    outcome: Pending[tuple[Outcome, str]]
    attempts: int


@final
class Loop:
    """One actor's work on one run.

    Args:
        client: the server.
        answerer: computes answers.
        is_stopped: asked between items; the loop then leaves.
        on_joined: told the worker id at each join.
    """

    def __init__(
        self,
        config: RunConfig,
        client: Client,
        answerer: Answerer,
        is_stopped: Callable[[], bool] = lambda: False,
        on_joined: Callable[[str], object] = lambda worker_id: None,
    ) -> None:
        self._config = config
        self._client = client
        self._answerer = answerer
        self._is_stopped = is_stopped
        self._on_joined = on_joined
        self._fingerprint = fingerprint(config)
        self._held: dict[WorkItem, Held] = {}
        self._thetas: dict[int, Theta] = {}
        self._gamma: Gamma = single()
        self._knows_gamma = False  # as the server has it
        self._pushed: InFlight | None = None
        self._prepared: tuple[WorkItem, list[TaskBatch]] | None = None
        self.num_answers = 0
        self.is_done = False  # the server said that the run is over

    def run(self) -> int:
        """Work until the run is done and return the number of answers that were taken.

        Raises:
            RunFailedError: the run failed, or the server cannot take what this model gives.
            ServerUnreachableError: no server for too long.
        """
        reason = "stopped"
        try:
            self._join()
            while not self._is_stopped():
                try:
                    if self._work_until_lost():
                        reason, self.is_done = "done", True
                        break
                except SessionLostError as error:
                    log.warning("%s", error)
                    self._join()
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._client.leave(reason)
        return self.num_answers

    def _join(self) -> None:
        self._knows_gamma = False
        self._client.join(
            self._config,
            socket.gethostname(),
            self._fingerprint,
            self._answerer.source.digest,
            tuple(self._held),
        )
        self._on_joined(self._client.worker_id)

    def _work_until_lost(self) -> bool:
        """Return True once the run is done, False when asked to stop."""
        self._pushed = None
        asked, asked_at = self._ask(), time.monotonic()
        idle_from = asked_at
        hint: WorkItem | None = None
        while True:
            reply = self._await(asked, hint)
            self._forget(reply.durable_round)
            if reply.work is None or self._is_stopped():
                self._settle()
            if reply.is_done:
                return True
            if self._is_stopped():
                return False
            wait_s = time.monotonic() - max(asked_at, idle_from)
            asked, asked_at = self._ask(reply.work), time.monotonic()
            hint = None
            if reply.work is not None:
                self._do(reply.work, wait_s)
                idle_from, hint = time.monotonic(), reply.work.hint

    def _ask(self, work: Work | None = None) -> Pending[Reply]:
        """Ask for the next item, ahead of the answer to `work`; it may wait at the server."""
        if work is not None and work.theta is not None:
            self._thetas[work.item.pipeline] = work.theta
        digests = tuple(theta.digest for theta in self._thetas.values())
        return self._client.ask(tuple(self._held), digests, self._layout())

    def _await(self, asked: Pending[Reply], hint: WorkItem | None) -> Reply:
        """Wait for a lease; the answer before it travels meanwhile.

        Once it has arrived, and not before, for its sending needs the interpreter too, the tasks of
        the item that is likely next are drawn.
        """
        one_is_there = threading.Event()
        asked.on_done(one_is_there.set)
        if self._pushed is not None:
            self._pushed.outcome.on_done(one_is_there.set)
            one_is_there.wait()
            if not asked.is_done():
                self._settle()
                one_is_there.clear()
                self._prepare(hint)
        while not (asked.is_done() or self._is_stopped()):
            one_is_there.wait(STOP_EVERY_S)
        return asked.result() if asked.is_done() else Reply(None, False, 0)

    def _do(self, work: Work, wait_s: float) -> None:
        """Compute one item's answer and send it off; nothing where its parameters are gone."""
        try:
            answer, timings = self._answer(work)
        except SnapshotGoneError as error:
            log.info("%s", error)  # the item is closed, or its lease will expire
            return
        self._settle()
        self._push(work, answer, {"wait_s": wait_s, **timings})
        self._hold(work, answer)

    def _push(
        self, work: Work, answer: Answer, timings: dict[str, float], attempts: int = 1
    ) -> None:
        pending = self._client.push(work, answer, self._config.sync.wire_dtype, timings)
        self._pushed = InFlight(work, answer, timings, pending, attempts)

    def _settle(self) -> None:
        """Wait for the outcome of the answer under way; one damaged on the way is sent again."""
        while self._pushed is not None:
            flight, self._pushed = self._pushed, None
            outcome, message = flight.outcome.result()
            if outcome is Outcome.CHECKSUM and flight.attempts < MAX_PUSHES:
                log.warning("%s", message)
                self._push(flight.work, flight.answer, flight.timings, flight.attempts + 1)
            else:
                self._note(outcome, message)

    def _answer(self, work: Work) -> tuple[Answer, dict[str, float]]:
        held = self._held.get(work.item)
        if held is not None and held.is_for(work):
            return held.answer, {}
        began = time.monotonic()
        gamma = self._gamma_of(work.item)
        thetas = self._thetas_of(work, gamma)
        pulled = time.monotonic()
        batches = self._batches(work.item)
        sampled = time.monotonic()
        answer = self._computed(work, gamma, thetas, batches)
        done = time.monotonic()
        return answer, {
            "pull_s": pulled - began,
            "sample_s": sampled - pulled,
            "compute_s": done - sampled,
            "computed_at": done,
        }

    def _computed(
        self, work: Work, gamma: Gamma, thetas: dict[int, Theta], batches: list[TaskBatch]
    ) -> Answer:
        theta = thetas.get(work.item.pipeline)
        flat = theta.flat if theta is not None else np.empty(0, dtype="<f4")
        layout = theta.layout if theta is not None else None
        if len(thetas) <= 1 and work.probe is None:
            return self._answerer.answer(work.item, flat, layout, batches)
        others = {p: one.flat for p, one in thetas.items() if p != work.item.pipeline}
        return self._answerer.answer(work.item, flat, layout, batches, others, work.probe, gamma)

    def _gamma_of(self, item: WorkItem) -> Gamma:
        """Return the item's γ, cached by version."""
        if self._config.clustering.name != "none" and item.kind is not ItemKind.INIT:
            if not self._has_gamma(item):
                self._gamma = self._client.route(item.gamma_version)
                self._thetas = {
                    p: one for p, one in self._thetas.items() if p in self._gamma.pipelines
                }
            self._knows_gamma = True
        return self._gamma

    def _has_gamma(self, item: WorkItem) -> bool:
        if self._config.clustering.name == "none":
            return True
        return self._knows_gamma and self._gamma.version == item.gamma_version

    def _thetas_of(self, work: Work, gamma: Gamma) -> dict[int, Theta]:
        """Return the parameters that the item needs, by pipeline.

        Raises:
            SnapshotGoneError: the server published others since.
        """
        kind = work.item.kind
        if kind is ItemKind.INIT:
            return {}
        if kind is ItemKind.TRAIN or len(gamma.pipelines) == 1:
            return {work.item.pipeline: self._theta(work)}
        known = {p: self._thetas[p] for p in gamma.pipelines if p in self._thetas}
        if digest_of_all({p: one.digest for p, one in known.items()}) != work.base_digest:
            version, layout = work.item.base_version, self._layout()
            known = {p: self._client.pull(p, version, layout) for p in gamma.pipelines}
            self._thetas |= known
        if digest_of_all({p: one.digest for p, one in known.items()}) != work.base_digest:
            raise SnapshotGoneError(f"{work.item}: the server published other parameters since.")
        return known

    def _theta(self, work: Work) -> Theta:
        """Return the item's parameters, cached by digest."""
        cached = self._thetas.get(work.item.pipeline)
        if cached is None or cached.digest != work.base_digest:
            cached = self._client.pull(work.item.pipeline, work.item.base_version, self._layout())
        self._thetas[work.item.pipeline] = cached
        if cached.digest != work.base_digest:
            raise SnapshotGoneError(f"{work.item}: the server published other parameters since.")
        return cached

    def _layout(self) -> Layout | None:
        return next((theta.layout for theta in self._thetas.values()), None)

    def _batches(self, item: WorkItem) -> list[TaskBatch]:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and _same_tasks(prepared[0], item):
            return prepared[1]
        return self._drawn(item)

    def _drawn(self, item: WorkItem) -> list[TaskBatch]:
        if self._config.clustering.name == "none":
            return self._answerer.draw(item)
        return self._answerer.draw(item, self._gamma)

    def _prepare(self, hint: WorkItem | None) -> None:
        """Draw the likely next item's tasks while the server is busy."""
        if hint is None or hint.kind not in (ItemKind.TRAIN, ItemKind.EVALUATE):
            return
        if self._has_gamma(hint):
            self._prepared = (hint, self._drawn(hint))

    def _hold(self, work: Work, answer: Answer) -> None:
        self._held[work.item] = Held(work.base_digest, work.item.gamma_version, answer)
        size = sum(held.answer.flat.nbytes for held in self._held.values())
        while self._held and (len(self._held) > MAX_HELD or size > MAX_HELD_BYTES):
            oldest = next(iter(self._held))
            size -= self._held.pop(oldest).answer.flat.nbytes

    def _forget(self, durable_round: int) -> None:
        for item in [item for item in self._held if item.round < durable_round]:
            del self._held[item]

    def _note(self, outcome: Outcome, message: str) -> None:
        if outcome in _FATAL:
            raise RunFailedError(message)
        if outcome is Outcome.STALE_EPOCH:
            raise SessionLostError(message)
        if outcome in (Outcome.COMMITTED, Outcome.BUFFERED):
            self.num_answers += 1
        else:
            log.warning("%s: %s", outcome.name, message)


def _same_tasks(hint: WorkItem, item: WorkItem) -> bool:
    """Tell whether two items draw the same tasks; the base version does not matter."""
    if hint.gamma_version != item.gamma_version:
        return False
    return replace(hint, base_version=0, round=0) == replace(item, base_version=0, round=0)
