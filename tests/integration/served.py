"""What a forked server process does. It imports no more than a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dmaml.common import config as configuration
from dmaml.server.app import ServerOptions, run_server


def serve(text: str, run_dir: Path, listen: str) -> None:
    """Serve the run of a configuration, given as YAML, until it is done."""
    config = configuration.resolve(configuration.from_text(text, "configuration"))
    options = ServerOptions(listen=listen, http="127.0.0.1:0", exit_when_done=True)
    asyncio.run(run_server(config, run_dir, options))
