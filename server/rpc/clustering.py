"""The Clustering service: γ and what it decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, final

from dmaml.common.errors import CapacityError, SnapshotGoneError
from dmaml.common.gamma import Gamma
from dmaml.server.rpc.calls import guarded
from dmaml.server.rpc.control import WATCH_AT_MOST_EVERY_S, WATCH_S
from dmaml.server.runner import Runner
from dmaml.v1 import clustering_pb2 as pb
from dmaml.v1 import clustering_pb2_grpc as rpc

MAX_VALUES: Final = 1_000_000  # of γ, 4 bytes each


@final
class ClusteringService(rpc.ClusteringServicer):
    """What actors and people ask of γ."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    @guarded
    async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteReply:
        """Return γ at a version."""
        gamma = self._run.gamma
        if gamma.matrix.size > MAX_VALUES:
            raise CapacityError(
                f"route refused: γ has {gamma.matrix.size} values, one message takes {MAX_VALUES}. "
                "Lower clustering.max_pipelines or the number of units."
            )
        if request.gamma_version != gamma.version:
            raise SnapshotGoneError(
                f"route refused: γ version {request.gamma_version} asked for, {gamma.version} is "
                "in force. Ask for a new lease."
            )
        return pb.RouteReply(
            gamma_version=gamma.version,
            pipelines=gamma.pipelines,
            num_units=gamma.matrix.shape[0],
            gamma=gamma.matrix.ravel().tolist(),
        )

    @guarded
    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateReply:
        """Return the strategy's state for people."""
        return self._state()

    @guarded
    async def Watch(
        self, request: pb.WatchGammaRequest, context: Any
    ) -> AsyncIterator[pb.GetStateReply]:
        """Return the state again whenever γ changes."""
        while True:
            yield self._state()
            version = self._run.gamma.version
            while self._run.gamma.version == version:
                await asyncio.sleep(WATCH_AT_MOST_EVERY_S)
                await self._run.changed(request.every_s or WATCH_S)
                if request.every_s:
                    break

    def _state(self) -> pb.GetStateReply:
        gamma = self._run.gamma
        return pb.GetStateReply(
            strategy=self._run.config.clustering.name,
            gamma_version=gamma.version,
            phase=gamma.phase,
            pipelines=_pipelines(gamma, self._run.expected_units),
        )


def _pipelines(gamma: Gamma, expected: dict[int, float]) -> list[pb.PipelineState]:
    return [
        pb.PipelineState(
            pipeline=node.number,
            parent=node.parent,
            opened_round=node.opened_round,
            active=node.is_active,
            expected_units=expected.get(node.number, 0.0),
        )
        for node in gamma.nodes
    ]
