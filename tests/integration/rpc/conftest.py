"""A tiny run on a server, and who talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dmaml.common.config import RunConfig
from dmaml.v1.clustering_pb2_grpc import ClusteringStub
from dmaml.v1.control_pb2_grpc import ControlStub
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker import tasks
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry
from dmaml.worker.fingerprint import fingerprint
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, tiny
from tests.integration.rpc.calls import Raw


@pytest.fixture
def config() -> RunConfig:
    return tiny()


@pytest.fixture
def server(config: RunConfig, tmp_path: Path) -> Iterator[LiveServer]:
    with LiveServer(config, tmp_path / "run") as live:
        yield live


@pytest.fixture
def raw(server: LiveServer) -> Iterator[Raw]:
    with grpc.insecure_channel(server.target) as channel:
        yield Raw(MetaModelStub(channel), ControlStub(channel), ClusteringStub(channel))


@pytest.fixture
def operator(server: LiveServer) -> Iterator[Operator]:
    operator = Operator(Address(server.target), Retry(5.0))
    yield operator
    operator.close()


@pytest.fixture
def client(config: RunConfig, server: LiveServer) -> Iterator[Client]:
    """A client that has joined."""
    client = Client(Address(server.target), Retry(5.0))
    data = tasks.build(config).digest
    client.join(config, "here", fingerprint(config), data, ())
    yield client
    client.close()
