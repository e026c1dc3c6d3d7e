"""The clustering service: which pipeline takes which unit."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np

from dmaml.common.errors import SnapshotGoneError, error_of
from dmaml.common.items import ItemKind
from dmaml.common.probes import Probe, ProbeKind
from dmaml.server.rpc.auth import Security
from dmaml.v1 import clustering_pb2, meta_model_pb2
from dmaml.v1.clustering_pb2_grpc import ClusteringStub
from dmaml.v1.meta_model_pb2_grpc import MetaModelStub
from dmaml.worker import tasks
from dmaml.worker.answers import Answerer
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry
from dmaml.worker.fingerprint import fingerprint
from tests.integration.harness import LiveServer, Worker, tiny
from tests.integration.rpc.calls import CALL_S, Raw, failure, header, leased
from tests.integration.test_clustering import families

NOTHING = np.empty(0, "<f4")


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


def test_gamma_and_its_tree_can_be_asked_for_and_watched(tmp_path: Path) -> None:
    config = families()
    with (
        LiveServer(config, tmp_path / "run") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = ClusteringStub(channel)
        seen = stub.Watch(clustering_pb2.WatchGammaRequest(), timeout=60)
        versions = [next(seen).gamma_version]
        worker = Worker(config, server.target)
        while versions[-1] < 3:
            versions.append(next(seen).gamma_version)
        seen.cancel()
        worker.join()
        state = stub.GetState(clustering_pb2.GetStateRequest(), timeout=CALL_S)
        client = Client(Address(server.target), Retry(5.0))
        gamma = client.route(3)
        client.close()

    assert versions == sorted(set(versions))
    assert [(p.pipeline, p.parent, p.opened_round, p.active) for p in state.pipelines] == [
        (0, -1, 0, False), (1, -1, 0, True), (2, 0, 3, True), (3, 0, 3, True)
    ]  # fmt: skip
    assert gamma.pipelines == (1, 2, 3)
    assert np.allclose(gamma.matrix.sum(axis=1), 1.0)
    expected = [p.expected_units for p in state.pipelines if p.active]
    trained = tasks.build(config).split("train")
    assert len(trained) < len(gamma.matrix)
    assert np.allclose(expected, gamma.matrix[trained].sum(axis=0), rtol=1e-4)


def test_an_observation_whose_sizes_do_not_go_together_is_refused(tmp_path: Path) -> None:
    config = families()
    with (
        LiveServer(config, tmp_path / "run") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        answerer = Answerer(config)
        client = Client(Address(server.target), Retry(5.0))
        client.join(config, "here", fingerprint(config), answerer.source.digest, ())
        for _ in range(2):  # INIT of each pipeline
            work = leased(client)
            client.push(work, answerer.answer(work.item, NOTHING, None, []), "float32", {}).result()
        work = leased(client)
        stub = MetaModelStub(channel)
        wrong = [
            meta_model_pb2.ObservationHeader(num_units=9, units=[5, 9]),
            meta_model_pb2.ObservationHeader(num_units=9, num_columns=2),
        ]
        replies = []
        for observation, num_elements in zip(wrong, (0, 3), strict=True):
            sent = header(client, work, observation=observation, num_elements=num_elements)
            payload = bytes(4 * num_elements)
            sent.num_bytes = len(payload)
            request = meta_model_pb2.PushRequest(header=sent, payload=payload)
            replies.append(stub.Push(request, timeout=CALL_S))
        client.close()

    assert work.item.kind is ItemKind.PROBE
    assert work.probe == Probe(ProbeKind.UNITS)
    assert {reply.outcome for reply in replies} == {meta_model_pb2.PUSH_OUTCOME_SHAPE}
    assert "unit 9 of 9" in replies[0].message
    assert "3 values for 0 units in rows of 2" in replies[1].message


def test_gamma_is_not_shown_without_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef-secret\n")
    with (
        LiveServer(tiny(), tmp_path / "run", security=Security(token_file=file)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = ClusteringStub(channel)
        watching = stub.Watch(clustering_pb2.WatchGammaRequest(), timeout=CALL_S)

        for call, request in (
            (stub.Route, clustering_pb2.RouteRequest()),
            (stub.GetState, clustering_pb2.GetStateRequest()),
        ):
            assert failure(call, request)[0] == "UNAUTHENTICATED"
        assert failure(lambda timeout: next(watching))[0] == "UNAUTHENTICATED"
