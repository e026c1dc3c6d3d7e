"""The three services over a real socket: who is let in, what is answered, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.common.errors import (
    GRPC_STATUS,
    AddressError,
    AuthenticationError,
    CapacityError,
    ConfigError,
    FingerprintMismatchError,
    IdentityMismatchError,
    ProtocolError,
    ServerUnreachableError,
    SessionLostError,
    SnapshotGoneError,
    error_of,
)
from dmaml.common.items import ItemKind, Outcome, RunState, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.server.rpc.auth import Security
from dmaml.v1 import clustering_pb2, control_pb2, meta_model_pb2
from dmaml.v1.clustering_pb2_grpc import ClusteringStub
from dmaml.v1.control_pb2_grpc import ControlStub
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker import tasks
from dmaml.worker.client import Client, Work
from dmaml.worker.connection import Address, Retry
from dmaml.worker.fingerprint import fingerprint
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, Worker, latest, tiny, versions_of, wait_for

CALL_S = 10.0
FOREVER = 10**6


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


def failure(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    """Return the status name and details that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=CALL_S, **options)
    return caught.value.code().name, caught.value.details()


# -- who is let in -------------------------------------------------------------------------------

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


# -- TLS -----------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca), a server's and a client's certificate, and a stranger's."""
    folder = tmp_path_factory.mktemp("pki")
    for ca in ("ca", "strange-ca"):
        _openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem -subj /CN={ca}",
        )
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "strange-ca")):
        _openssl(
            folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=x"
        )
        _openssl(
            folder,
            f"x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial "
            f"-out {name}.pem -extfile san",
        )
    return folder


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60
    )


def _status(target: str, **files: Path) -> Any:
    operator = Operator(Address.of_files(target, **files), Retry(0.0))
    try:
        return operator.status()
    finally:
        operator.close()


@needs_openssl
def test_tls_lets_in_who_trusts_the_authority(pki: Path, tmp_path: Path) -> None:
    security = Security(tls_cert=pki / "server.pem", tls_key=pki / "server.key")

    with LiveServer(tiny(), tmp_path / "run", security=security) as live:
        Worker(tiny(), Address.of_files(live.target, tls_ca=pki / "ca.pem")).join()

        assert _status(live.target, tls_ca=pki / "ca.pem").version == 6
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "strange-ca.pem")
        with pytest.raises(ServerUnreachableError):
            _status(live.target)


