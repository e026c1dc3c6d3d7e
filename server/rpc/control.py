"""The Control service: the run as its operator sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final, final

from dmaml.server.rpc.calls import guarded
from dmaml.server.runner import Runner
from dmaml.server.status import status_of
from dmaml.v1 import control_pb2 as pb
from dmaml.v1 import control_pb2_grpc as rpc

WATCH_S: Final = 5.0
WATCH_AT_MOST_EVERY_S: Final = 0.25


@final
class ControlService(rpc.ControlServicer):
    """What operators and the command line call."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    @guarded
    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusReply:
        """Return the run now."""
        reply = status_message(self._run)
        if request.include_config:
            reply.config_json = json.dumps(self._run.config.model_dump(mode="json"))
        return reply

    @guarded
    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.StatusReply]:
        """Return the run again and again."""
        while True:
            # asked before the look, so that a change during the pause is not missed
            changed = asyncio.ensure_future(self._run.changed(request.every_s or WATCH_S))
            yield status_message(self._run)
            await asyncio.gather(changed, asyncio.sleep(WATCH_AT_MOST_EVERY_S))

    @guarded
    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.StatusReply:
        """Grant no further lease."""
        self._run.pause(request.reason[:1000])
        return status_message(self._run)

    @guarded
    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.StatusReply:
        """Grant leases again."""
        self._run.resume()
        return status_message(self._run)

    @guarded
    async def Checkpoint(self, request: pb.CheckpointRequest, context: Any) -> pb.CheckpointReply:
        """Make the last committed round durable."""
        progress, digest = await self._run.checkpoint()
        return pb.CheckpointReply(
            version=progress.version,
            round=progress.round,
            theta_sha256=digest,
        )

    @guarded
    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.StatusReply:
        """End the run after the round in progress."""
        self._run.drain(request.reason[:1000])
        return status_message(self._run)


def status_message(runner: Runner) -> pb.StatusReply:
    """Return the run now as a message."""
    status = status_of(runner)
    reply = pb.StatusReply(
        state=int(runner.core.state),
        run_dir=str(runner.folder),
        software_version=version("dmaml"),
        query_loss=status["query_loss"] or 0.0,
        metrics=status["metrics"],
        validation=status["validation"],
        workers=[pb.WorkerStatus(**worker) for worker in status["workers"]],
    )
    for name in (
        "message", "name", "identity", "epoch", "round", "version", "trained", "rounds",
        "tasks_seen", "durable_round", "theta_sha256", "tasks_per_s", "uptime_s", "has_diverged",
    ):  # fmt: skip
        setattr(reply, name, status[name])
    return reply
