"""Pushing answers: what is taken, and what is refused with which reason."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.common.errors import CapacityError, error_of
from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.v1 import control_pb2, meta_model_pb2
from dmaml.worker.client import Client, Work
from dmaml.worker.connection import Address, Retry
from dmaml.worker.fingerprint import fingerprint
from tests.integration.harness import LiveServer, Worker
from tests.integration.rpc.calls import CALL_S, Raw, failure, header, leased


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
