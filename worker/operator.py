"""The server as an operator sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, final

import grpc

from dmaml.common.errors import error_of
from dmaml.v1 import clustering_pb2, control_pb2
from dmaml.v1.clustering_pb2_grpc import ClusteringStub
from dmaml.v1.control_pb2_grpc import ControlStub
from dmaml.worker.connection import CALL_S, Address, Retry

Status: TypeAlias = control_pb2.StatusReply


@final
class Operator:
    """Looks at a run and steers it; every call has a deadline and is safe to repeat."""

    def __init__(self, address: Address, retry: Retry) -> None:
        self._address = address
        self._retry = retry
        self._channel = address.channel()
        self._stub = ControlStub(self._channel)
        self._clustering = ClusteringStub(self._channel)

    def status(self, include_config: bool = False) -> Status:
        """Return the run now."""
        request = control_pb2.StatusRequest(include_config=include_config)
        status: Status = self._call("status", self._stub.Status, request)
        return status

    def do(self, verb: str, reason: str = "") -> Status:
        """Pause, resume or drain the run and return how it is then."""
        calls = {
            "pause": (self._stub.Pause, control_pb2.PauseRequest(reason=reason)),
            "resume": (self._stub.Resume, control_pb2.ResumeRequest()),
            "drain": (self._stub.Drain, control_pb2.DrainRequest(reason=reason)),
        }
        method, request = calls[verb]
        status: Status = self._call(verb, method, request)
        return status

    def checkpoint(self) -> control_pb2.CheckpointReply:
        """Return once the last committed round is durable."""
        return self._call("checkpoint", self._stub.Checkpoint, control_pb2.CheckpointRequest())

    def clustering(self) -> clustering_pb2.GetStateReply:
        """Return the clustering's state for people: pipelines and their expected units."""
        request = clustering_pb2.GetStateRequest()
        return self._call("clustering", self._clustering.GetState, request)

    def watch(self, every_s: float = 1.0) -> Iterator[Status]:
        """Yield the run after each round, and at least every `every_s`.

        Raises:
            DmamlError: the server went away, or refused.
        """
        request = control_pb2.WatchRequest(every_s=every_s)
        yield self.status()
        try:
            yield from self._stub.Watch(request, metadata=self._address.metadata)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            raise error_of(error.code().name, error.details() or "") from None

    def close(self) -> None:
        """Close the channel; a `watch` under way ends."""
        self._channel.close()

    def _call(self, what: str, method: Any, request: Any) -> Any:
        return self._retry.call(
            what,
            self._address.target,
            lambda: method(request, timeout=CALL_S, metadata=self._address.metadata),
        )
