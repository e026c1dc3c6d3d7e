"""Who is let in: the bearer token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dmaml.common.errors import AuthenticationError, ConfigError
from dmaml.server.rpc.auth import Security
from dmaml.v1 import meta_model_pb2
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, Worker, tiny, versions_of
from tests.integration.rpc.calls import CALL_S, failure

SECRET = "0123456789abcdef-secret"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[LiveServer]:
    """A server that wants a token."""
    file = tmp_path / "token"
    file.write_text(SECRET + "\nsecond line\n")
    with LiveServer(tiny(), tmp_path / "run", security=Security(token_file=file)) as live:
        yield live


@pytest.mark.parametrize("token", ["", "wrong", SECRET[:-1], SECRET + "x"])
def test_a_call_without_the_right_token_is_refused(guarded: LiveServer, token: str) -> None:
    operator = Operator(Address(guarded.target, token), Retry(0.0))

    with pytest.raises(AuthenticationError, match="bearer token is missing or wrong"):
        operator.status()

    with pytest.raises(AuthenticationError):
        list(operator.watch())
    operator.close()


def test_a_stream_without_the_token_is_refused(guarded: LiveServer) -> None:
    chunks = [meta_model_pb2.PushChunk(data=b"x" * 1000)] * 3
    with grpc.insecure_channel(guarded.target) as channel:
        meta = MetaModelStub(channel)

        assert failure(meta.PushStream, iter(chunks))[0] == "UNAUTHENTICATED"
        pull = meta.Pull(meta_model_pb2.PullRequest(), timeout=CALL_S)
        assert failure(lambda timeout: next(pull))[0] == "UNAUTHENTICATED"


def test_actors_with_the_token_train(guarded: LiveServer) -> None:
    Worker(tiny(), Address(guarded.target, SECRET)).join()

    guarded.stop()
    assert versions_of(guarded.run_dir) == [1, 2, 3, 4, 5, 6]


def test_health_needs_no_token(guarded: LiveServer) -> None:
    with grpc.insecure_channel(guarded.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        for service in ("", "dmaml.v1.MetaModel", "dmaml.v1.Control", "dmaml.v1.Clustering"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=CALL_S).status == 1  # SERVING
        unknown = health_pb2.HealthCheckRequest(service="dmaml.v1.Nothing")
        assert failure(stub.Check, unknown)[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("text", "sentence"), [(None, "cannot be read"), ("", "is empty"), ("\n", "is empty")]
)
def test_a_useless_token_file_is_refused(text: str | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError, match=sentence):
        LiveServer(tiny(), tmp_path / "run", security=Security(token_file=file))

    assert not (tmp_path / "run").exists()


def test_secrets_are_not_shown() -> None:
    address = Address("h:1", token=SECRET, tls_key="KEY")

    assert SECRET not in repr(address)
    assert "KEY" not in repr(address)
