"""Bare calls to a server: stubs, how a call fails, an item and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.v1 import meta_model_pb2
from dmaml.worker import tasks
from dmaml.worker.client import Client, Work
from dmaml.worker.fingerprint import fingerprint

CALL_S = 10.0


@dataclass
class Raw:
    """Bare stubs on one channel."""

    meta: Any
    control: Any
    clustering: Any

    def join(self, config: RunConfig, **changes: Any) -> Any:
        """Join as an actor of this config would, with fields of the request changed."""
        request = {
            "incarnation": "incarnation-1",
            "identity": configuration.identity(config),
            "protocol_version": frames.PROTOCOL_VERSION,
            "software_version": "0.1.0",
            "host": "here",
            "fingerprint": meta_model_pb2.Fingerprint(
                entries=fingerprint(config), data_digest=tasks.build(config).digest
            ),
        }
        return self.meta.Join(meta_model_pb2.JoinRequest(**{**request, **changes}), timeout=CALL_S)


def failure(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    """Return the status name and details that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=CALL_S, **options)
    return caught.value.code().name, caught.value.details()


def leased(client: Client) -> Work:
    """Return the next item that the server hands out."""
    reply = client.ask((), (), None).result()
    assert reply.work is not None
    return reply.work


def header(client: Client, work: Work, **changes: Any) -> Any:
    """Return the header of an answer to INIT with fields changed."""
    values = {
        "worker_id": client.worker_id,
        "item": frames.item_to_proto(work.item),
        "token": frames.token_to_proto(work.token),
        "base_digest": work.base_digest,
        "dtype": meta_model_pb2.WIRE_DTYPE_FLOAT32,
    }
    return meta_model_pb2.PushHeader(**{**values, **changes})
