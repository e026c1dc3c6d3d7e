"""The server as an actor sees it: every call has a deadline and may be repeated."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Generic, TypeVar

import grpc
import numpy as np

from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.common.errors import ProtocolError, SessionLostError, error_of
from dmaml.common.gamma import Gamma
from dmaml.common.items import ItemKind, Outcome, Token, WorkItem
from dmaml.common.layout import Flat, Layout, norm_of
from dmaml.common.probes import Probe
from dmaml.v1 import clustering_pb2, control_pb2, meta_model_pb2
from dmaml.v1.clustering_pb2_grpc import ClusteringStub
from dmaml.v1.control_pb2_grpc import ControlStub
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker.answers import Answer
from dmaml.worker.connection import CALL_S, Address, Retry

T = TypeVar("T")

TRANSFER_S: Final = 60.0  # deadline of a call with parameters or gradients
LEASE_WAIT_S: Final = 20.0  # longest wait of one Lease call


@dataclass(frozen=True)
class Theta:
    """One version of one pipeline's parameters."""

    digest: str
    flat: Flat
    layout: Layout


@dataclass(frozen=True)
class Work:
    """A leased item; `theta` is there where its parameters came with the lease.

    `probe` is what a PROBE item asks for.
    """

    item: WorkItem
    token: Token
    base_digest: str
    hint: WorkItem | None
    theta: Theta | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to a Lease call; `work` is None where there is nothing (yet)."""

    work: Work | None
    is_done: bool
    durable_round: int


class Client:
    """One actor's connection. Not thread-safe, but for the heartbeat of its own."""

    def __init__(self, address: Address, retry: Retry) -> None:
        self._address = address
        self._retry = retry
        self._channel = address.channel()
        self._stub = MetaModelStub(self._channel)
        self._control = ControlStub(self._channel)
        self._clustering = ClusteringStub(self._channel)
        self._metadata = address.metadata
        # blocking calls from threads that stay: gRPC's own futures start a thread for each call
        # and have twice the latency (docs/performance.md)
        self._calls = ThreadPoolExecutor(4, "call")
        self._incarnation = uuid.uuid4().hex
        self._heartbeat: Heartbeat | None = None
        self.worker_id = ""
        self.epoch = 0

    def status(self, include_config: bool = False) -> control_pb2.StatusReply:
        """Return the run now; safe to repeat."""
        request = control_pb2.StatusRequest(include_config=include_config)
        return self._call("status", self._control.Status, request)

    def config(self) -> RunConfig:
        """Return the run's resolved configuration."""
        return configuration.from_mapping(json.loads(self.status(True).config_json), "the server")

    def join(
        self,
        config: RunConfig,
        host: str,
        entries: Mapping[str, str],
        data_digest: str,
        held: tuple[WorkItem, ...],
    ) -> None:
        """Open a session and keep it alive from a thread and channel of its own."""
        request = meta_model_pb2.JoinRequest(
            incarnation=self._incarnation,
            identity=configuration.identity(config),
            protocol_version=frames.PROTOCOL_VERSION,
            software_version=version("dmaml"),
            host=host,
            fingerprint=meta_model_pb2.Fingerprint(entries=entries, data_digest=data_digest),
            held=[frames.item_to_proto(item) for item in held],
        )
        reply = self._call("join", self._stub.Join, request)
        self.worker_id, self.epoch = reply.worker_id, reply.epoch
        self._stop_heartbeat()
        renew = meta_model_pb2.RenewRequest(worker_id=self.worker_id, epoch=self.epoch)
        self._heartbeat = Heartbeat(self._address, renew, reply.renew_every_s)

    def ask(
        self, held: tuple[WorkItem, ...], digests: tuple[str, ...], layout: Layout | None
    ) -> Pending[Reply]:
        """Ask for an item at once.

        Args:
            held: items already computed.
            digests: of the parameters at hand.
            layout: of the parameters, once known.
        """
        request = meta_model_pb2.LeaseRequest(
            worker_id=self.worker_id,
            epoch=self.epoch,
            request_id=uuid.uuid4().hex,
            wait_s=LEASE_WAIT_S,
            held=[frames.item_to_proto(item) for item in held],
            digests=digests,
            schema_hash=layout.schema_hash if layout is not None else "",
        )
        return self._later(
            "lease", self._stub.Lease, lambda: request, LEASE_WAIT_S + CALL_S,
            lambda message: _reply(message, layout),
        )  # fmt: skip

    def pull(self, pipeline: int, base_version: int, layout: Layout | None) -> Theta:
        """Return one version of the parameters; safe to repeat.

        Raises:
            SnapshotGoneError: the version is no longer published: lease again.
            ProtocolError: the stream is short or damaged.
        """
        request = meta_model_pb2.PullRequest(
            worker_id=self.worker_id,
            epoch=self.epoch,
            pipeline=pipeline,
            version=base_version,
            schema_hash=layout.schema_hash if layout is not None else "",
        )

        def attempt() -> Theta:
            stream = self._stub.Pull(request, timeout=TRANSFER_S, metadata=self._metadata)
            header = next(stream).header
            receiver = frames.Receiver(header.num_bytes, header.num_bytes)
            for chunk in stream:
                receiver.add(chunk.data)
            payload = receiver.finish(header.crc32)
            return _theta(header, payload, layout)

        return self._retry.call("pull", self._address.target, attempt)

    def route(self, gamma_version: int) -> Gamma:
        """Return γ at a version; safe to repeat.

        Raises:
            SnapshotGoneError: it is no longer in force: lease again.
        """
        request = clustering_pb2.RouteRequest(gamma_version=gamma_version)
        reply = self._call("route", self._clustering.Route, request)
        shape = (reply.num_units, len(reply.pipelines))
        matrix = np.array(reply.gamma, dtype=np.float32)
        if matrix.size != shape[0] * shape[1]:
            raise ProtocolError(f"γ has {matrix.size} values for {shape[0]} x {shape[1]}.")
        return Gamma(reply.gamma_version, tuple(reply.pipelines), matrix.reshape(shape))

    def push(
        self, work: Work, answer: Answer, wire_dtype: str, timings: Mapping[str, float]
    ) -> Pending[tuple[Outcome, str]]:
        """Send an answer at once. Safe to repeat."""
        dtype = wire_dtype if work.item.kind is ItemKind.TRAIN else "float32"
        payload = frames.encode(answer.flat, dtype)
        header = meta_model_pb2.PushHeader(
            worker_id=self.worker_id,
            item=frames.item_to_proto(work.item),
            token=frames.token_to_proto(work.token),
            base_digest=work.base_digest,
            loss=answer.loss,
            norm=norm_of(answer.flat),
            num_tasks=answer.num_tasks,
            dtype=frames.WIRE_DTYPES[dtype],
            num_elements=answer.flat.size,
            num_bytes=len(payload),
            crc32=frames.crc32(payload),
            metrics=answer.metrics,
            tables=[frames.table_to_proto(name, t) for name, t in answer.tables.items()],
            timings=meta_model_pb2.Timings(**timings),
        )
        if answer.layout is not None:
            header.layout.CopyFrom(frames.layout_to_proto(answer.layout))
        header.gamma_version = work.item.gamma_version
        if answer.observation is not None:
            header.observation.CopyFrom(frames.observation_to_proto(answer.observation))
        if len(payload) + header.observation.ByteSize() <= frames.MAX_UNARY_BYTES:
            request = meta_model_pb2.PushRequest(header=header, payload=bytes(payload))
            return self._later("push", self._stub.Push, lambda: request, TRANSFER_S, _outcome)

        def chunks() -> Iterator[meta_model_pb2.PushChunk]:
            yield meta_model_pb2.PushChunk(header=header)
            for chunk in frames.chunks(payload):
                yield meta_model_pb2.PushChunk(data=chunk)

        return self._later("push", self._stub.PushStream, chunks, TRANSFER_S, _outcome)

    def leave(self, reason: str) -> None:
        """End the session; an unreachable server learns it by silence."""
        self._stop_heartbeat()
        request = meta_model_pb2.LeaveRequest(
            worker_id=self.worker_id, epoch=self.epoch, reason=reason
        )
        if self.worker_id:
            try:
                self._stub.Leave(request, timeout=2.0, metadata=self._metadata)
            except grpc.RpcError:
                self.worker_id = ""

    def close(self) -> None:
        """Close the channels."""
        self._stop_heartbeat()
        self._channel.close()
        self._calls.shutdown()

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def _call(self, what: str, method: Any, request: Any) -> Any:
        return self._retry.call(
            what,
            self._address.target,
            lambda: method(request, timeout=CALL_S, metadata=self._metadata),
        )

    def _later(
        self,
        what: str,
        method: Any,
        request: Callable[[], Any],
        timeout: float,
        decode: Callable[[Any], T],
    ) -> Pending[T]:
        def start() -> Future[Any]:
            return self._calls.submit(method, request(), timeout=timeout, metadata=self._metadata)

        return Pending(
            start, lambda attempt: self._retry.call(what, self._address.target, attempt), decode
        )


