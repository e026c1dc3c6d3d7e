"""A server process that is made in milliseconds, so that a test can kill it often."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from tests.integration import harness
from tests.integration.served import serve

_FORKS = multiprocessing.get_context("forkserver")  # it imports once, and has no threads
_FORKS.set_forkserver_preload(
    ["tests.integration.served", "dmaml.server.app", "sklearn.cluster", "sklearn.decomposition"]
)


class Forked:
    """A server that may be killed and started again on its port; it ends when the run is done."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._text = configuration.to_text(config)
        self._run_dir = run_dir
        self.target = "127.0.0.1:0"
        self.restart()

    def restart(self) -> None:
        """Start it, again on the same address, and return once it serves."""
        arguments = (self._text, self._run_dir, self.target)
        self._process = _FORKS.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        self.target = harness.wait_for(self._address, "the server serves")

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.join(harness.DEADLINE_S)

    def wait(self) -> int | None:
        """Return the exit status once it ended by itself."""
        self._process.join(harness.DEADLINE_S)
        return self._process.exitcode

    def _address(self) -> str | None:
        assert self._process.exitcode is None, "the server ended"
        return harness.address_of(self._run_dir, self._process.pid)


@contextlib.contextmanager
def forked(config: RunConfig, run_dir: Path) -> Iterator[Forked]:
    """Run a server process for a while."""
    server = Forked(config, run_dir)
    try:
        yield server
    finally:
        server.kill()
