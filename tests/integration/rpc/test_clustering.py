"""The clustering service: which pipeline takes which unit."""

from __future__ import annotations

from dmaml.common.errors import SnapshotGoneError, error_of
from dmaml.v1 import clustering_pb2
from tests.integration.rpc.calls import Raw, failure


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