@needs_openssl
def test_mutual_tls_lets_in_whom_the_authority_signed(pki: Path, tmp_path: Path) -> None:
    security = Security(
        tls_cert=pki / "server.pem", tls_key=pki / "server.key", tls_ca=pki / "ca.pem"
    )

    def files(name: str) -> dict[str, Path]:
        return {"tls_cert": pki / f"{name}.pem", "tls_key": pki / f"{name}.key"}

    with LiveServer(tiny(), tmp_path / "run", security=security) as live:
        status = _status(live.target, tls_ca=pki / "ca.pem", **files("client"))

        assert status.state == RunState.EMPTY
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "ca.pem")
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "ca.pem", **files("stranger"))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"tls_cert": "x.pem"}, "--tls-cert and --tls-key go together"),
        ({"tls_ca": "x.pem"}, "--tls-ca needs --tls-cert"),
        ({"tls_cert": "no.pem", "tls_key": "x.pem"}, "no.pem' cannot be read"),
        ({"tls_cert": "x.pem", "tls_key": "x.pem"}, "x.pem"),
    ],
)
def test_unsuitable_tls_files_of_a_server_are_refused(
    names: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_text("not a certificate")
    security = Security(**{key: tmp_path / name for key, name in names.items()})

    with pytest.raises(ConfigError, match=sentence):
        LiveServer(tiny(), tmp_path / "run", security=security)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "names",
    [
        {"tls_cert": "x.pem"},
        {"tls_ca": "x.pem", "tls_key": "x.pem"},
        {"tls_cert": "x.pem", "tls_key": "x.pem"},
    ],
)
def test_a_client_certificate_is_never_ignored(names: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("PEM")

    with pytest.raises(ConfigError, match="--tls"):
        Address.of_files("h:1", **{key: tmp_path / name for key, name in names.items()})


def test_secrets_are_not_shown() -> None:
    address = Address("h:1", token=SECRET, tls_key="KEY")

    assert SECRET not in repr(address)
    assert "KEY" not in repr(address)


# -- reflection, addresses -----------------------------------------------------------------------


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


# -- joining -------------------------------------------------------------------------------------


def test_every_status_of_the_table_comes_back_as_its_error() -> None:
    for error, status in GRPC_STATUS.items():
        assert type(error_of(status, "why")) is error
        assert getattr(grpc.StatusCode, status)


def test_another_protocol_version_is_refused(raw: Raw, config: RunConfig) -> None:
    status, details = failure(lambda timeout: raw.join(config, protocol_version=2))

    assert isinstance(error_of(status, details), ProtocolError)
    assert "speaks protocol 2" in details
    assert "Use one version" in details


def test_another_configuration_is_refused(raw: Raw, config: RunConfig) -> None:
    status, details = failure(lambda timeout: raw.join(tiny(run={"seed": 9})))

    assert isinstance(error_of(status, details), IdentityMismatchError)


@pytest.mark.parametrize("incarnation", ["", "short", "x" * 129])
def test_a_useless_incarnation_is_refused(raw: Raw, config: RunConfig, incarnation: str) -> None:
    status, _ = failure(lambda timeout: raw.join(config, incarnation=incarnation))

    assert status == "INVALID_ARGUMENT"


def test_joining_twice_gives_the_same_session(raw: Raw, config: RunConfig) -> None:
    first, second = raw.join(config), raw.join(config)

    assert first.worker_id == second.worker_id
    assert first.renew_every_s < first.session_s
    assert len(raw.control.Status(control_pb2.StatusRequest()).workers) == 1


def test_other_numerics_than_the_runs_are_refused(
    raw: Raw, config: RunConfig, server: LiveServer
) -> None:
    Worker(config, server.target).join()
    other = meta_model_pb2.Fingerprint(
        entries={**fingerprint(config), "torch": "0.1"}, data_digest=tasks.build(config).digest
    )

    status, details = failure(lambda timeout: raw.join(config, fingerprint=other))

    assert isinstance(error_of(status, details), FingerprintMismatchError)
    assert "torch: '0.1', not" in details


def test_more_actors_than_the_limit_are_refused(tmp_path: Path) -> None:
    config = tiny(server={"max_workers": 1})
    with (
        LiveServer(config, tmp_path / "run") as live,
        grpc.insecure_channel(live.target) as channel,
    ):
        raw = Raw(MetaModelStub(channel), None, None)
        raw.join(config)

        status, details = failure(lambda timeout: raw.join(config, incarnation="incarnation-2"))

    assert isinstance(error_of(status, details), CapacityError)
    assert "server.max_workers is 1" in details


@pytest.mark.parametrize("epoch_change", [0, 1])
def test_a_session_that_is_unknown_or_of_another_epoch_is_lost(
    raw: Raw, config: RunConfig, epoch_change: int
) -> None:
    epoch = raw.join(config).epoch + epoch_change
    renew = meta_model_pb2.RenewRequest(worker_id="nobody", epoch=epoch)
    lease = meta_model_pb2.LeaseRequest(worker_id="nobody", epoch=epoch, request_id="r")
    pull = meta_model_pb2.PullRequest(worker_id="nobody", epoch=epoch)

    for status, details in (
        failure(raw.meta.Renew, renew),
        failure(raw.meta.Lease, lease),
        failure(lambda timeout: next(raw.meta.Pull(pull, timeout=timeout))),
    ):
        assert isinstance(error_of(status, details), SessionLostError)
        assert "Join again" in details


def test_a_version_that_is_not_published_is_gone(raw: Raw, config: RunConfig) -> None:
    joined = raw.join(config)
    request = meta_model_pb2.PullRequest(
        worker_id=joined.worker_id, epoch=joined.epoch, pipeline=0, version=77
    )

    status, details = failure(lambda timeout: next(raw.meta.Pull(request, timeout=timeout)))

    assert isinstance(error_of(status, details), SnapshotGoneError)
    assert "version 77" in details


# -- leasing and pushing -------------------------------------------------------------------------


@pytest.fixture
def client(config: RunConfig, server: LiveServer) -> Iterator[Client]:
    """A client that has joined."""
    client = Client(Address(server.target), Retry(5.0))
    data = tasks.build(config).digest
    client.join(config, "here", fingerprint(config), data, ())
    yield client
    client.close()


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


def test_a_lease_asked_for_twice_is_the_same_lease(raw: Raw, config: RunConfig) -> None:
    joined = raw.join(config)
    request = meta_model_pb2.LeaseRequest(
        worker_id=joined.worker_id, epoch=joined.epoch, request_id="once", wait_s=1
    )

    first, second = raw.meta.Lease(request), raw.meta.Lease(request)

    assert first.answer == meta_model_pb2.LEASE_ANSWER_WORK
    assert first.lease.token == second.lease.token


def test_an_actor_without_work_is_told_to_wait(raw: Raw, config: RunConfig) -> None:
    joined = raw.join(config)
    requests = [
        meta_model_pb2.LeaseRequest(
            worker_id=joined.worker_id, epoch=joined.epoch, request_id=name, wait_s=wait_s
        )
        for name, wait_s in (("takes", 1), ("waits", 0), ("counts", float("nan")))
    ]

    answers = [raw.meta.Lease(request, timeout=CALL_S).answer for request in requests]

    wait = meta_model_pb2.LEASE_ANSWER_WAIT
    assert answers == [meta_model_pb2.LEASE_ANSWER_WORK, wait, wait]


def test_a_push_of_a_foreign_epoch_lease_or_size_is_refused_with_its_reason(
    raw: Raw, client: Client, server: LiveServer
) -> None:
    work = leased(client)
    token = frames.token_to_proto(work.token)
    old = meta_model_pb2.Token(epoch=token.epoch + 1, counter=token.counter)
    never = meta_model_pb2.Token(epoch=token.epoch, counter=token.counter + 9)
    layout = meta_model_pb2.Layout(
        tensors=[meta_model_pb2.TensorSpec(name="w", shape=[2])], schema_hash="wrong"
    )
    pushes = {
        Outcome.STALE_EPOCH: header(client, work, token=old, layout=_layout(), num_elements=2),
        Outcome.STALE_LEASE: header(client, work, token=never, layout=_layout(), num_elements=2),
        Outcome.SHAPE: header(client, work, layout=layout, num_elements=2),
    }

    for outcome, one in pushes.items():
        reply = raw.meta.Push(meta_model_pb2.PushRequest(header=one), timeout=CALL_S)
        assert Outcome(reply.outcome) is outcome
        assert "refused" in reply.message

    counted = _outcomes(server)
    assert {name for name, count in counted.items() if count} == {
        "stale_epoch", "stale_lease", "shape",
    }  # fmt: skip


def _layout() -> Any:
    from dmaml.common.layout import Layout, TensorSpec

    return frames.layout_to_proto(Layout((TensorSpec("w", (2,)),)))


def _outcomes(server: LiveServer) -> dict[str, float]:
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"{server.http}/metrics", timeout=CALL_S) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    samples = next(f for f in families if f.name == "dmaml_contributions").samples
    return {s.labels["outcome"]: s.value for s in samples if s.name.endswith("_total")}


