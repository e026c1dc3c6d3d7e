"""Where a server listens and what it serves there; a start that is refused writes nothing."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from dmaml.common.errors import AddressError
from dmaml.common.items import RunState
from dmaml.server.rpc.auth import Security
from dmaml.v1 import control_pb2
from dmaml.v1.control_pb2_grpc import ControlStub
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, tiny
from tests.integration.rpc.calls import CALL_S, failure


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_listening_beyond_loopback_without_a_token_is_refused(listen: str, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match=r"refused to listen .* Give --token-file") as caught:
        LiveServer(tiny(), tmp_path / "run", listen=listen)

    assert listen in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_listening_beyond_loopback_is_allowed_where_insecure_is_said(tmp_path: Path) -> None:
    security = Security(insecure=True)

    with LiveServer(tiny(), tmp_path / "run", listen="0.0.0.0:0", security=security) as live:
        port = live.target.rsplit(":", 1)[1]
        operator = Operator(Address(f"127.0.0.1:{port}"), Retry(5.0))
        assert operator.status().state == RunState.EMPTY
        operator.close()


@pytest.mark.parametrize("is_on", [True, False])
def test_reflection_is_served_behind_its_flag(is_on: bool, tmp_path: Path) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with (
        LiveServer(tiny(), tmp_path / "run", with_reflection=is_on) as live,
        grpc.insecure_channel(live.target) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), timeout=CALL_S)

        if is_on:
            services = {s.name for s in next(call).list_services_response.service}
            assert services >= {"dmaml.v1.MetaModel", "dmaml.v1.Control", "dmaml.v1.Clustering"}
        else:
            assert failure(lambda timeout: next(call))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("option", ["listen", "http"])
def test_a_taken_port_is_refused_and_nothing_is_written(
    option: str, server: LiveServer, tmp_path: Path
) -> None:
    taken = server.target if option == "listen" else server.http.removeprefix("http://")

    with pytest.raises(AddressError, match=rf"{taken}.*another --{option}"):
        LiveServer(tiny(), tmp_path / "other", **{option: taken})

    assert not (tmp_path / "other").exists()


def test_an_unknown_plug_in_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"unknown weight generator 'medain'\. .*Known: .*mean"):
        LiveServer(tiny(weights={"name": "medain"}), tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_a_second_server_on_a_run_directory_is_refused(server: LiveServer) -> None:
    with pytest.raises(Exception, match="in use by another server"):
        LiveServer(tiny(), server.run_dir)

    with grpc.insecure_channel(server.target) as channel:
        ControlStub(channel).Status(control_pb2.StatusRequest(), timeout=CALL_S)
