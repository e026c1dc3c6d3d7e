"""HTTP beside gRPC: metrics, health and the status as JSON, on a thread and loop of its own."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from typing import Any

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dmaml.common.errors import AddressError
from dmaml.server.metrics import Metrics
from dmaml.server.runner import Runner
from dmaml.server.status import status_of


class Web:
    """The HTTP server of one run."""

    def __init__(self, metrics: Metrics, listen: str) -> None:
        self._metrics = metrics
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket = bind(listen)
        routes = [
            Route("/", self._index),
            Route("/metrics", self._metrics_page),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/api/status", self._status),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="warning", access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Serve from a thread of its own; alive, not yet ready."""
        self._thread.start()

    def ready(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        """Say that the run is being served; `loop` is where its state may be read."""
        self._loop = loop
        self._runner = runner

    def stop(self) -> None:
        """End the thread."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    async def _index(self, request: Request) -> Response:
        lines = ["dmaml server", ""]
        lines += [
            f"http://{request.url.netloc}{path}"
            for path in ("/metrics", "/healthz", "/readyz", "/api/status")
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def _metrics_page(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        if self._runner is None:
            return PlainTextResponse("starting\n", status_code=503)
        return PlainTextResponse("serving\n")

    async def _status(self, request: Request) -> Response:
        runner, loop = self._runner, self._loop
        if runner is None or loop is None:
            return JSONResponse({"state": "STARTING"}, status_code=503)

        async def read() -> dict[str, Any]:
            return status_of(runner)

        future = asyncio.run_coroutine_threadsafe(read(), loop)
        return JSONResponse(_finite(await asyncio.wrap_future(future)))


def _finite(value: Any) -> Any:
    """Return plain values with null for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def bind(listen: str, option: str = "--http") -> socket.socket:
    """Return a socket that listens on `host:port`; `option` is named in errors.

    Raises:
        AddressError: malformed, taken, or not this machine's.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise AddressError(f"{option} {listen!r}: required HOST:PORT, such as 127.0.0.1:9464.")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, int(port)))
        made.listen(128)
    except OSError as error:
        made.close()
        raise AddressError(
            f"cannot listen on {listen!r}: {error.strerror or error}. "
            f"Stop the other program, or give another {option}."
        ) from None
    return made