@pytest.mark.parametrize(
    ("changes", "payload", "outcome"),
    [
        ({"num_bytes": 8, "crc32": 1}, b"12345678", Outcome.CHECKSUM),
        ({"num_bytes": 8}, b"1234", Outcome.SHAPE),
        ({"num_bytes": 4}, b"1234", Outcome.SHAPE),
        ({"num_elements": 1, "num_bytes": 4}, b"1234", Outcome.SHAPE),
        ({"num_bytes": 8, "dtype": 99}, b"12345678", None),
        ({"num_bytes": 4, "dtype": meta_model_pb2.WIRE_DTYPE_FLOAT16}, b"1234", Outcome.SHAPE),
    ],
)
def test_a_damaged_payload_is_refused_and_the_lease_stays(
    raw: Raw,
    client: Client,
    server: LiveServer,
    changes: dict[str, Any],
    payload: bytes,
    outcome: Outcome | None,
) -> None:
    work = leased(client)
    one = header(client, work, **{"layout": _layout(), "num_elements": 2, **changes})
    request = meta_model_pb2.PushRequest(header=one, payload=payload)

    if outcome is None:
        assert failure(raw.meta.Push, request)[0] == "INVALID_ARGUMENT"
    else:
        assert Outcome(raw.meta.Push(request, timeout=CALL_S).outcome) is outcome
        assert _outcomes(server)[outcome.name.lower()] == 1

    whole = np.array([1, 2], dtype="<f4").tobytes()
    one = header(
        client, work, layout=_layout(), num_elements=2, num_bytes=8, crc32=frames.crc32(whole)
    )
    good = meta_model_pb2.PushRequest(header=one, payload=whole)
    assert Outcome(raw.meta.Push(good, timeout=CALL_S).outcome) is Outcome.BUFFERED
    assert Outcome(raw.meta.Push(good, timeout=CALL_S).outcome) in (
        Outcome.BUFFERED, Outcome.COMMITTED,
    )  # fmt: skip  # a retry gets the first outcome


