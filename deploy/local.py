"""The embedded cluster: server, Ray and actors on this machine, one command."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dmaml.common.config import RunConfig
from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.items import RunState
from dmaml.common.rundir import LOGS
from dmaml.deploy.crew import Cluster, Crew
from dmaml.deploy.demand import Demand
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.deploy.progress import Watcher
from dmaml.deploy.server_process import ServerProcess
from dmaml.deploy.supervisor import Supervisor
from dmaml.worker.connection import Address
from dmaml.worker.operator import Status

log = logging.getLogger("dmaml.deploy")

MAX_SERVER_RESTARTS: Final = 3
ORPHAN_S: Final = 60.0
POLL_S: Final = 0.2
Show = Callable[[Status], None]


class Server(Protocol):
    """The embedded server, as who waits for its run sees it."""

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""

    def restart(self) -> None:
        """Start it again; it resumes from its last checkpoint."""

    def check(self) -> None:
        """Raise what it ended with, unless it ended well."""


@dataclass(frozen=True)
class LocalOptions:
    """How the embedded cluster is started.

    Attributes:
        workers: actors.
        listen, http: the server's addresses; port 0 takes a free one.
        data_dir: where data files are looked for first.
    """

    workers: int = 2
    listen: str = "127.0.0.1:0"
    http: str = "127.0.0.1:0"
    data_dir: Path | None = None


def train(
    config: RunConfig,
    run_dir: Path,
    options: LocalOptions,
    announce: Callable[[str], None],
    show: Show,
) -> None:
    """Train a run to its end, or raise; whatever happens, no process of it stays behind.

    A server that is killed by a signal is started again and resumes; an actor that dies is
    replaced. Both give the same bits as if nothing had happened.

    Args:
        announce: told the HTTP address once the server serves.
        show: told the status now and then.

    Raises:
        DmamlError: what a part ended with.
        KeyboardInterrupt: after everything was stopped and a checkpoint written.
    """
    logs = run_dir / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    with (
        _server(config, run_dir, logs, options) as server,
        _ray(options.workers, logs) as cluster,
    ):
        server.wait_until_serving()
        announce(server.http)
        address = Address(server.target)
        watcher = Watcher(address)
        demand = Demand(count=options.workers)
        crew = Crew(cluster, demand, address, ORPHAN_S, options.data_dir, logs)
        supervisor = Supervisor(crew)
        try:
            until_done(server, supervisor, watcher, show)
        finally:
            with undisturbed():
                watcher.stop()
                supervisor.stop()


@contextmanager
def _server(
    config: RunConfig, run_dir: Path, logs: Path, options: LocalOptions
) -> Iterator[ServerProcess]:
    server = ServerProcess(config, run_dir, logs / "server.log", options.listen, options.http)
    try:
        yield server
    finally:
        with undisturbed():
            server.stop()


@contextmanager
def _ray(workers: int, logs: Path) -> Iterator[Cluster]:
    cluster = Cluster("local", workers, logs)
    interrupt_on_sigterm()  # again: Ray puts a handler of its own, which aborts, in its place
    try:
        yield cluster
    finally:
        with undisturbed():
            cluster.close()


def until_done(server: Server, supervisor: Supervisor, watcher: Watcher, show: Show) -> None:
    """Keep server and actors at work until the run is done.

    Raises:
        DmamlError: what a part ended with.
    """
    restarts = 0
    while True:
        is_over = supervisor.watch(POLL_S)
        if watcher.latest is not None:
            show(watcher.latest)
            raise_if_failed(watcher.latest)
        code = server.poll()
        if code is not None and code < 0:
            restarts += 1
            if restarts > MAX_SERVER_RESTARTS:
                raise RunFailedError(
                    f"the server was killed {restarts} times (signal {-code}). Is there enough "
                    "memory? The same command resumes the run."
                )
            log.warning("the server was killed by signal %d: it is started again", -code)
            server.restart()
        elif code is not None:
            server.check()
            return
        elif is_over:
            time.sleep(POLL_S)


def raise_if_failed(status: Status) -> None:
    """Raise where a run has ended with an error, or waits for a person because it diverged.

    Raises:
        DivergedError: its numbers are not finite any more.
        RunFailedError: any other error.
    """
    if status.has_diverged and status.state in (RunState.PAUSED, RunState.FAILED):
        raise DivergedError(status.message)
    if status.state == RunState.FAILED:
        raise RunFailedError(status.message)
