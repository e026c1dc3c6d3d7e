"""Wires the server's parts and serves one run; the only file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.items import RunState
from dmaml.common.provenance import start_facts
from dmaml.server import aggregation, clustering, weights
from dmaml.server.metrics import Metrics
from dmaml.server.rpc.auth import Security
from dmaml.server.rpc.server import serve
from dmaml.server.runner import Runner
from dmaml.server.storage import Storage
from dmaml.server.web.app import Web, bind

log = logging.getLogger("dmaml.server")


@dataclass(frozen=True)
class ServerOptions:
    """How a server is started.

    Attributes:
        listen: gRPC address, `host:port`; port 0 takes a free one.
        http: HTTP address, likewise.
        exit_when_done: end when the run is finished or failed, rather than stay and say so.
        on_serving: told the addresses once the server serves.
        linger_s: with `exit_when_done`, how long actors may ask once more and hear DONE.
    """

    listen: str = "127.0.0.1:50051"
    http: str = "127.0.0.1:9464"
    security: Security = field(default_factory=Security)
    resume: bool = True
    with_reflection: bool = False
    exit_when_done: bool = False
    linger_s: float = 5.0
    on_serving: Callable[[dict[str, Any]], None] | None = None


async def run_server(
    config: RunConfig, run_dir: Path, options: ServerOptions
) -> tuple[RunState, str]:
    """Serve one run until it is told to stop (SIGTERM, SIGINT) or, if asked, until it is done.

    Returns:
        The run's state at the end, and why it is so.

    Raises:
        BadInputError: the directory, an address or a file is unsuitable; nothing was begun.
    """
    _use_one_thread()
    check_address(options.listen)
    options.security.check(options.listen)
    options.security.token()
    options.security.credentials()
    check_plug_ins(config)
    bind(options.listen, "--listen").close()
    metrics = Metrics()
    web = Web(metrics, options.http)
    try:
        storage = Storage(run_dir, config, options.resume)
    except BaseException:
        web.stop()
        raise
    storage.began(time.time(), start_facts())
    web.start()
    runner = Runner(storage, metrics)
    try:
        await runner.start()
        server, port = await serve(
            runner, options.listen, options.security, options.with_reflection
        )
    except BaseException:
        await runner.close()
        web.stop()
        raise
    host = options.listen.rsplit(":", 1)[0]
    http_host = options.http.rsplit(":", 1)[0]
    addresses = {"grpc": f"{host}:{port}", "http": f"{http_host}:{web.port}", "pid": os.getpid()}
    storage.announce(addresses)
    web.ready(runner, asyncio.get_running_loop())
    if options.on_serving is not None:
        options.on_serving(addresses)
    log.info(
        "serving run %r (version %d of %d, epoch %d) on %s, metrics on http://%s/metrics",
        config.run.name, runner.core.progress.version, config.run.rounds, storage.epoch,
        addresses["grpc"], addresses["http"],
    )  # fmt: skip
    try:
        await _until_stopped(runner, options)
    finally:
        stopping = asyncio.get_running_loop().create_task(server.stop(grace=1.0))
        await asyncio.sleep(0)  # from here on new calls are refused as UNAVAILABLE
        runner.release()
        await stopping
        await runner.close()
        web.stop()
    return runner.core.state, runner.core.message


async def _until_stopped(runner: Runner, options: ServerOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
    ends = [loop.create_task(stop.wait())]
    if options.exit_when_done:
        ends.append(loop.create_task(runner.over.wait()))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    until = loop.time() + options.linger_s
    while len(runner.core.members) and loop.time() < until and not stop.is_set():
        await asyncio.sleep(0.05)
    for task in ends:
        task.cancel()


def check_address(listen: str) -> None:
    """Raise unless `listen` reads `host:port`.

    Raises:
        ConfigError: it does not.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen!r}: required HOST:PORT, such as 127.0.0.1:50051.")


def check_plug_ins(config: RunConfig) -> None:
    """Raise unless the server's plug-ins can be made.

    Raises:
        BadInputError: an unknown name, or one that cannot be imported.
    """
    weights.build(config.weights)
    aggregation.check(config)
    clustering.build(config)


def _use_one_thread() -> None:
    """Sums must not depend on how many threads there are."""
    import torch

    torch.set_num_threads(1)