def test_a_model_beyond_the_limit_is_refused_by_its_header_alone(
    raw: Raw, client: Client, server: LiveServer
) -> None:
    from dmaml.common.layout import Layout, TensorSpec

    layout = frames.layout_to_proto(Layout((TensorSpec("w", (2**40,)),)))
    one = header(client, leased(client), layout=layout, num_elements=2**40, num_bytes=2**42)

    reply = raw.meta.PushStream(iter([meta_model_pb2.PushChunk(header=one)]), timeout=CALL_S)

    assert Outcome(reply.outcome) is Outcome.QUOTA
    assert "server.max_model_bytes" in reply.message


@pytest.mark.parametrize("case", ["no header", "nothing", "too much"])
def test_a_malformed_stream_is_refused(raw: Raw, client: Client, case: str) -> None:
    work = leased(client)
    whole = header(client, work, layout=_layout(), num_elements=2, num_bytes=8)
    stream = {
        "no header": [meta_model_pb2.PushChunk(data=b"data")],
        "nothing": [],
        "too much": [
            meta_model_pb2.PushChunk(header=whole), meta_model_pb2.PushChunk(data=b"123456789"),
        ],
    }[case]  # fmt: skip

    status, _ = failure(raw.meta.PushStream, iter(stream))

    assert status == "INVALID_ARGUMENT"


def test_a_short_stream_is_refused_as_damaged(raw: Raw, client: Client) -> None:
    whole = header(client, leased(client), layout=_layout(), num_elements=2, num_bytes=8)
    stream = [meta_model_pb2.PushChunk(header=whole), meta_model_pb2.PushChunk(data=b"1234")]

    reply = raw.meta.PushStream(iter(stream), timeout=CALL_S)

    assert Outcome(reply.outcome) is Outcome.CHECKSUM


def test_an_oversized_message_is_refused(raw: Raw, client: Client) -> None:
    too_large = b"x" * (frames.MAX_MESSAGE_BYTES + 1)
    request = meta_model_pb2.PushRequest(header=header(client, leased(client)), payload=too_large)

    status, details = failure(raw.meta.Push, request)

    assert isinstance(error_of(status, details), CapacityError)