class Pending(Generic[T]):
    """A call under way: `result` waits for its answer, and repeats it where it must."""

    def __init__(
        self,
        start: Callable[[], Future[Any]],
        retried: Callable[[Callable[[], T]], T],
        decode: Callable[[Any], T],
    ) -> None:
        self._start = start
        self._retried = retried
        self._decode = decode
        self._future = start()
        self._is_first = True

    def is_done(self) -> bool:
        """Tell whether an answer, good or bad, is there."""
        return self._future.done()

    def on_done(self, callback: Callable[[], object]) -> None:
        """Call back, from another thread, once an answer is there."""
        self._future.add_done_callback(lambda _: callback())

    def result(self) -> T:
        """Return the answer; raises as `Retry.call` does."""

        def attempt() -> T:
            if not self._is_first:
                self._future = self._start()
            self._is_first = False
            return self._decode(self._future.result())

        return self._retried(attempt)


class Heartbeat:
    """Renews a session until it is stopped or lost."""

    def __init__(
        self, address: Address, request: meta_model_pb2.RenewRequest, every_s: float
    ) -> None:
        self._address = address
        self._request = request
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="renew", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(timeout=5.0)

    def _beat(self) -> None:
        channel = self._address.channel()
        stub = MetaModelStub(channel)
        while not self._stopped.wait(self._every_s):
            try:
                stub.Renew(self._request, timeout=self._every_s, metadata=self._address.metadata)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                if isinstance(error_of(error.code().name, ""), SessionLostError):
                    break  # the next call of the loop says so and joins again
        channel.close()


