"""`dmaml server`: imports neither ray nor the worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.common.items import RunState
from dmaml.common.memory import keep_freed_memory
from dmaml.server.app import ServerOptions, run_server
from dmaml.server.rpc.auth import Security


def serve(
    config_file: str,
    settings: tuple[str, ...],
    run_dir: Path | None,
    listen: str,
    http: str,
    resume: bool,
    security: Security,
    with_reflection: bool,
    exit_when_done: bool,
    embedded: bool,
) -> None:
    """Serve one run; embedded: configuration from, and life as long as, the standard input.

    Raises:
        RunFailedError: the run failed and `exit_when_done`.
    """
    keep_freed_memory(up_to=2 * frames.MAX_UNARY_BYTES)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = _read_embedded() if embedded else _read(config_file, settings)
    options = ServerOptions(
        listen=listen,
        http=http,
        security=security,
        resume=resume,
        with_reflection=with_reflection,
        exit_when_done=exit_when_done or embedded,
        on_serving=_print_addresses if embedded else None,
    )
    folder = run_dir or Path("runs") / config.run.name
    state, message = asyncio.run(run_server(config, folder, options))
    if state is RunState.FAILED:
        raise RunFailedError(message)


def _read(config_file: str, settings: tuple[str, ...]) -> RunConfig:
    return configuration.resolve(configuration.load(Path(config_file), settings))


def _read_embedded() -> RunConfig:
    lines = []
    for line in sys.stdin:
        if line.rstrip("\n") == "...":
            break
        lines.append(line)
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    return configuration.resolve(configuration.from_text("".join(lines), "configuration"))


def _end_with_parent() -> None:
    """Ask this process to stop once the parent, who holds the other end, is gone."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _print_addresses(addresses: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