def test_garbage_is_an_error_of_the_call_and_the_server_goes_on(
    raw: Raw, server: LiveServer
) -> None:
    with grpc.insecure_channel(server.target) as channel:
        for method in ("Join", "Renew", "Leave", "Lease", "Push"):
            call = channel.unary_unary(f"/dmaml.v1.MetaModel/{method}")
            status, _ = failure(call, b"\xff\xfe garbage \x00")
            assert status in ("INTERNAL", "UNKNOWN")
        empty = channel.unary_unary("/dmaml.v1.MetaModel/Push")
        assert failure(empty, b"")[0] == "INVALID_ARGUMENT"
        unknown = channel.unary_unary("/dmaml.v1.MetaModel/Steal")
        assert failure(unknown, b"")[0] == "UNIMPLEMENTED"

    assert raw.control.Status(control_pb2.StatusRequest()).state == RunState.EMPTY


@pytest.mark.parametrize(
    "tables",
    [
        [],
        [meta_model_pb2.MetricTable(name="mse", num_tasks=2, num_columns=2, values=[0.0] * 3)],
        [meta_model_pb2.MetricTable(name="mse", num_tasks=1, num_columns=2, values=[0.0] * 2)],
        [meta_model_pb2.MetricTable(name="mse", num_tasks=2, num_columns=1, values=[0.0] * 2)],
        [meta_model_pb2.MetricTable(name="mse", num_tasks=9, num_columns=2, values=[0.0] * 18)],
    ],
    ids=["none", "ragged", "few rows", "columns", "many rows"],
)
def test_unsuitable_figures_are_refused_and_do_not_fail_the_run(
    raw: Raw, config: RunConfig, server: LiveServer, tables: list[Any]
) -> None:
    other = Client(Address(server.target), Retry(5.0))
    work = _first_evaluation(config, server, other)
    one = header(other, work, num_tasks=2, tables=tables, crc32=frames.crc32(b""))
    request = meta_model_pb2.PushRequest(header=one)

    try:
        reply = raw.meta.Push(request, timeout=CALL_S)
        assert Outcome(reply.outcome) is Outcome.SHAPE
    except grpc.RpcError as error:
        assert error.code().name == "INVALID_ARGUMENT"

    other.leave("done here")
    other.close()
    Worker(config, server.target).join()
    assert raw.control.Status(control_pb2.StatusRequest()).state == RunState.FINISHED


def _first_evaluation(config: RunConfig, server: LiveServer, client: Client) -> Work:
    """Do the run's items until one of EVALUATE is leased."""
    from dmaml.worker.answers import Answerer

    answerer = Answerer(config)
    client.join(config, "here", fingerprint(config), answerer.source.digest, ())
    while True:
        work = leased(client)
        if work.item.kind is ItemKind.EVALUATE:
            return work
        is_init = work.item.kind is ItemKind.INIT
        theta = None if is_init else client.pull(0, work.item.base_version, None)
        answer = answerer.answer(
            work.item,
            np.empty(0, "<f4") if theta is None else theta.flat,
            None if theta is None else theta.layout,
            answerer.draw(work.item),
        )
        outcome, message = client.push(work, answer, "float32", {}).result()
        assert outcome in (Outcome.BUFFERED, Outcome.COMMITTED), message


# -- the operator --------------------------------------------------------------------------------


def test_the_status_holds_the_resolved_configuration_where_asked(
    operator: Operator, config: RunConfig
) -> None:
    text = operator.status(include_config=True).config_json

    assert configuration.from_mapping(json.loads(text)) == config
    assert operator.status().config_json == ""


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[LiveServer, Operator]]:
    """A run that does not end by itself."""
    with LiveServer(tiny(run={"rounds": FOREVER}), tmp_path / "endless") as live:
        operator = Operator(Address(live.target), Retry(5.0))
        yield live, operator
        operator.close()


def test_a_paused_run_stands_still_until_it_is_resumed(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 2, "two rounds are done")

    paused = operator.do("pause", "to look around")

    assert paused.state == RunState.PAUSED
    assert paused.message == "to look around"
    wait_for(lambda: _holds_no_lease(operator), "every answer is in")
    still = operator.checkpoint()  # waits for a commit that is under way
    assert operator.do("pause").state == RunState.PAUSED  # repeatable
    assert operator.status().version == still.version
    assert operator.do("resume").state == RunState.RUNNING
    wait_for(lambda: operator.status().version > still.version, "the run goes on")
    assert operator.do("drain").state in (RunState.DRAINING, RunState.FINISHED)
    worker.join()
    assert operator.status().state == RunState.FINISHED