def _reply(message: meta_model_pb2.LeaseReply, layout: Layout | None) -> Reply:
    is_done = message.answer == meta_model_pb2.LEASE_ANSWER_DONE
    if message.answer != meta_model_pb2.LEASE_ANSWER_WORK:
        return Reply(None, is_done, message.durable_round)
    lease = message.lease
    hint = frames.item_from_proto(lease.hint) if lease.HasField("hint") else None
    theta = None
    if lease.HasField("parameters"):
        data = lease.data  # read once: each reading is a copy
        is_whole = frames.crc32(data) == lease.parameters.crc32
        theta = _theta(lease.parameters, data if is_whole else None, layout)
    work = Work(
        frames.item_from_proto(lease.item),
        frames.token_from_proto(lease.token),
        lease.base_digest,
        hint,
        theta,
        frames.probe_from_proto(lease.probe) if lease.HasField("probe") else None,
    )
    return Reply(work, False, message.durable_round)


def _theta(
    header: meta_model_pb2.PullHeader, payload: bytes | memoryview | None, known: Layout | None
) -> Theta:
    layout = frames.layout_from_proto(header.layout) if header.HasField("layout") else known
    if layout is None or payload is None or len(payload) != layout.num_bytes:
        raise ProtocolError("the parameters arrived short, damaged or without their layout.")
    return Theta(header.digest, np.array(np.frombuffer(payload, dtype="<f4")), layout)


def _outcome(message: meta_model_pb2.PushReply) -> tuple[Outcome, str]:
    return Outcome(message.outcome), message.message
