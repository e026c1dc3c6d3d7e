"""A server process that serves one run after another: importing torch and gRPC once, not per run.

It reads one order a line from its standard input, `{"run_dir", "config", "log"}` in JSON, and
answers each with two lines: where it serves, then how the run ended. It ends with its standard
input, after a checkpoint. Imports neither ray nor the worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.errors import DmamlError
from dmaml.common.items import RunState
from dmaml.common.memory import keep_freed_memory
from dmaml.server.app import ServerOptions, run_server

Orders = queue.Queue[dict[str, Any] | None]


def main() -> None:
    """Serve the runs that are ordered until there are no more."""
    keep_freed_memory(up_to=2 * frames.MAX_UNARY_BYTES)
    orders: Orders = queue.Queue()
    threading.Thread(target=_read, args=(orders,), name="orders", daemon=True).start()
    asyncio.run(_serve(orders))


def _read(orders: Orders) -> None:
    """Pass the orders on; ask this process to stop once the parent, who gives them, is gone."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


async def _serve(orders: Orders) -> None:
    loop = asyncio.get_running_loop()
    while (order := await loop.run_in_executor(None, orders.get)) is not None:
        handlers = [logging.FileHandler(order["log"], encoding="utf-8")]
        style = "%(asctime)s %(levelname)s %(message)s"
        logging.basicConfig(level=logging.INFO, format=style, handlers=handlers, force=True)
        try:
            config = configuration.from_text(order["config"], "configuration")
            options = ServerOptions(
                "127.0.0.1:0", "127.0.0.1:0", exit_when_done=True, on_serving=_tell
            )
            state, message = await run_server(config, Path(order["run_dir"]), options)
        except DmamlError as error:
            _tell({"error": str(error), "exit_code": error.exit_code})
            continue
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):  # between two runs a signal ends it
                loop.remove_signal_handler(number)
        _tell({"state": state.name, "message": message})
        if state not in (RunState.FINISHED, RunState.FAILED):
            return  # it was told to stop


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