def _holds_no_lease(operator: Operator) -> bool:
    return all(worker.leases == 0 for worker in operator.status().workers)


def test_a_checkpoint_is_durable_when_the_call_returns(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 3, "three rounds are done")

    reply = operator.checkpoint()

    saved = latest(live.run_dir)
    assert saved.round >= reply.round >= 3
    assert operator.status().durable_round >= reply.round
    operator.do("drain")
    worker.join()


def test_a_checkpoint_of_an_idle_run_holds_what_it_says(
    operator: Operator, config: RunConfig, server: LiveServer
) -> None:
    Worker(config, server.target).join()

    reply = operator.checkpoint()

    assert reply.version == 6
    assert reply.theta_sha256 == operator.status().theta_sha256
    assert latest(server.run_dir).round == reply.round


def test_a_drained_run_ends_after_its_round_and_keeps_it(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 2, "two rounds are done")

    operator.do("drain")

    worker.join()
    status = operator.status()
    assert status.state == RunState.FINISHED
    assert status.durable_round == status.round
    live.stop()
    assert versions_of(live.run_dir) == list(range(1, status.version + 1))


def test_watch_shows_the_run_until_it_is_finished(
    operator: Operator, config: RunConfig, server: LiveServer
) -> None:
    seen = []
    worker: Worker | None = None

    for status in operator.watch(every_s=60):
        seen.append(status)
        worker = worker or Worker(config, server.target)
        if status.state == RunState.FINISHED:
            break

    assert worker is not None
    worker.join()
    versions = [status.version for status in seen]
    assert seen[0].state == RunState.EMPTY
    assert versions == sorted(versions)
    assert versions[-1] == 6
    assert seen[-1].name == "tiny"
    assert seen[-1].rounds == 6
    assert seen[-1].tasks_seen == 6 * 4
    assert seen[-1].run_dir == str(server.run_dir)


@pytest.mark.parametrize("every_s", [0.0, 1e-9, -1.0, float("nan")])
def test_a_watcher_in_a_hurry_does_not_hold_up_the_server(
    raw: Raw, config: RunConfig, server: LiveServer, every_s: float
) -> None:
    watching = raw.control.Watch(control_pb2.WatchRequest(every_s=every_s), timeout=30)
    next(watching)
    gamma = raw.clustering.Watch(clustering_pb2.WatchGammaRequest(every_s=every_s), timeout=30)
    next(gamma)

    Worker(config, server.target).join()

    assert next(watching).name == "tiny"
    watching.cancel()
    gamma.cancel()


# -- the clustering service ----------------------------------------------------------------------


def test_one_pipeline_takes_every_unit(raw: Raw) -> None:
    route = raw.clustering.Route(clustering_pb2.RouteRequest(gamma_version=0))
    state = raw.clustering.GetState(clustering_pb2.GetStateRequest())

    assert list(route.pipelines) == [0]
    assert route.num_units == len(route.gamma) == 0
    assert state.strategy == "none"
    assert [(p.pipeline, p.parent, p.active) for p in state.pipelines] == [(0, -1, True)]


def test_a_gamma_that_is_not_in_force_is_gone(raw: Raw) -> None:
    request = clustering_pb2.RouteRequest(gamma_version=7)

    status, details = failure(raw.clustering.Route, request)

    assert isinstance(error_of(status, details), SnapshotGoneError)
    assert "γ version 7" in details


def test_worker_events_are_recorded_with_their_reason(
    config: RunConfig, server: LiveServer
) -> None:
    Worker(config, server.target).join()

    server.stop()
    rows = read_rows(server.run_dir, "worker_events")
    assert [row["event"] for row in rows] == ["joined", "finished", "left"]
    assert rows[-1]["message"].endswith("left: done")


def test_items_are_handed_out_in_their_order(client: Client, config: RunConfig) -> None:
    assert leased(client).item == WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0)
