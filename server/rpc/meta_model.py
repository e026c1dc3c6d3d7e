"""The MetaModel service: decode, call the run, encode."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final, final

from prometheus_client import Counter

from dmaml.common import frames
from dmaml.common.errors import ConfigError, ProtocolError, RunFailedError
from dmaml.common.items import ItemKind, Outcome, RunState, WorkItem, evaluate_tasks
from dmaml.common.layout import Layout
from dmaml.server.core.actions import Done, Grant, Head, Verdict
from dmaml.server.core.membership import Hello
from dmaml.server.parameters import Snapshot
from dmaml.server.rpc.calls import guarded
from dmaml.server.runner import Runner
from dmaml.server.shelf import Shelf
from dmaml.v1 import meta_model_pb2 as pb
from dmaml.v1 import meta_model_pb2_grpc as rpc

log = logging.getLogger("dmaml.server")

MAX_WAIT_S: Final = 60.0
MAX_HELD: Final = 256
MAX_STREAMS: Final = 4  # received at once; further ones wait
MAX_METRICS: Final = 32
_METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
MAX_INLINE_BYTES: Final = 3 * 1024**2  # parameters that travel with a lease, and their layout
_TIMINGS: Final = ("wait_s", "pull_s", "sample_s", "compute_s", "computed_at")


@final
class MetaModelService(rpc.MetaModelServicer):
    """What actors call."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner
        self._config = runner.config
        self._dtype = runner.config.sync.wire_dtype
        self._payload = runner.metrics.payload
        self._sent = self._payload.labels("sent", "float32")
        self._streams = asyncio.Semaphore(MAX_STREAMS)

    @guarded
    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        """Open a session."""
        if request.protocol_version != frames.PROTOCOL_VERSION:
            raise ProtocolError(
                f"join refused: the actor speaks protocol {request.protocol_version} (dmaml "
                f"{request.software_version}), the server {frames.PROTOCOL_VERSION}. Use one "
                "version of dmaml everywhere."
            )
        if not 8 <= len(request.incarnation) <= 128 or len(request.host) > 256:
            raise ProtocolError(
                "join refused: incarnation has 8 to 128 characters, host up to 256."
            )
        hello = Hello(
            request.incarnation,
            request.identity,
            request.host,
            dict(request.fingerprint.entries),
            request.fingerprint.data_digest,
            tuple(frames.item_from_proto(item) for item in request.held[:MAX_HELD]),
        )
        session = self._run.join(hello)
        session_s = self._config.server.session_s
        return pb.JoinReply(
            worker_id=session.worker_id,
            epoch=self._run.core.epoch,
            renew_every_s=session_s / 4,
            session_s=session_s,
            max_unary_bytes=frames.MAX_UNARY_BYTES,
            max_chunk_bytes=frames.MAX_CHUNK_BYTES,
        )

    @guarded
    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:
        """Keep a session alive."""
        self._run.renew(request.worker_id, request.epoch)
        core = self._run.core
        return pb.RenewReply(state=int(core.state), durable_round=core.durable_round)

    @guarded
    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveReply:
        """End a session."""
        self._run.leave(request.worker_id, request.epoch, request.reason[:1000])
        return pb.LeaveReply()

    @guarded
    async def Lease(self, request: pb.LeaseRequest, context: Any) -> pb.LeaseReply:
        """Hand out one work item."""
        answer = await self._run.lease(
            request.worker_id,
            request.epoch,
            request.request_id,
            min(max(0.0, request.wait_s), MAX_WAIT_S),  # in this order NaN is 0
            tuple(frames.item_from_proto(item) for item in request.held[:MAX_HELD]),
        )
        core = self._run.core
        reply = pb.LeaseReply(state=int(core.state), durable_round=core.durable_round)
        if isinstance(answer, Grant):
            reply.answer = pb.LEASE_ANSWER_WORK
            self._fill(reply.lease, answer, request)
            self._run.metrics.lease_delay.observe(time.monotonic() - answer.available_at)
        elif isinstance(answer, Done) and core.state is RunState.FAILED:
            raise RunFailedError(core.message)
        else:
            is_done = isinstance(answer, Done)
            reply.answer = pb.LEASE_ANSWER_DONE if is_done else pb.LEASE_ANSWER_WAIT
        return reply

    @guarded
    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
        """Stream one version of the parameters."""
        self._run.renew(request.worker_id, request.epoch)
        snapshot = self._run.snapshot(request.pipeline, request.version)
        yield pb.PullReply(header=self._header(snapshot, request.schema_hash))
        for chunk in frames.chunks(snapshot.data):
            yield pb.PullReply(data=chunk)
            self._sent.inc(len(chunk))

    @guarded
    async def Push(self, request: pb.PushRequest, context: Any) -> pb.PushReply:
        """Take an answer in one message."""
        header, payload = request.header, request.payload  # read once: each reading is a copy
        head, layout, refusal = self._open(header)
        if refusal is None and len(payload) != header.num_bytes:
            refusal = self._refused(head.item, "the payload's size is not num_bytes.")
        if refusal is not None:
            return self._reply(refusal)
        self._received(head.item).inc(len(payload))
        return self._reply(await self._deliver(header, head, layout, payload))

    @guarded
    async def PushStream(
        self, request_iterator: AsyncIterator[pb.PushChunk], context: Any
    ) -> pb.PushReply:
        """Take an answer in chunks; nothing is allocated before the header is judged."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("body") != "header":
            raise ProtocolError("push stream refused: the first message must be the header.")
        header = first.header
        head, layout, refusal = self._open(header)
        if refusal is not None:
            return self._reply(refusal)
        received = self._received(head.item)
        async with self._streams:
            receiver = frames.Receiver(header.num_bytes, self._config.server.max_model_bytes)
            while True:
                chunk = await self._next(request_iterator)
                if chunk is None:
                    break
                receiver.add(chunk.data)
                received.inc(len(chunk.data))
            payload = receiver.finish(header.crc32)
            if payload is None:
                message = "short or damaged. Push again."
                return self._reply(self._refused(head.item, message, Outcome.CHECKSUM))
            return self._reply(await self._deliver(header, head, layout, payload, is_checked=True))

    def _fill(self, message: pb.Lease, answer: Grant, request: pb.LeaseRequest) -> None:
        lease = answer.lease
        message.item.CopyFrom(frames.item_to_proto(lease.item))
        message.token.CopyFrom(frames.token_to_proto(lease.token))
        message.valid_s = lease.valid_s
        message.base_digest = lease.base_digest
        message.gamma_version = lease.item.gamma_version
        probe = self._run.probe if lease.item.kind is ItemKind.PROBE else None
        if probe is not None:
            message.probe.CopyFrom(frames.probe_to_proto(probe))
        if answer.hint is not None:
            message.hint.CopyFrom(frames.item_to_proto(answer.hint))
        snapshot = self._run.parameters.find(lease.item.pipeline, lease.item.base_version)
        if snapshot is None or snapshot.digest in request.digests:
            return
        if (
            snapshot.digest == lease.base_digest
            and self._num_inline_bytes(snapshot) <= MAX_INLINE_BYTES
        ):
            message.parameters.CopyFrom(self._header(snapshot, request.schema_hash))
            message.data = snapshot.data
            self._sent.inc(len(snapshot.data))

    def _codec(self, item: WorkItem) -> str:
        return self._dtype if item.kind is ItemKind.TRAIN else "float32"

    def _received(self, item: WorkItem) -> Counter:
        return self._payload.labels("received", self._codec(item))

    def _num_inline_bytes(self, snapshot: Snapshot) -> int:
        names = sum(len(spec.name) + 64 for spec in self._run.parameters.layout.tensors)
        return len(snapshot.data) + names

    def _header(self, snapshot: Snapshot, known: str) -> pb.PullHeader:
        layout = self._run.parameters.layout
        return pb.PullHeader(
            version=snapshot.version,
            digest=snapshot.digest,
            layout=None if known == layout.schema_hash else frames.layout_to_proto(layout),
            num_bytes=len(snapshot.data),
            crc32=snapshot.crc32,
        )

    async def _next(self, chunks: AsyncIterator[pb.PushChunk]) -> pb.PushChunk | None:
        patience_s = self._config.server.session_s
        try:
            return await asyncio.wait_for(anext(chunks, None), patience_s)
        except asyncio.TimeoutError:
            raise ProtocolError(
                f"push stream ended: no chunk for {patience_s:g} s. Push again."
            ) from None

    def _open(self, header: pb.PushHeader) -> tuple[Head, Layout | None, Verdict | None]:
        head = _head(header)
        layout = None
        if head.item.kind is ItemKind.INIT:
            try:
                layout = frames.layout_from_proto(header.layout)
                layout.require(header.num_elements)
                Shelf.check(self._config, layout.size)
            except (ProtocolError, ConfigError) as error:
                return head, None, self._refused(head.item, str(error))
        verdict = self._run.judge(head)
        if verdict is not None:
            return head, layout, verdict
        if head.item.kind is ItemKind.PROBE:
            try:
                frames.require_observation(header.observation, head.num_elements)
            except ProtocolError as error:
                return head, None, self._refused(head.item, str(error))
        dtype = self._codec(head.item)
        expected = frames.wire_bytes(dtype, head.num_elements)
        if head.num_elements and frames.wire_name(header.dtype) != dtype:
            found = frames.wire_name(header.dtype)
            message = f"wire dtype {found}, the run's is {dtype}."
            return head, layout, self._refused(head.item, message)
        if header.num_bytes != expected:
            message = f"{header.num_bytes} bytes announced, required {expected}."
            return head, layout, self._refused(head.item, message)
        return head, layout, None

    async def _deliver(
        self,
        header: pb.PushHeader,
        head: Head,
        layout: Layout | None,
        payload: bytes | memoryview,
        is_checked: bool = False,
    ) -> Verdict:
        tables = {t.name: frames.table_from_proto(t) for t in header.tables}
        names = {*tables, *header.metrics}
        if len(names) > MAX_METRICS or not all(_METRIC.fullmatch(name) for name in names):
            message = f"at most {MAX_METRICS} metrics, named in a-z, 0-9 and _ up to 40 long."
            return self._refused(head.item, message)
        if head.item.kind is ItemKind.EVALUATE:
            required = (
                len(evaluate_tasks(self._config, head.item)),
                self._config.evaluation.steps + 1,
            )
            shapes = {table.shape for table in tables.values()}
            if shapes != {required} or head.num_tasks != required[0]:
                message = f"figures of shapes {sorted(shapes)}, required {required}."
                return self._refused(head.item, message)
        num_elements = head.num_elements
        dtype = frames.wire_name(header.dtype) if num_elements else "float32"

        def decode() -> Any:
            if not is_checked and frames.crc32(payload) != header.crc32:
                return None
            return frames.decode(payload, dtype, num_elements)

        observe = None
        if head.item.kind is ItemKind.PROBE:
            observe = partial(frames.observation_from_proto, header.observation)
        return await self._run.deliver(head, decode, tables, layout, observe)

    def _refused(self, item: WorkItem, message: str, outcome: Outcome = Outcome.SHAPE) -> Verdict:
        """Refuse an answer that the core never sees: in the log and counted, as its own are."""
        verdict = Verdict(outcome, f"push refused: {message}")
        log.warning("%s: %s", item, verdict.message)
        self._run.metrics.answered(outcome)
        return verdict

    def _reply(self, verdict: Verdict) -> pb.PushReply:
        return pb.PushReply(
            outcome=int(verdict.outcome),
            message=verdict.message,
            server_version=self._run.core.progress.version,
        )


def _head(header: pb.PushHeader) -> Head:
    item = frames.item_from_proto(header.item)
    return Head(
        worker_id=header.worker_id,
        item=item,
        token=frames.token_from_proto(header.token),
        base_digest=header.base_digest,
        loss=header.loss,
        norm=header.norm,
        num_tasks=header.num_tasks,
        num_elements=header.num_elements,
        num_bytes=header.num_bytes,
        schema_hash=header.layout.schema_hash,
        metrics=dict(header.metrics),
        timings={name: getattr(header.timings, name) for name in _TIMINGS},
    )
