"""Joining a run: who fits it, sessions, and what is refused without one."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import (
    GRPC_STATUS,
    CapacityError,
    FingerprintMismatchError,
    IdentityMismatchError,
    ProtocolError,
    SessionLostError,
    SnapshotGoneError,
    error_of,
)
from dmaml.common.rundir import read_rows
from dmaml.v1 import control_pb2, meta_model_pb2
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker import tasks
from dmaml.worker.fingerprint import fingerprint
from tests.integration.harness import LiveServer, Worker, tiny
from tests.integration.rpc.calls import Raw, failure


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


def test_worker_events_are_recorded_with_their_reason(
    config: RunConfig, server: LiveServer
) -> None:
    Worker(config, server.target).join()

    server.stop()
    rows = read_rows(server.run_dir, "worker_events")
    assert [row["event"] for row in rows] == ["joined", "finished", "left"]
    assert rows[-1]["message"].endswith("left: done")
