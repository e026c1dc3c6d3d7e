"""The Clustering service: γ and what it decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, final

from dmaml.common.errors import SnapshotGoneError
from dmaml.server.rpc.calls import guarded
from dmaml.server.rpc.control import WATCH_AT_MOST_EVERY_S, WATCH_S
from dmaml.server.runner import Runner
from dmaml.v1 import clustering_pb2 as pb
from dmaml.v1 import clustering_pb2_grpc as rpc


@final
class ClusteringService(rpc.ClusteringServicer):
    """What actors and people ask of γ."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    @guarded
    async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteReply:
        """Return γ at a version."""
        gamma = self._run.gamma
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
        expected = gamma.matrix.sum(axis=0) if len(gamma.matrix) else [0.0] * len(gamma.pipelines)
        return pb.GetStateReply(
            strategy=self._run.config.clustering.name,
            gamma_version=gamma.version,
            phase="train",
            pipelines=[
                pb.PipelineState(pipeline=p, parent=-1, active=True, expected_units=float(units))
                for p, units in zip(gamma.pipelines, expected, strict=True)
            ],
        )
